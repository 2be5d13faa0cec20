//! How all primaries of a cluster are purged.

use super::Cluster;
use crate::cache::redis::net::connect_error::Failure;
use crate::cache::redis::net::purge::{self, Scope};
use ::redis::aio::MultiplexedConnection;
use ::redis::{ErrorKind, RedisError, RedisResult, cmd};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// How often a purge begins again because slots have moved meanwhile.
const MOST_PASSES: u32 = 100;
/// How long a purge waits for slots that are moving.
const PAUSE: Duration = Duration::from_millis(20);

impl Cluster {
    /// Removes all leases in the scope from all primaries, then all entries. Begins again if a slot
    /// has moved meanwhile, because the purge may have missed its keys.
    pub(crate) async fn purge(&self, scope: &Scope<'_>) -> Result<(), Failure> {
        let mut before = self.look_now().await;
        for _ in 0..MOST_PASSES {
            let map = before.map_err(|error| Failure::NotAsked(Some(Arc::new(error))))?;
            let mut connections = Vec::new();
            for place in map.primaries() {
                connections.push(self.connection_to(&place).get().await?);
            }
            let mut is_whole = true;
            for connection in &mut connections {
                is_whole &= is_done(purge::leases(connection, scope).await)?;
            }
            for connection in &mut connections {
                is_whole &= is_done(purge::entries(connection, scope).await)?;
            }
            for connection in &mut connections {
                is_whole &= !is_moving(connection).await?;
            }
            before = self.look_now().await;
            if is_whole && before.as_ref().is_ok_and(|now| *now == map) {
                return Ok(());
            }
            sleep(PAUSE).await;
        }
        Err(Failure::Redis(RedisError::from((
            ErrorKind::Client,
            "slots kept moving during the purge; purge again when no slot is moving",
        ))))
    }
}

/// Returns whether a purge has seen all keys. If some have moved, it has not.
fn is_done(purged: RedisResult<()>) -> Result<bool, Failure> {
    match purged {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.code(), Some("MOVED" | "ASK" | "TRYAGAIN")) => Ok(false),
        Err(error) => Err(Failure::Redis(error)),
    }
}

/// Checks whether a slot is moving to this server or away from it.
pub(crate) async fn is_moving(connection: &mut MultiplexedConnection) -> RedisResult<bool> {
    let nodes: String = cmd("CLUSTER").arg("NODES").query_async(connection).await?;
    Ok(nodes.contains("->-") || nodes.contains("-<-"))
}
