//! [`Awaited`]: the nodes that a change still waits for.

use std::collections::BTreeMap;
use tokio::time::Instant;

/// The nodes that have not acknowledged yet, and how long the change waits for them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Awaited {
    /// Each node with the end of its own trust. `None` if the peer set is unknown.
    pub(super) nodes: Option<BTreeMap<u64, Instant>>,
    /// When the trust of every node has ended, known or unknown.
    pub(super) end: Instant,
}

impl Awaited {
    /// Records the acknowledgement of a node.
    pub(crate) fn acknowledged(&mut self, from: u64) {
        if let Some(nodes) = &mut self.nodes {
            nodes.remove(&from);
        }
    }

    /// Returns whether no node can answer the old values any more.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.nodes.as_ref().is_some_and(BTreeMap::is_empty) || now >= self.end()
    }

    /// Returns when every node has lost the trust that it had before the message.
    pub(crate) fn end(&self) -> Instant {
        let nodes = self.nodes.as_ref();
        let last = nodes.and_then(|nodes| nodes.values().max());
        last.copied().unwrap_or(self.end)
    }
}
