//! Whether an answer is late because Redis was silent, or because this node was busy.

use std::pin::pin;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Why an answer did not come in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Late {
    /// The runtime was punctual, and no answer came.
    Silent,
    /// The runtime itself was late: the answer may have come without being read.
    Starved,
}

/// A timer that fires later than this shows that the runtime was busy.
const SLACK: Duration = Duration::from_millis(5);
/// How long a punctual runtime needs to read an answer that has already come. Its timers fire after
/// it has seen the data that has come.
const GLANCE: Duration = Duration::from_millis(2);
/// The extra time after the runtime was late: it may have sent the question only just now.
const CHANCE: Duration = Duration::from_millis(10);
/// How often a late runtime gets extra time.
const CHANCES: u32 = 3;

/// Waits for an answer until `deadline`, and longer if the runtime is busy. A busy runtime may have
/// left an answer unread, or the question unsent, when the timer fires. So it gets short extra
/// times until one of its timers fires in time.
pub(crate) async fn in_time<T>(
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
    async fn no_answer_until_the_deadline_is_silence() {
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
    async fn an_answer_that_came_while_the_runtime_was_busy_is_in_time() {
        let (answer, answered) = oneshot::channel();
        let end = Instant::now() + PATIENCE;
        tokio::spawn(async move {
            thread::sleep(LONG);
            // Stands for the task that has to read the answer first.
            for _ in 0..3 {
                yield_now().await;
            }
            answer.send(7)
        });
        assert_eq!(in_time(end, answered).await, Ok(Ok(7)));
    }

    #[tokio::test]
    async fn a_runtime_that_is_always_late_does_not_prove_silence() {
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
