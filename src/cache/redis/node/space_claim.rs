//! [`SpaceClaim`]: may this node use a name space of its cache in Redis now?

use crate::cache::deadline::Deadline;
use crate::cache::redis::net::connect_error::{ConnectError, Failure};
use crate::cache::redis::net::connection::Connection;
use crate::cache::redis::node::channel::nodes_key;
use crate::cache::redis::node::namespace::{NamespaceClaim, note_key};
use crate::telemetry::spans;
use ::redis::{Pipeline, Value};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tracing::Instrument;

/// How long a name space that was refused is not claimed again on the same connection.
const PAUSE: Duration = Duration::from_secs(1);

/// The claim on one name space of a cache. It holds for one connection of the node's channel. The
/// first operation on a new connection claims the name space again, in one round trip. Until the
/// claim holds, the name space neither reads from Redis nor writes there.
#[derive(Debug)]
pub(crate) struct SpaceClaim {
    claim: NamespaceClaim,
    key: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The connection on which the claim was confirmed last.
    confirmed: Option<u64>,
    refusal: Option<Refusal>,
}

/// Another storage was noted under the name space.
#[derive(Debug)]
struct Refusal {
    connection: u64,
    until: Instant,
    error: Arc<ConnectError>,
}

impl SpaceClaim {
    /// Creates the claim of a storage on the name space whose keys begin with `prefix`, among the
    /// nodes of this set.
    ///
    /// The note names the set of nodes too. Nodes of another set would not hear of the changes that
    /// are made here, so they must not use the same keys.
    pub(crate) fn new(storage: &str, prefix: &str, nodes: &str) -> Self {
        Self {
            claim: NamespaceClaim::new(format!("{storage}, nodes {nodes}")),
            // In a cluster, this key is in the slot of the node's channel.
            key: note_key(&nodes_key(prefix)),
            state: Mutex::default(),
        }
    }

    // Each change of the state is complete, so a panic in another thread leaves it valid.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the claim holds on the connection that is up. Connections have different
    /// numbers, so a connection on which it held before and after an operation was up meanwhile.
    pub(crate) fn holds(&self, home: &Connection) -> bool {
        let session = home.session();
        session.is_some() && self.state().confirmed == session
    }

    fn refusal(&self, home: &Connection) -> Option<Arc<ConnectError>> {
        let session = home.session()?;
        let now = Instant::now();
        let state = self.state();
        let refusal = state.refusal.as_ref();
        let refusal =
            refusal.filter(|refusal| refusal.connection == session && now < refusal.until);
        refusal.map(|refusal| Arc::clone(&refusal.error))
    }

    /// Makes sure that the claim holds on the connection of the node's channel.
    ///
    /// # Errors
    /// Fails if another storage is noted, or if Redis does not answer within the deadline.
    pub(crate) async fn stake(&self, home: &Connection, deadline: Deadline) -> Result<(), Failure> {
        if self.holds(home) {
            return Ok(());
        }
        if let refusal @ Some(_) = self.refusal(home) {
            return Err(Failure::NotAsked(refusal));
        }
        let mut pipeline = Pipeline::new();
        pipeline.add_command(self.claim.command(&self.key));
        let claimed = home.run_until(deadline, &mut pipeline);
        let (replies, connection) = claimed.instrument(spans::redis("claim", 1)).await?;
        let note = replies.into_iter().next().unwrap_or(Ok(Value::Nil))?;
        let judged = self.claim.judge(self.key.clone(), note);
        let mut state = self.state();
        match judged {
            Ok(()) => {
                state.confirmed = Some(connection);
                Ok(())
            }
            Err(error) => {
                let error = Arc::new(error);
                state.confirmed = None;
                state.refusal = Some(Refusal {
                    connection,
                    until: Instant::now() + PAUSE,
                    error: Arc::clone(&error),
                });
                Err(Failure::NotAsked(Some(error)))
            }
        }
    }
}
