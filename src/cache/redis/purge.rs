//! Taking away all that Redis has of ours.

use ::redis::aio::MultiplexedConnection;
use ::redis::{ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult, Value, cmd};

/// How many keys are looked at and taken away at once.
const BATCH: usize = 1000;

/// A full Redis refuses a `SET`, unless something was removed before it.
const REPLACE: &str = "
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1])
return redis.status_reply('OK')
";

/// Which server it is, and whose data it has: a restart changes the one, a failover the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity(String);

/// Adds the commands that [`identify`] reads the replies of.
pub(super) fn ask(pipeline: &mut Pipeline) {
    pipeline.cmd("INFO").arg("server");
    pipeline.cmd("INFO").arg("replication");
}

/// Reads the two last replies.
pub(super) fn identify(replies: &[RedisResult<Value>]) -> Option<Identity> {
    let [.., Ok(server), Ok(replication)] = replies else {
        return None;
    };
    let (server, replication) = (info(server)?, info(replication)?);
    let field = |text: &str, name: &str| {
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)).unwrap_or("");
        value.trim().to_owned()
    };
    Some(Identity(format!(
        "{} {}",
        field(&server, "run_id:"),
        field(&replication, "master_replid:")
    )))
}

fn info(value: &Value) -> Option<String> {
    String::from_redis_value(value.clone()).ok()
}

/// Purges what another server knew. After a failover, or a start from an old dump, what is there
/// may be from before a delete; such a server has another identity than the one that is kept beside
/// the nodes. Where there is neither, nothing is from us: what a Go registry has cached may stay.
pub(super) async fn if_another_server(
    connection: &mut MultiplexedConnection,
    prefix: &str,
    nodes: &str,
    last: Option<&Identity>,
) -> RedisResult<Identity> {
    let mut pipeline = Pipeline::new();
    ask(&mut pipeline);
    let replies: Vec<RedisResult<Value>> = pipeline.ignore_errors().query_async(connection).await?;
    let nobody = || RedisError::from((ErrorKind::UnexpectedReturnType, "INFO says nothing"));
    let server = identify(&replies).ok_or_else(nobody)?;
    let key = format!("{nodes}::server");
    // A name is short, and what is no text is another server's.
    let known: Vec<u8> = match cmd("GETRANGE")
        .arg(&key)
        .arg(0)
        .arg(255)
        .query_async(connection)
        .await
    {
        Err(error) if RedisError::code(&error) == Some("WRONGTYPE") => b"?".to_vec(),
        known => known?,
    };
    // It may have been evicted, and there are nodes all the same, or this one has been here before:
    // then it is not known whose data there is.
    let has_nodes: bool = cmd("EXISTS").arg(nodes).query_async(connection).await?;
    match known.as_slice() {
        known if known == server.0.as_bytes() => return Ok(server),
        [] if !has_nodes && last.is_none_or(|last| *last == server) => {}
        _ => {
            tracing::warn!("Redis is another server than before: what it has of ours is purged");
            everything(connection, prefix).await?;
        }
    }
    let () = cmd("EVAL")
        .arg(REPLACE)
        .arg(1)
        .arg(&key)
        .arg(&server.0)
        .query_async(connection)
        .await?;
    Ok(server)
}

/// Takes all leases away, then all entries: a fill that is on its way finds no lease.
pub(super) async fn everything(
    connection: &mut MultiplexedConnection,
    prefix: &str,
) -> RedisResult<()> {
    for subject in ["lease::", "repository::", "blobs::"] {
        matching(connection, &format!("{}{subject}*", escaped(prefix))).await?;
    }
    Ok(())
}

async fn matching(connection: &mut MultiplexedConnection, pattern: &str) -> RedisResult<()> {
    let mut cursor = 0u64;
    loop {
        let mut scan = cmd("SCAN");
        scan.arg(cursor)
            .arg("MATCH")
            .arg(pattern)
            .arg("COUNT")
            .arg(BATCH);
        let (next, keys): (u64, Vec<Vec<u8>>) = scan.query_async(connection).await?;
        if !keys.is_empty() {
            let () = cmd("UNLINK").arg(&keys).query_async(connection).await?;
        }
        if next == 0 {
            return Ok(());
        }
        cursor = next;
    }
}

/// A prefix is a text, not a pattern.
fn escaped(prefix: &str) -> String {
    let is_special = |c: char| matches!(c, '*' | '?' | '[' | ']' | '\\' | '^' | '-');
    prefix.chars().fold(String::new(), |mut text, c| {
        if is_special(c) {
            text.push('\\');
        }
        text.push(c);
        text
    })
}
