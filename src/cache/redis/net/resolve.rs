//! [`Resolve`]: which server a connection goes to.

use crate::cache::redis::net::address::Server;
use crate::cache::redis::net::connect_error::ConnectError;
use async_trait::async_trait;
use std::fmt::Debug;
use tokio::time::Instant;

/// Finds the server that a connection goes to, anew for each connection.
///
/// A [`Server`] is always the same one. `Sentinels` name the primary of a service, and `SlotPrimary`
/// the primary of a cluster that serves a slot.
#[async_trait]
pub(crate) trait Resolve: Debug + Send + Sync {
    async fn locate(&self) -> Result<Located, ConnectError>;

    /// Checks whether connections still go to this server.
    async fn check(&self, from: &Located) -> Checked;

    /// Whether the servers are a cluster's.
    fn is_cluster(&self) -> bool {
        false
    }

    /// Whether sentinels watch the servers.
    fn has_sentinels(&self) -> bool {
        false
    }
}

/// A server that was found.
#[derive(Debug, Clone)]
pub(crate) struct Located {
    pub(crate) server: Server,
    /// When the sentinels were asked, and the epoch of the latest failover that they know. `None`
    /// if no sentinels were asked.
    pub(crate) named: Option<(Instant, u64)>,
}

/// Whether connections still go to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checked {
    Stays,
    Moved,
    /// Too few sentinels, or no server of the cluster, answered.
    Unknown,
}

impl Located {
    /// A server that no sentinels have named.
    pub(crate) const fn unnamed(server: Server) -> Self {
        Self {
            server,
            named: None,
        }
    }
}

#[async_trait]
impl Resolve for Server {
    async fn locate(&self) -> Result<Located, ConnectError> {
        Ok(Located::unnamed(self.clone()))
    }

    async fn check(&self, _: &Located) -> Checked {
        Checked::Stays
    }
}
