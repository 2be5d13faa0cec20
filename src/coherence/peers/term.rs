//! How long a node trusts its memory, and how long a change waits for a silent node.

use std::time::Duration;

/// The longest trust that a node may have. If an entry of the peer set claims a longer one, the
/// node ignores the claim and treats the set as unknown. Otherwise a single foreign value could
/// make all changes wait for ever.
pub(crate) const MOST_TRUST: Duration = Duration::from_secs(60);

/// A node's trust, and the margin that a change waits beyond a silent peer's trust. The margin is
/// needed because clocks differ in speed, and because Redis tells time in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Term {
    pub(crate) trust: Duration,
    pub(crate) margin: Duration,
}

impl Term {
    /// Returns how long a change waits for a silent peer with this trust. The margin is the same
    /// share of every trust.
    pub(super) fn wait(self, trust: Duration) -> Duration {
        let margin = trust.as_nanos() * self.margin.as_nanos() / self.trust.as_nanos().max(1);
        trust + Duration::from_nanos(u64::try_from(margin).unwrap_or(u64::MAX))
    }
}
