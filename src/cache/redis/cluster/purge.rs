//! A purge of all primaries.

use super::Cluster;
use crate::cache::redis::purge::{self, Scope};
use crate::cache::redis::trouble::Failure;
use ::redis::aio::MultiplexedConnection;
use ::redis::{ErrorKind, RedisError, RedisResult, cmd};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// How often a purge is begun again because slots have moved meanwhile.
const MOST_PASSES: u32 = 100;
/// How long it leaves slots alone that are on their way.
const PAUSE: Duration = Duration::from_millis(20);

impl Cluster {
    /// Takes all leases in the scope from all primaries, then all entries; again, if a slot has moved
    /// meanwhile, with what may not have been looked at.
    pub(in crate::cache::redis) async fn purge(&self, scope: &Scope<'_>) -> Result<(), Failure> {
        let mut before = self.look_now().await;
        for _ in 0..MOST_PASSES {
            let map = before.map_err(|trouble| Failure::NotAsked(Some(Arc::new(trouble))))?;
            let lines: Vec<_> = map
                .primaries()
                .iter()
                .map(|place| self.line(place))
                .collect();
            let mut connections = Vec::with_capacity(lines.len());
            for line in &lines {
                connections.push(line.get().await?);
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
            "slots were moved all the time; purge again when the cluster is at rest",
        ))))
    }
}

/// Whether a purge has seen all; what has moved is looked at again.
fn is_done(purged: RedisResult<()>) -> Result<bool, Failure> {
    match purged {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.code(), Some("MOVED" | "ASK" | "TRYAGAIN")) => Ok(false),
        Err(error) => Err(Failure::Redis(error)),
    }
}

/// Whether a slot is on its way to or from this server.
pub(in crate::cache::redis) async fn is_moving(
    connection: &mut MultiplexedConnection,
) -> RedisResult<bool> {
    let nodes: String = cmd("CLUSTER").arg("NODES").query_async(connection).await?;
    Ok(nodes.contains("->-") || nodes.contains("-<-"))
}
