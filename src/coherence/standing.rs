//! Standing: until when the server of a connection counts as the primary that every node uses.
//!
//! A server that has been replaced goes on answering. Only proofs that it is still the primary tell
//! the two apart, and each proof says so of the moment when it was *begun*: its answer may have been
//! on its way for long. So a server has standing until T after the oldest begin among the newest
//! proofs of each kind.

use std::time::Duration;
use tokio::time::Instant;

/// What proves that the server of a connection is still the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Proof {
    /// A heartbeat came back through the channel. It was begun when the heartbeat was sent.
    Echo,
    /// The server said that it is the same as before, and a primary.
    Identity,
    /// Sentinels, or the map of a cluster, said that the primary has not moved.
    Place,
}

/// The standing of one connection's server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Standing {
    trust: Duration,
    parts: [Part; 3],
}

/// What is known of one kind of proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    /// This connection does without.
    Unneeded,
    /// It has not been given yet.
    Awaited,
    /// The newest one was begun then.
    Begun(Instant),
}

impl Standing {
    /// Of a connection that has just been made: none, until each of these proofs was given once.
    pub(crate) fn new(trust: Duration, needs: &[Proof]) -> Self {
        let mut parts = [Part::Unneeded; 3];
        for proof in needs {
            parts[*proof as usize] = Part::Awaited;
        }
        Self { trust, parts }
    }

    /// A proof was given, which was begun then. An older one than is known shortens nothing.
    pub(crate) fn proved(&mut self, proof: Proof, begun: Instant) {
        let part = &mut self.parts[proof as usize];
        *part = match *part {
            Part::Unneeded => Part::Unneeded,
            Part::Begun(known) if known >= begun => Part::Begun(known),
            Part::Awaited | Part::Begun(_) => Part::Begun(begun),
        };
    }

    /// Until when the server counts as the primary; `None` while a proof has not been given.
    pub(crate) fn verified_until(&self) -> Option<Instant> {
        let mut oldest: Option<Instant> = None;
        for part in self.parts {
            match part {
                Part::Unneeded => {}
                Part::Awaited => return None,
                Part::Begun(begun) => {
                    oldest = Some(oldest.map_or(begun, |oldest| oldest.min(begun)));
                }
            }
        }
        oldest.map(|oldest| oldest + self.trust)
    }

    /// Whether the server counts as the primary now.
    pub(crate) fn holds(&self, now: Instant) -> bool {
        self.verified_until().is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TRUST: Duration = Duration::from_secs(2);
    const ALL: [Proof; 3] = [Proof::Echo, Proof::Identity, Proof::Place];

    #[test]
    fn there_is_none_before_each_proof_was_given() {
        let now = Instant::now();
        for missing in ALL {
            let mut standing = Standing::new(TRUST, &ALL);
            for proof in ALL.into_iter().filter(|proof| *proof != missing) {
                standing.proved(proof, now);
            }
            assert_eq!(standing.verified_until(), None, "{missing:?}");
            standing.proved(missing, now);
            assert_eq!(standing.verified_until(), Some(now + TRUST));
        }
        assert!(!Standing::new(TRUST, &[]).holds(now), "by no proof at all");
    }

    #[test]
    fn a_proof_that_a_connection_does_without_changes_nothing() {
        let now = Instant::now();
        let mut standing = Standing::new(TRUST, &[Proof::Echo]);
        standing.proved(Proof::Place, now);
        assert_eq!(standing.verified_until(), None);
        standing.proved(Proof::Echo, now + TRUST);
        assert_eq!(standing.verified_until(), Some(now + TRUST * 2));
    }

    proptest! {
        /// The oldest of the newest begins decides, in whatever order the proofs arrive.
        #[test]
        fn the_oldest_of_the_newest_begins_decides(
            proofs in prop::collection::vec((0..3usize, 0..10_000u64), 0..20),
        ) {
            let base = Instant::now();
            let mut standing = Standing::new(TRUST, &ALL);
            let mut until = None;
            for (proof, begun) in &proofs {
                standing.proved(ALL[*proof], base + Duration::from_millis(*begun));
                let grown = standing.verified_until();
                prop_assert!(grown >= until, "it never shrinks");
                until = grown;
            }
            let newest = |i: usize| {
                let of_it = proofs.iter().filter(|(proof, _)| *proof == i);
                of_it.map(|(_, begun)| *begun).max()
            };
            let newest: Option<Vec<_>> = (0..3).map(newest).collect();
            let expected = newest.and_then(|newest| newest.into_iter().min());
            let expected = expected.map(|begun| base + Duration::from_millis(begun) + TRUST);
            prop_assert_eq!(until, expected);
            if let Some(until) = until {
                prop_assert!(standing.holds(until - Duration::from_nanos(1)));
                prop_assert!(!standing.holds(until));
            }
        }
    }
}
