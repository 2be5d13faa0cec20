//! Trust: whether memory may answer.
//!
//! Other nodes' invalidations come through a channel that loses messages without saying so. A node
//! therefore answers from memory only while it knows that the channel works: its newest heartbeat
//! that came back was sent less than T ago, on its own clock. A heartbeat comes back in order, so
//! every invalidation before it has been applied.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Until when memory may answer. A node without other nodes always trusts its memory.
#[derive(Debug)]
pub(crate) struct Trust {
    base: Instant,
    /// Nanoseconds since `base`.
    until: AtomicU64,
}

impl Trust {
    /// Of a node that is alone: there is nobody who could change what it knows.
    pub(crate) fn alone() -> Self {
        Self {
            base: Instant::now(),
            until: AtomicU64::new(u64::MAX),
        }
    }

    /// Of a node that has not heard of itself yet, whose life begins at `base`.
    pub(crate) const fn none(base: Instant) -> Self {
        Self {
            base,
            until: AtomicU64::new(0),
        }
    }

    /// Whether memory may answer.
    pub(crate) fn holds(&self, now: Instant) -> bool {
        let until = self.until.load(Ordering::Acquire);
        until == u64::MAX || self.since_base(now) < until
    }

    /// A heartbeat came back that was sent at `sent`.
    pub(crate) fn heard(&self, sent: Instant, term: Duration) {
        let until = self.since_base(sent + term);
        self.until.fetch_max(until, Ordering::AcqRel);
    }

    /// The channel is lost: no trust until it is back.
    pub(crate) fn lose(&self) {
        self.until.store(0, Ordering::Release);
    }

    fn since_base(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.base).as_nanos();
        u64::try_from(since).unwrap_or(u64::MAX - 1)
    }
}

/// For the model: to be copied and compared.
#[cfg(test)]
mod snapshot {
    use super::*;
    use std::hash::{Hash, Hasher};

    impl Trust {
        fn parts(&self) -> (Instant, u64) {
            (self.base, self.until.load(Ordering::Relaxed))
        }
    }

    impl Clone for Trust {
        fn clone(&self) -> Self {
            let (base, until) = self.parts();
            Self {
                base,
                until: AtomicU64::new(until),
            }
        }
    }

    impl PartialEq for Trust {
        fn eq(&self, other: &Self) -> bool {
            self.parts() == other.parts()
        }
    }

    impl Eq for Trust {}

    impl Hash for Trust {
        fn hash<H: Hasher>(&self, state: &mut H) {
            self.parts().hash(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERM: Duration = Duration::from_secs(2);

    #[test]
    fn a_node_that_is_alone_always_trusts() {
        assert!(Trust::alone().holds(Instant::now() + Duration::from_secs(1 << 30)));
    }

    #[test]
    fn trust_counts_from_when_the_heartbeat_was_sent() {
        let trust = Trust::none(Instant::now());
        let sent = Instant::now();
        assert!(!trust.holds(sent));
        trust.heard(sent, TERM);
        assert!(trust.holds(sent + TERM - Duration::from_millis(1)));
        assert!(!trust.holds(sent + TERM));
    }

    #[test]
    fn an_older_heartbeat_shortens_nothing_and_a_loss_ends_all() {
        let trust = Trust::none(Instant::now());
        let sent = Instant::now() + Duration::from_secs(1);
        trust.heard(sent, TERM);
        trust.heard(sent - Duration::from_secs(1), TERM);
        assert!(trust.holds(sent + TERM - Duration::from_millis(1)));
        trust.lose();
        assert!(!trust.holds(sent));
    }
}
