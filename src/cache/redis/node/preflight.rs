//! Whether a server permits all commands that the cache needs.

use crate::cache::redis::net::connect_error::ConnectError;
use ::redis::aio::MultiplexedConnection;
use ::redis::{Pipeline, RedisError, RedisResult, Value};

/// Runs the commands of the scripts on keys of its own, and returns the refused ones. Removes the
/// keys at the end, and touches no other key.
pub(crate) const PREFLIGHT: &str = "
local refused = {}
local function try(...)
  local reply = redis.pcall(...)
  if type(reply) ~= 'table' or not reply.err then return end
  local words = string.lower(reply.err)
  for _, word in ipairs({'noperm', 'permission', 'not allowed', 'can\\'t run', 'unknown', 'access'}) do
    if string.find(words, word, 1, true) then
      table.insert(refused, select(1, ...) .. ' in a script (' .. reply.err .. ')')
      return
    end
  end
end
local set, hash, lease, nodes = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
try('TIME')
try('SREM', set, '')
try('SADD', set, '')
try('SISMEMBER', set, '')
try('PTTL', set)
try('PEXPIRE', set, 1)
try('DEL', set)
try('HDEL', hash, '')
try('HSET', hash, '', '')
try('DEL', hash)
try('SET', lease, '', 'PX', 1)
try('GET', lease)
try('EXISTS', lease)
try('DEL', lease)
try('ZREMRANGEBYSCORE', nodes, 0, 0)
try('ZRANGEBYSCORE', nodes, 0, 0)
return refused
";

/// Tries all commands on keys in the slot of `tag`. Returns an error that names the refused ones.
pub(crate) async fn preflight(
    connection: &mut MultiplexedConnection,
    prefix: &str,
    tag: &str,
) -> Result<(), ConnectError> {
    let key = |family: &str| format!("{prefix}{family}::{{{tag}}}::preflight");
    let [set, hash, lease, fence] = ["repository", "blobs", "lease", "fence"].map(key);
    let nodes = format!("{prefix}layercache::{{{tag}}}::preflight");
    let mut pipeline = Pipeline::new();
    pipeline.cmd("EVAL").arg(PREFLIGHT).arg(4);
    pipeline.arg(&set).arg(&hash).arg(&lease).arg(&nodes);
    let no_script = "0".repeat(40);
    pipeline.cmd("EVALSHA").arg(no_script).arg(1).arg(&lease);
    pipeline.cmd("SISMEMBER").arg(&set).arg("");
    pipeline.cmd("SMISMEMBER").arg(&set).arg("").arg("");
    pipeline.cmd("HMGET").arg(&hash).arg("path");
    pipeline.cmd("EXISTS").arg(&fence);
    pipeline.cmd("UNLINK").arg(&fence);
    pipeline.cmd("PERSIST").arg(&nodes);
    pipeline.cmd("SCAN").arg(0).arg("COUNT").arg(1);
    let replies: Vec<RedisResult<Value>> = pipeline
        .ignore_errors()
        .query_async(connection)
        .await
        .map_err(ConnectError::Connecting)?;
    let names = [
        "EVAL",
        "EVALSHA",
        "SISMEMBER",
        "SMISMEMBER",
        "HMGET",
        "EXISTS",
        "UNLINK",
        "PERSIST",
        "SCAN",
    ];
    let mut refused: Vec<_> = names
        .iter()
        .zip(&replies)
        .filter_map(|(name, reply)| Some(format!("{name} ({})", refusal(reply)?)))
        .collect();
    if let Some(Ok(Value::Array(inside))) = replies.first() {
        refused.extend(inside.iter().filter_map(|line| match line {
            Value::BulkString(line) => Some(String::from_utf8_lossy(line).into_owned()),
            _ => None,
        }));
    }
    if refused.is_empty() {
        Ok(())
    } else {
        Err(ConnectError::Forbidden(refused))
    }
}

/// Returns the error of a command that the user may not run at all, or the server does not know.
fn refusal(reply: &RedisResult<Value>) -> Option<&RedisError> {
    let error = reply.as_ref().err()?;
    let is_unknown = || error.to_string().to_lowercase().contains("unknown command");
    (error.code() == Some("NOPERM") || is_unknown()).then_some(error)
}
