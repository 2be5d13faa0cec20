//! Trust: whether memory may answer, and whether Redis may be asked.
//!
//! Other nodes' invalidations come through a channel that loses messages without saying so. A node
//! therefore answers from memory only while it knows that the channel works: its newest heartbeat
//! that came back was sent less than T ago, on its own clock. A heartbeat comes back in order, so
//! every invalidation before it has been applied.
//!
//! The same holds of what else has to be known of a server: which one it is, and that no other one
//! has taken its place. Each [`Proof`] is good for T after it began, and trust ends with the first.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// What has to be known of the server behind a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// A heartbeat came back through the channel.
    Heartbeat,
    /// The server has said who it is, and that it is a primary.
    Identity,
    /// Those who know where the primary is have named this server.
    Place,
}

/// Never lapses, or is not needed.
const ALWAYS: u64 = u64::MAX;

/// The standing of a server: until when it counts as the one that it was. A node without other nodes
/// always trusts its memory.
#[derive(Debug)]
pub(crate) struct Trust {
    base: Instant,
    /// Nanoseconds since `base`: the earliest of `parts`. A hit in memory reads this alone.
    until: AtomicU64,
    /// Nanoseconds since `base`, by [`Proof`]. Locked while `until` is set, so that the two agree.
    parts: Mutex<[u64; 3]>,
}

impl Trust {
    /// Of a node that is alone: there is nobody who could change what it knows.
    pub(crate) fn alone() -> Self {
        Self::of(Instant::now(), ALWAYS)
    }

    /// Of a node that has not heard of itself yet, whose life begins at `base`. No other proof is
    /// needed until there was one.
    pub(crate) const fn none(base: Instant) -> Self {
        Self::of(base, 0)
    }

    const fn of(base: Instant, heartbeat: u64) -> Self {
        Self {
            base,
            until: AtomicU64::new(heartbeat),
            parts: Mutex::new([heartbeat, ALWAYS, ALWAYS]),
        }
    }

    fn change(&self, proof: Proof, change: impl FnOnce(u64) -> u64) {
        // The lock is held for these four lines, none of which can panic.
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts[proof as usize] = change(parts[proof as usize]);
        let until = parts.iter().copied().min().unwrap_or(0);
        self.until.store(until, Ordering::Release);
    }

    /// Whether memory may answer, and the server may be asked.
    pub(crate) fn holds(&self, now: Instant) -> bool {
        let until = self.until.load(Ordering::Acquire);
        until == ALWAYS || self.since_base(now) < until
    }

    /// Until when: the earliest of all proofs. `None` if it never lapses.
    pub(crate) fn verified_until(&self) -> Option<Instant> {
        let until = self.until.load(Ordering::Acquire);
        (until != ALWAYS).then(|| self.base + Duration::from_nanos(until))
    }

    /// A heartbeat came back that was sent at `sent`.
    pub(crate) fn heard(&self, sent: Instant, term: Duration) {
        let until = self.since_base(sent + term);
        self.change(Proof::Heartbeat, |known| known.max(until));
    }

    /// Something else was proven by what began at `began`. The caller makes sure that it was proven of
    /// the server whose trust this is now.
    pub(crate) fn proven(&self, proof: Proof, began: Instant, term: Duration) {
        let until = self.since_base(began + term);
        self.change(proof, |_| until);
    }

    /// No such proof is needed of the server.
    pub(crate) fn needs_no(&self, proof: Proof) {
        self.change(proof, |_| ALWAYS);
    }

    /// The channel is lost: no trust until it is back.
    pub(crate) fn lose(&self) {
        self.change(Proof::Heartbeat, |_| 0);
    }

    fn since_base(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.base).as_nanos();
        u64::try_from(since).unwrap_or(ALWAYS - 1)
    }
}

/// For the model: to be copied and compared.
#[cfg(test)]
mod snapshot {
    use super::*;
    use std::hash::{Hash, Hasher};

    impl Trust {
        fn parts(&self) -> (Instant, [u64; 3]) {
            let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
            (self.base, *parts)
        }
    }

    impl Clone for Trust {
        fn clone(&self) -> Self {
            let (base, parts) = self.parts();
            let until = parts.iter().copied().min().unwrap_or(0);
            Self {
                base,
                until: AtomicU64::new(until),
                parts: Mutex::new(parts),
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

    #[test]
    fn trust_ends_with_the_first_of_its_proofs() {
        let trust = Trust::none(Instant::now());
        let began = Instant::now();
        let second = Duration::from_secs(1);
        trust.heard(began + second * 5, TERM);
        assert_eq!(trust.verified_until(), Some(began + second * 5 + TERM));
        for proof in [Proof::Identity, Proof::Place] {
            trust.proven(proof, began + second, TERM);
            assert_eq!(trust.verified_until(), Some(began + second + TERM));
            assert!(trust.holds(began + TERM) && !trust.holds(began + second + TERM));
            trust.needs_no(proof);
            assert!(trust.holds(began + second + TERM));
        }
        assert_eq!(Trust::alone().verified_until(), None);
    }
}
