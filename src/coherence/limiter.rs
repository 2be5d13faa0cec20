//! Bounds how many loads or changes run at a time. Further callers wait for a permit.

use crate::telemetry::metrics::{limit_hits, limiter_gauges};
use crate::types::setting::{NUMBER, Section, Setting, settings};
use metrics::{Counter, Gauge};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bounds the loads and changes that run at a time. Work that the cache has started goes on when
/// its caller goes away, so a server's own limit on requests does not bound it.
///
/// Beyond a limit, callers wait for a permit in the order of their arrival. No caller is refused. A
/// waiting caller costs no task and no table entry, only its own future, and a dropped caller
/// leaves no trace. Answers from memory or Redis need no permit and do not wait.
///
/// ```
/// use layercache::{CachedStore, Limits};
/// use object_store::memory::InMemory;
///
/// // The store accepts 100 calls at a time: 2 for each of 40 loads, and 20 for changes.
/// let limits = Limits::default().with_loads(40).with_changes(20);
/// let store = CachedStore::builder(InMemory::new()).limits(limits).build()?;
/// # Ok::<(), layercache::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub(crate) loads: usize,
    pub(crate) changes: usize,
}

impl Section for Limits {
    const NAME: &'static str = "limits";
    const SETTINGS: &'static [Setting<Self>] = settings![loads: NUMBER, changes: NUMBER];

    fn start() -> Self {
        Self::default()
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            loads: 1024,
            changes: 1024,
        }
    }
}

impl Limits {
    /// Sets the most loads at a time. A load asks the backend about one key that no tier could
    /// answer. A load for both facts of a blob makes two calls at a time. Default: 1024. A value of 0
    /// counts as 1.
    #[must_use]
    pub const fn with_loads(mut self, loads: usize) -> Self {
        self.loads = loads;
        self
    }

    /// Sets the most changes at a time. A change lasts for its call to the backend and, with Redis,
    /// for the steps before and after it. Default: 1024. A value of 0 counts as 1.
    #[must_use]
    pub const fn with_changes(mut self, changes: usize) -> Self {
        self.changes = changes;
        self
    }
}

/// Grants a bounded number of permits for one kind of work.
#[derive(Debug)]
pub(crate) struct Limiter {
    free: Arc<Semaphore>,
    taken: Gauge,
    waiting: Gauge,
    hits: Counter,
}

/// Permits one load or change to run. It is released when this is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    _taken: Counted,
    _permit: Option<OwnedSemaphorePermit>,
}

/// Adds one to a gauge, until this is dropped.
#[derive(Debug)]
struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.increment(1);
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

impl Limiter {
    /// Creates a limiter that grants at most `most` permits at a time, and at least one.
    pub(crate) fn new(what: &'static str, most: usize) -> Self {
        let most = most.clamp(1, Semaphore::MAX_PERMITS);
        let (taken, waiting) = limiter_gauges(what);
        Self {
            free: Arc::new(Semaphore::new(most)),
            taken,
            waiting,
            hits: limit_hits(what),
        }
    }

    /// Returns a permit, if one is free and no other caller waits for it.
    pub(crate) fn try_take(&self) -> Option<Permit> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        Some(self.begin(Some(permit)))
    }

    /// Waits for a permit. Counts a limit hit if the caller has to wait.
    pub(crate) async fn take(&self) -> Permit {
        if let Some(permit) = self.try_take() {
            return permit;
        }
        self.hits.increment(1);
        let _waiting = Counted::new(&self.waiting);
        // The semaphore is never closed.
        let permit = Arc::clone(&self.free).acquire_owned().await.ok();
        self.begin(permit)
    }

    fn begin(&self, permit: Option<OwnedSemaphorePermit>) -> Permit {
        Permit {
            _taken: Counted::new(&self.taken),
            _permit: permit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn so_many_at_a_time_and_in_their_order() {
        let limiter = Limiter::new("test", 2);
        let (first, _second) = (limiter.take().await, limiter.take().await);
        let (mut third, mut fourth) = (Box::pin(limiter.take()), Box::pin(limiter.take()));
        assert!((&mut third).now_or_never().is_none());
        assert!((&mut fourth).now_or_never().is_none());
        drop(first);
        assert!(limiter.try_take().is_none(), "it is the third one's");
        assert!((&mut fourth).now_or_never().is_none());
        drop(third);
        assert!(fourth.now_or_never().is_some(), "the third went away");
    }

    #[test]
    fn there_is_one_in_any_case() {
        for most in [0, 1, usize::MAX] {
            assert!(Limiter::new("test", most).try_take().is_some());
        }
    }
}
