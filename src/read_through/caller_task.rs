//! How can a caller run shared work in its own task without blocking others that wait for it?
//!
//! Waking another task for work of a few microseconds would cost more than the work. But a caller
//! may be dropped, or may stop polling its future, while others wait for the same work. So work
//! that its caller drops, or does not finish within [`MOMENT`], moves to a task of its own.

use futures::future::BoxFuture;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::sleep;

/// Minimum time that work stays with its caller. The maximum is twice as long.
const MOMENT: Duration = Duration::from_millis(20);

/// Holds one piece of work at a time.
#[derive(Clone, Default)]
pub(super) struct CallerTask(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Number of the current work; each piece of work gets the next number.
    number: u64,
    work: Option<(BoxFuture<'static, ()>, Handle)>,
    /// Wakes the caller whose work it is, if the caller waits.
    caller: Option<Waker>,
    is_watched: bool,
}

/// The task that watches for work that stays too long with its caller. If a runtime ends the watch,
/// the next caller can start another one.
struct Watch {
    caller_task: CallerTask,
    is_over: bool,
}

/// Polls the work in its caller's own task.
#[derive(Debug)]
struct Inline {
    caller_task: CallerTask,
    number: u64,
}

impl CallerTask {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic cannot leave the state half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the work. Returns when the work is done or has moved to another task.
    pub(super) async fn run(&self, work: BoxFuture<'static, ()>) {
        let number = {
            let mut state = self.state();
            // Any work that is still here belongs to an earlier caller and must go on.
            state.hand_over();
            state.number += 1;
            state.work = Some((work, Handle::current()));
            if !state.is_watched {
                state.is_watched = true;
                let watch = Watch {
                    caller_task: self.clone(),
                    is_over: false,
                };
                tokio::spawn(watch.watch(state.number));
            }
            state.number
        };
        let caller_task = self.clone();
        Inline {
            caller_task,
            number,
        }
        .await;
    }
}

impl Watch {
    /// Checks every [`MOMENT`] whether the same work is still here, and moves it to a task of its
    /// own. Ends when no new work came between two checks.
    async fn watch(mut self, mut seen: u64) {
        while !self.is_over {
            sleep(MOMENT).await;
            let mut state = self.caller_task.state();
            if state.number == seen {
                state.hand_over();
                state.is_watched = false;
                self.is_over = true;
            }
            seen = state.number;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.is_over {
            self.caller_task.state().is_watched = false;
        }
    }
}

impl State {
    /// Moves the work to a task of its own and wakes its caller, which the work will no longer
    /// wake.
    fn hand_over(&mut self) {
        if let Some((work, runtime)) = self.work.take() {
            runtime.spawn(work);
        }
        if let Some(caller) = self.caller.take() {
            caller.wake();
        }
    }
}

impl Future for Inline {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let state = &mut *self.caller_task.state();
        let is_here = state.number == self.number;
        let Some((work, _)) = state.work.as_mut().filter(|_| is_here) else {
            return Poll::Ready(());
        };
        let polled = work.as_mut().poll(context);
        match polled {
            Poll::Ready(()) => (state.work, state.caller) = (None, None),
            Poll::Pending => match &mut state.caller {
                Some(caller) => caller.clone_from(context.waker()),
                None => state.caller = Some(context.waker().clone()),
            },
        }
        polled
    }
}

impl Drop for Inline {
    fn drop(&mut self) {
        let mut state = self.caller_task.state();
        if state.number == self.number {
            state.hand_over();
        }
    }
}

impl fmt::Debug for CallerTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallerTask")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use tokio::sync::oneshot;
    use tokio::task::yield_now;
    use tokio::time::timeout;

    /// Returns work that ends when a message is sent, the sender of that message, and a receiver
    /// that reports the end.
    fn work() -> (
        oneshot::Sender<()>,
        BoxFuture<'static, ()>,
        oneshot::Receiver<()>,
    ) {
        let ((go, gone), (end, ended)) = (oneshot::channel(), oneshot::channel());
        let work = async move {
            let _ = gone.await;
            let _ = end.send(());
        };
        (go, work.boxed(), ended)
    }

    #[tokio::test]
    async fn a_caller_does_its_work_itself() {
        let (caller_task, (go, work, ended)) = (CallerTask::default(), work());
        go.send(()).unwrap();
        assert!(caller_task.run(work).now_or_never().is_some());
        assert_eq!(ended.now_or_never(), Some(Ok(())));
    }

    #[tokio::test]
    async fn what_a_caller_drops_goes_on() {
        let (caller_task, (go, work, ended)) = (CallerTask::default(), work());
        let mut call = Box::pin(caller_task.run(work));
        assert!((&mut call).now_or_never().is_none());
        drop(call);
        go.send(()).unwrap();
        assert_eq!(ended.await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_caller_does_not_poll_goes_on_and_the_next_one_is_watched_as_well() {
        let caller_task = CallerTask::default();
        for _ in 0..2 {
            let (go, work, ended) = work();
            let mut call = Box::pin(caller_task.run(work));
            assert!((&mut call).now_or_never().is_none());
            go.send(()).unwrap();
            assert_eq!(timeout(MOMENT * 3, ended).await, Ok(Ok(())));
            call.await;
            assert!(!caller_task.state().is_watched);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_whose_work_was_given_away_does_not_wait_for_it() {
        let (caller_task, (_go, work, _ended)) = (CallerTask::default(), work());
        let waits = timeout(MOMENT * 3, caller_task.run(work));
        assert!(waits.await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_work_is_done_once_whoever_does_it() {
        let (caller_task, (go, work, ended)) = (CallerTask::default(), work());
        let mut call = Box::pin(caller_task.run(work));
        assert!((&mut call).now_or_never().is_none());
        sleep(MOMENT * 3).await;
        // The work has moved to a task; its caller has nothing left to do.
        assert!((&mut call).now_or_never().is_some());
        drop(call);
        go.send(()).unwrap();
        assert_eq!(ended.await, Ok(()));
        yield_now().await;
        assert!(caller_task.state().work.is_none());
    }
}
