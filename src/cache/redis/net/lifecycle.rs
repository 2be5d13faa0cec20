//! [`Lifecycle`]: what happens to a connection beside the operations on it.

use crate::cache::redis::net::connect_error::ConnectError;
use crate::cache::redis::net::resolve::{Located, Resolve};
use crate::cache::redis::net::server_info::Identity;
use crate::coherence::trust::Trust;
use crate::telemetry::metrics::Gap;
use ::redis::PushInfo;
use ::redis::aio::MultiplexedConnection;
use async_trait::async_trait;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

/// The events in the life of a connection of type `C`. A node implements this for its channel, and
/// for its connection to each primary of a cluster.
///
/// A connection has a number, which no other connection has.
#[async_trait]
pub(crate) trait Lifecycle<C>: Debug + Send + Sync {
    /// Prepares a new connection before its first use, and returns which server it leads to.
    async fn handshake(
        &self,
        connection: &mut MultiplexedConnection,
        number: u64,
        resolve: &dyn Resolve,
        located: &Located,
    ) -> Result<Identity, ConnectError>;

    /// The connection is up. Starts the tasks that it needs, which end when the connection does.
    fn up(self: Arc<Self>, connection: &C, number: u64, identity: Identity, located: Located);

    /// The connection is no longer up. With a gap, messages may be missed from now on.
    fn down(&self, number: u64, gap: Option<Gap>);

    /// Handles a push message. Returns whether it means that the connection is lost.
    fn push(&self, number: u64, push: &PushInfo) -> bool;

    /// The standing of the server, and how long each of its proofs is valid.
    fn standing(&self) -> (&Trust, Duration);

    /// The server as the sentinels have named it, and the number of the connection to it.
    fn named(&self) -> Option<(u64, Located)> {
        None
    }
}
