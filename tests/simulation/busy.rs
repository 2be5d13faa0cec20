//! [`Busy`]: how long a machine has waited for the store, or has stood still.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::Instant;

/// Sums up the time in which a call to the store was under way, or in which the machine stood still.
/// No promise is about that time. A clone only increments a reference count.
#[derive(Debug, Clone, Default)]
pub(crate) struct Busy(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    calls: usize,
    since: Option<Instant>,
    total: Duration,
}

/// A call to the store. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay(Busy);

impl Busy {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    pub(crate) fn begin(&self) -> UnderWay {
        let mut inner = self.inner();
        inner.calls += 1;
        inner.since.get_or_insert_with(Instant::now);
        UnderWay(self.clone())
    }

    /// The machine has stood still for this long.
    pub(crate) fn stood_still(&self, time: Duration) {
        let mut inner = self.inner();
        // The time of a call counts already.
        if inner.calls == 0 {
            inner.total += time;
        }
    }

    pub(crate) fn total(&self) -> Duration {
        let inner = self.inner();
        inner.total + inner.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut inner = self.0.inner();
        inner.calls -= 1;
        if inner.calls == 0
            && let Some(since) = inner.since.take()
        {
            inner.total += since.elapsed();
        }
    }
}
