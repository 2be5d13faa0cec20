//! Work that its caller does in its own task, and that goes on without it.
//!
//! To wake a task for a work that takes microseconds would cost more than the work. But a caller may go
//! away, or have its future and not poll it, and others wait for the same work: what its caller
//! drops, or has not finished in a moment, is given a task of its own.

use futures::future::BoxFuture;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::sleep;

/// How long a work is left to its caller, at least; twice as long at most.
const MOMENT: Duration = Duration::from_millis(20);

/// A place for one work at a time.
#[derive(Clone, Default)]
pub(super) struct Alone(Arc<Mutex<Place>>);

#[derive(Default)]
struct Place {
    /// Counts all that have been here.
    number: u64,
    work: Option<(BoxFuture<'static, ()>, Handle)>,
    /// Whose work it is, if that waits for it.
    caller: Option<Waker>,
    is_watched: bool,
}

/// Who watches. One that its runtime has ended makes way for another.
struct Watch {
    alone: Alone,
    is_over: bool,
}

/// A work that its caller does.
#[derive(Debug)]
struct Own {
    alone: Alone,
    number: u64,
}

impl Alone {
    fn place(&self) -> MutexGuard<'_, Place> {
        // It is whole between any two of its changes, whoever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does the work. Returns when it is done, or has been given to another task.
    pub(super) async fn run(&self, work: BoxFuture<'static, ()>) {
        let number = {
            let mut place = self.place();
            // There is none but one that its caller has just done.
            place.hand_over();
            place.number += 1;
            place.work = Some((work, Handle::current()));
            if !place.is_watched {
                place.is_watched = true;
                let watch = Watch {
                    alone: self.clone(),
                    is_over: false,
                };
                tokio::spawn(watch.watch(place.number));
            }
            place.number
        };
        let alone = self.clone();
        Own { alone, number }.await;
    }
}

impl Watch {
    /// Sees, as long as there is anything to see, that no work stays with its caller for long.
    async fn watch(mut self, mut seen: u64) {
        while !self.is_over {
            sleep(MOMENT).await;
            let mut place = self.alone.place();
            if place.number == seen {
                place.hand_over();
                place.is_watched = false;
                self.is_over = true;
            }
            seen = place.number;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.is_over {
            self.alone.place().is_watched = false;
        }
    }
}

impl Place {
    /// Gives the work that is here a task of its own. Its caller is told: the work wakes it no more.
    fn hand_over(&mut self) {
        if let Some((work, runtime)) = self.work.take() {
            runtime.spawn(work);
        }
        if let Some(caller) = self.caller.take() {
            caller.wake();
        }
    }
}

impl Future for Own {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let place = &mut *self.alone.place();
        let is_here = place.number == self.number;
        let Some((work, _)) = place.work.as_mut().filter(|_| is_here) else {
            return Poll::Ready(());
        };
        let polled = work.as_mut().poll(context);
        match polled {
            Poll::Ready(()) => (place.work, place.caller) = (None, None),
            Poll::Pending => match &mut place.caller {
                Some(caller) => caller.clone_from(context.waker()),
                None => place.caller = Some(context.waker().clone()),
            },
        }
        polled
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let mut place = self.alone.place();
        if place.number == self.number {
            place.hand_over();
        }
    }
}

impl fmt::Debug for Alone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Alone")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use tokio::sync::oneshot;
    use tokio::task::yield_now;
    use tokio::time::timeout;

    /// A work that ends when the one is sent, and what hears of its end.
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
        let (alone, (go, work, ended)) = (Alone::default(), work());
        go.send(()).unwrap();
        assert!(alone.run(work).now_or_never().is_some());
        assert_eq!(ended.now_or_never(), Some(Ok(())));
    }

    #[tokio::test]
    async fn what_a_caller_drops_goes_on() {
        let (alone, (go, work, ended)) = (Alone::default(), work());
        let mut call = Box::pin(alone.run(work));
        assert!((&mut call).now_or_never().is_none());
        drop(call);
        go.send(()).unwrap();
        assert_eq!(ended.await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_caller_does_not_poll_goes_on_and_the_next_one_is_watched_as_well() {
        let alone = Alone::default();
        for _ in 0..2 {
            let (go, work, ended) = work();
            let mut call = Box::pin(alone.run(work));
            assert!((&mut call).now_or_never().is_none());
            go.send(()).unwrap();
            assert_eq!(timeout(MOMENT * 3, ended).await, Ok(Ok(())));
            call.await;
            assert!(!alone.place().is_watched);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_whose_work_was_given_away_does_not_wait_for_it() {
        let (alone, (_go, work, _ended)) = (Alone::default(), work());
        let waits = timeout(MOMENT * 3, alone.run(work));
        assert!(waits.await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_work_is_done_once_whoever_does_it() {
        let (alone, (go, work, ended)) = (Alone::default(), work());
        let mut call = Box::pin(alone.run(work));
        assert!((&mut call).now_or_never().is_none());
        sleep(MOMENT * 3).await;
        // It is a task's now; its caller has nothing left to do.
        assert!((&mut call).now_or_never().is_some());
        drop(call);
        go.send(()).unwrap();
        assert_eq!(ended.await, Ok(()));
        yield_now().await;
        assert!(alone.place().work.is_none());
    }
}
