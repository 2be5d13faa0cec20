//! Whether an answer was late because Redis was silent, or because this node was busy.

use std::pin::pin;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Why there is no answer in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    /// The runtime was at work all the time, and nothing came.
    Silent,
    /// The runtime was late itself: the answer may be waiting to be read.
    Starved,
}

/// A timer that fires later than this was not looked after.
const SLACK: Duration = Duration::from_millis(5);
/// What a punctual runtime needs to read what has already come: its timers fire after what has come
/// was seen.
const GLANCE: Duration = Duration::from_millis(2);
/// What Redis is given for an answer when the runtime may have sent the question just now.
const CHANCE: Duration = Duration::from_millis(10);
/// How often a late runtime gets another chance.
const CHANCES: u32 = 3;

/// Waits for an answer until `deadline`. When the timer has fired a starved runtime may neither have
/// read an answer that is there, nor have sent the question; so it gets short chances more, until one
/// of its timers fires in time.
pub(super) async fn in_time<T>(
    deadline: Instant,
    answer: impl Future<Output = T>,
) -> Result<T, Late> {
    let mut answer = pin!(answer);
    if let Ok(answer) = timeout_at(deadline, answer.as_mut()).await {
        return Ok(answer);
    }
    let mut chance = match deadline.elapsed() < SLACK {
        true => GLANCE,
        false => CHANCE,
    };
    for _ in 0..CHANCES {
        let end = Instant::now() + chance;
        if let Ok(answer) = timeout_at(end, answer.as_mut()).await {
            return Ok(answer);
        }
        if end.elapsed() < SLACK {
            return Err(Late::Silent);
        }
        chance = CHANCE;
    }
    Err(Late::Starved)
}
