//! Which storage the facts in a name space of Redis belong to.
//!
//! If the nodes of two stores shared a name space, each store would get the answers of the other: a
//! fact says which repository has a blob, but not in which bucket. So before a node uses a Redis,
//! it notes there what it caches, beside the set of nodes. A node that finds another note does not
//! use that Redis.

use crate::cache::redis::net::connect_error::ConnectError;
use crate::cache::storage::readable;
use crate::telemetry::metrics::foreign_storage;
use ::metrics::Counter;
use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, RedisResult, Value, cmd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Notes the storage if nothing is noted yet, and returns the note. The script removes something
/// first, because a full Redis refuses a `SET` otherwise. A value of another type is replaced.
pub(crate) const CLAIM: &str = "
local there = redis.pcall('GET', KEYS[1])
if type(there) == 'string' then return there end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1])
return ARGV[1]
";

/// A node's claim on its name space.
#[derive(Debug)]
pub(crate) struct NamespaceClaim {
    storage: String,
    /// Whether the log says already that another storage is noted.
    is_told: AtomicBool,
    refused: Counter,
}

impl NamespaceClaim {
    pub(crate) fn new(storage: String) -> Self {
        Self {
            storage,
            is_told: AtomicBool::new(false),
            refused: foreign_storage(),
        }
    }

    /// Notes this node's storage in Redis.
    ///
    /// # Errors
    /// Returns an error if another storage is noted, or if nothing can be noted.
    pub(crate) async fn stake(
        &self,
        connection: &mut MultiplexedConnection,
        nodes: &str,
    ) -> Result<(), ConnectError> {
        let key = note_key(nodes);
        let there: RedisResult<Value> = self.command(&key).query_async(connection).await;
        self.judge(key, there.map_err(ConnectError::Connecting)?)
    }

    /// Returns the command that notes the storage under this key, and reads the note.
    pub(super) fn command(&self, key: &str) -> Cmd {
        let mut claim = cmd("EVAL");
        claim.arg(CLAIM).arg(1).arg(key).arg(&self.storage);
        claim
    }

    /// Returns an error if the note that was read is another storage's. Logs this once, and counts
    /// it.
    pub(super) fn judge(&self, key: String, there: Value) -> Result<(), ConnectError> {
        let there = match there {
            Value::BulkString(there) if there == self.storage.as_bytes() => {
                self.is_told.store(false, Ordering::Relaxed);
                return Ok(());
            }
            Value::BulkString(there) => readable(&String::from_utf8_lossy(&there)),
            _ => readable(""),
        };
        self.refused.increment(1);
        let ours = self.storage.clone();
        let error = ConnectError::Foreign { key, there, ours };
        if !self.is_told.swap(true, Ordering::Relaxed) {
            tracing::error!(%error, "this Redis is not used");
        }
        Err(error)
    }
}

/// Returns the key of the note beside this set of nodes.
pub(super) fn note_key(nodes: &str) -> String {
    format!("{nodes}::storage")
}
