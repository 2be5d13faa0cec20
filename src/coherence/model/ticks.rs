//! The clock of the model, which counts ticks.

use crate::coherence::peers::term::Term;
use std::sync::LazyLock;
use std::time::Duration;
use tokio::time::Instant;

/// Returns the term of a node that trusts its memory for `trust` ticks. The margin is 0, because
/// all clocks of the model run at the same speed.
pub(super) const fn term(trust: u8) -> Term {
    Term {
        trust: Duration::from_secs(trust as u64),
        margin: Duration::ZERO,
    }
}

/// How many ticks before tick 0 the nodes started. This is longer than the trust of any node.
const BEFORE: u8 = 8;

/// Returns when the nodes started.
pub(super) fn long_ago() -> Instant {
    static BASE: LazyLock<Instant> = LazyLock::new(Instant::now);
    *BASE
}

/// Returns when a tick begins.
pub(super) fn at(tick: u8) -> Instant {
    long_ago() + Duration::from_secs((BEFORE + tick).into())
}

/// Returns the time at a tick by a correct clock, in milliseconds.
pub(super) fn millis(tick: u8) -> u64 {
    1000 * u64::from(BEFORE + tick)
}
