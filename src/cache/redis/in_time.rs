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

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use std::thread;
    use tokio::sync::oneshot;
    use tokio::task::yield_now;

    const PATIENCE: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_millis(60);

    #[tokio::test(start_paused = true)]
    async fn nothing_in_all_that_time_is_silence() {
        let start = Instant::now();
        let late = in_time(start + PATIENCE, pending::<()>()).await;
        assert_eq!(late, Err(Late::Silent));
        let waited = start.elapsed();
        assert!(
            waited >= PATIENCE && waited <= PATIENCE + CHANCE,
            "{waited:?}"
        );
    }

    #[tokio::test]
    async fn what_was_there_when_the_runtime_woke_is_in_time() {
        let (answer, answered) = oneshot::channel();
        let end = Instant::now() + PATIENCE;
        tokio::spawn(async move {
            thread::sleep(LONG);
            // Somebody else has to read it first.
            for _ in 0..3 {
                yield_now().await;
            }
            answer.send(7)
        });
        assert_eq!(in_time(end, answered).await, Ok(Ok(7)));
    }

    #[tokio::test]
    async fn a_runtime_that_is_always_late_proves_nothing() {
        let busy = tokio::spawn(async {
            loop {
                thread::sleep(LONG);
                yield_now().await;
            }
        });
        let late = in_time(Instant::now() + PATIENCE, pending::<()>()).await;
        busy.abort();
        assert_eq!(late, Err(Late::Starved));
    }
}
