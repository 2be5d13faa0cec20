//! What keeps old answers from being given: the protocol's decisions, without I/O.
//!
//! | | |
//! |---|---|
//! | [`generation`] | a value in memory carries the stamp it was loaded under, and is dead once its key was changed |
//! | [`trust`] | memory answers only while other nodes' changes are sure to be heard of |
//! | [`flight`] | nobody boards a load that has left, and so many are under way |
//! | [`lease`] | who may fill a key of the shared tier, and who is changing it |
//! | [`load`] | how a question goes through the shared tier to the backend |
//! | [`change`] | how a change goes around the backend's own call |
//! | [`through`] | which connections a step went through: with another one it may be lost |
//! | [`peers`], [`message`] | who else is there, what nodes say, and when all have forgotten |
//! | [`clock`] | whether Redis's clock, by which members of the peer set age, has been steady |
//! | [`journal`] | what could not be taken away yet |
//!
//! The node runs these, and a model checker does: `model` (in tests) leaves out one rule after the
//! other, and finds what it is for.

pub(crate) mod change;
pub(crate) mod clock;
pub(crate) mod flight;
pub(crate) mod generation;
pub(crate) mod journal;
pub(crate) mod lease;
pub(crate) mod load;
pub(crate) mod message;
#[cfg(test)]
mod model;
pub(crate) mod peers;
#[cfg(test)]
pub(crate) mod slot;
pub(crate) mod through;
pub(crate) mod trust;

use crate::link::WireName;
use generation::{Generations, Mark, Right, Snapshot};
use peers::{Heard, Owed};
use tokio::time::Instant;
use trust::Trust;

/// What says whether a value in memory may be an answer.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, PartialEq, Eq, Hash))]
pub(crate) struct Coherence {
    pub(crate) trust: Trust,
    pub(crate) generations: Generations,
}

/// Trust that was seen. Stamps to answer or to fill by are read through it alone, and so after it:
/// trust that lapses and comes back does so with new stamps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trusted<'a> {
    generations: &'a Generations,
}

impl Coherence {
    /// Of a node that is alone.
    pub(crate) fn alone() -> Self {
        Self {
            trust: Trust::alone(),
            generations: Generations::new(),
        }
    }

    /// Of a node among others, which has not heard of itself yet.
    pub(crate) fn among_others() -> Self {
        Self {
            trust: Trust::none(Instant::now()),
            generations: Generations::new(),
        }
    }

    /// Whether memory may answer now.
    pub(crate) fn trusted(&self, now: Instant) -> Option<Trusted<'_>> {
        let generations = &self.generations;
        self.trust.holds(now).then_some(Trusted { generations })
    }

    /// As if memory were trusted: for what it keeps, and does not answer.
    pub(crate) const fn regardless(&self) -> Trusted<'_> {
        let generations = &self.generations;
        Trusted { generations }
    }

    /// Both channels are subscribed on a new connection: what was missed meanwhile is forgotten.
    pub(crate) fn connected(&self) {
        self.trust.lose();
        self.generations.flush();
    }

    /// The connection is lost.
    pub(crate) fn disconnected(&self) {
        self.trust.lose();
    }

    /// Applies what was heard, and says whom an acknowledgement is owed to. In order, and to its end
    /// before the next.
    pub(crate) fn apply(&self, heard: &Heard, trust: std::time::Duration) -> Owed {
        match heard {
            Heard::Forget { names, owed, .. } => {
                for name in names {
                    self.generations.bump_named(*name);
                }
                *owed
            }
            Heard::Flush { owed, .. } => {
                self.generations.flush();
                *owed
            }
            Heard::Beat { sent } => {
                self.trust.heard(*sent, trust);
                None
            }
            Heard::Acknowledged { .. } | Heard::Ignore => None,
        }
    }
}

impl Trusted<'_> {
    /// Whether a value with this mark is alive.
    pub(crate) fn is_current(self, mark: Mark) -> bool {
        self.generations.is_current(mark)
    }

    /// The right to fill what is read from here on, unless the key is being changed.
    pub(crate) fn right(self, key: &impl WireName) -> Option<Right> {
        self.generations.right(key)
    }

    /// The rights of all keys, to fill what is read from here on.
    pub(crate) fn snapshot(self) -> Snapshot {
        self.generations.snapshot()
    }
}

/// For the model, which takes each step by itself.
#[cfg(test)]
impl Trusted<'_> {
    pub(crate) fn stamp(self, key: &impl WireName) -> generation::Stamp {
        self.generations.stamp(key)
    }
}
