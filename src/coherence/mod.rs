//! What keeps old answers from being given: small, and without I/O.
//!
//! Three rules, each in a file of its own:
//!
//! - a value in memory carries the [stamp](generation::Stamp) it was loaded under, and is dead once
//!   its key has been changed, here or on another node ([`generation`]);
//! - memory answers only while other nodes' changes are sure to be heard of ([`trust`]);
//! - nobody boards a load that has left ([`flight`]).

pub(crate) mod flight;
pub(crate) mod generation;
pub(crate) mod trust;

use generation::Generations;
use trust::Trust;

/// What says whether a value in memory may be an answer: trust first, then its stamp.
#[derive(Debug)]
pub(crate) struct Coherence {
    pub(crate) trust: Trust,
    pub(crate) generations: Generations,
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
            trust: Trust::none(),
            generations: Generations::new(),
        }
    }
}
