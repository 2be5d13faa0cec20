//! [`PeerSet`]: the nodes that share the Redis, as Redis lists them.

use std::time::Duration;

/// Lists the nodes that share the Redis, including this one. The script that publishes a message
/// returns it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PeerSet {
    /// Identifies the set: a new set has another epoch.
    pub(crate) epoch: u64,
    /// Redis's time, in milliseconds.
    pub(crate) time: u64,
    pub(crate) nodes: Vec<Peer>,
}

/// A node in the peer set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Peer {
    pub(crate) node: u64,
    /// How long the node trusts its memory after a heartbeat.
    pub(crate) trust: Duration,
    /// When Redis noted the node's newest heartbeat, by Redis's clock in milliseconds.
    pub(crate) time: u64,
}
