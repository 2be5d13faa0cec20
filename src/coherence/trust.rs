//! Decides whether memory may answer, and whether Redis may be asked.
//!
//! Other nodes' invalidations come through a channel that can lose messages without notice. A node
//! therefore answers from memory only while it knows that the channel works: the node sent its
//! newest heartbeat that came back less than T ago, by its own clock. A heartbeat comes back in
//! order, so every invalidation before it has been applied.
//!
//! The node needs more proofs of its server: which server it is, and that no other server has
//! replaced it. Each [`Proof`] is valid for T after it began, and trust ends when the first proof
//! expires.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A fact that has to be proven of the server behind a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// A heartbeat came back through the channel.
    Heartbeat,
    /// The server has sent its identity, and is a primary.
    Identity,
    /// The Sentinels have named this server as the primary.
    Place,
}

/// A proof that never expires, or that is not needed.
const ALWAYS: u64 = u64::MAX;

/// Holds until when the server behind a connection has standing. A node without other nodes always
/// trusts its memory.
#[derive(Debug)]
pub(crate) struct Trust {
    base: Instant,
    /// The earliest of `parts`, in nanoseconds since `base`. A memory hit reads only this.
    until: AtomicU64,
    /// When each [`Proof`] expires, in nanoseconds since `base`. It is locked while `until` is set,
    /// so that the two agree.
    parts: Mutex<[u64; 3]>,
}

impl Trust {
    /// Returns the trust of a node without other nodes. No other node can change what this node
    /// knows.
    pub(crate) fn alone() -> Self {
        Self::of(Instant::now(), ALWAYS)
    }

    /// Returns the trust of a node that started at `base`, and whose first heartbeat has not come
    /// back yet. The other proofs are not needed until the node records one.
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
        // No line below can panic while the lock is held, so a poisoned lock is harmless.
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts[proof as usize] = change(parts[proof as usize]);
        let until = parts.iter().copied().min().unwrap_or(0);
        self.until.store(until, Ordering::Release);
    }

    /// Returns whether memory may answer and the server may be asked.
    pub(crate) fn holds(&self, now: Instant) -> bool {
        let until = self.until.load(Ordering::Acquire);
        until == ALWAYS || self.since_base(now) < until
    }

    /// Returns when the first proof expires, or `None` if trust never ends.
    pub(crate) fn verified_until(&self) -> Option<Instant> {
        let until = self.until.load(Ordering::Acquire);
        (until != ALWAYS).then(|| self.base + Duration::from_nanos(until))
    }

    /// Records that the heartbeat that was sent at `sent` came back.
    pub(crate) fn heartbeat_returned(&self, sent: Instant, term: Duration) {
        let until = self.since_base(sent + term);
        self.change(Proof::Heartbeat, |known| known.max(until));
    }

    /// Records another proof, which began at `began`. The caller makes sure that it concerns the
    /// server behind the current connection.
    pub(crate) fn proven(&self, proof: Proof, began: Instant, term: Duration) {
        let until = self.since_base(began + term);
        self.change(proof, |_| until);
    }

    /// Records that the server does not need this proof.
    pub(crate) fn needs_no(&self, proof: Proof) {
        self.change(proof, |_| ALWAYS);
    }

    /// Ends trust until the next heartbeat comes back, because the channel is lost.
    pub(crate) fn lose(&self) {
        self.change(Proof::Heartbeat, |_| 0);
    }

    fn since_base(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.base).as_nanos();
        u64::try_from(since).unwrap_or(ALWAYS - 1)
    }
}

/// For the model, which copies and compares trust.
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
    fn a_node_without_other_nodes_always_trusts() {
        assert!(Trust::alone().holds(Instant::now() + Duration::from_secs(1 << 30)));
    }

    #[test]
    fn trust_counts_from_when_the_heartbeat_was_sent() {
        let trust = Trust::none(Instant::now());
        let sent = Instant::now();
        assert!(!trust.holds(sent));
        trust.heartbeat_returned(sent, TERM);
        assert!(trust.holds(sent + TERM - Duration::from_millis(1)));
        assert!(!trust.holds(sent + TERM));
    }

    #[test]
    fn an_older_heartbeat_does_not_shorten_trust_and_a_loss_ends_it() {
        let trust = Trust::none(Instant::now());
        let sent = Instant::now() + Duration::from_secs(1);
        trust.heartbeat_returned(sent, TERM);
        trust.heartbeat_returned(sent - Duration::from_secs(1), TERM);
        assert!(trust.holds(sent + TERM - Duration::from_millis(1)));
        trust.lose();
        assert!(!trust.holds(sent));
    }

    #[test]
    fn trust_ends_with_the_first_of_its_proofs() {
        let trust = Trust::none(Instant::now());
        let began = Instant::now();
        let second = Duration::from_secs(1);
        trust.heartbeat_returned(began + second * 5, TERM);
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
