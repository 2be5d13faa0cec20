//! Turns: so many at a time, and the others wait.

use crate::metrics::{limit_hits, turns};
use metrics::{Counter, Gauge};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How much may be under way in the backend at a time, for its callers' sake: what the cache starts
/// goes on when its caller goes away, so it would not be bounded by what a server lets in.
///
/// Beyond a limit callers wait for their turn, first come, first served. None of them is refused:
/// one who waits costs no task and no entry, only its own future, and one that is dropped was never
/// there. What memory or Redis knows is answered at once all the same.
///
/// ```
/// use layercache::{CachedStore, Limits};
/// use object_store::memory::InMemory;
///
/// // A store that bears 100 calls at a time, two of them for each load.
/// let limits = Limits::default().with_loads(40).with_changes(20);
/// let store = CachedStore::builder(InMemory::new()).limits(limits).build();
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Loads: questions to the backend that no tier could answer, one per key. A load for both facts
    /// of a blob is two calls at a time. Default: 1024. At least 1.
    pub loads: usize,
    /// Changes, each with its call to the backend and, with Redis, what goes around it. Default:
    /// 1024. At least 1.
    pub changes: usize,
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
    /// Sets [`loads`](Self::loads).
    #[must_use]
    pub const fn with_loads(mut self, loads: usize) -> Self {
        self.loads = loads;
        self
    }

    /// Sets [`changes`](Self::changes).
    #[must_use]
    pub const fn with_changes(mut self, changes: usize) -> Self {
        self.changes = changes;
        self
    }
}

/// Turns of one kind.
#[derive(Debug)]
pub(crate) struct Turns {
    free: Arc<Semaphore>,
    taken: Gauge,
    waiting: Gauge,
    hits: Counter,
}

/// One turn. It is over when this is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    _taken: Counted,
    _permit: Option<OwnedSemaphorePermit>,
}

/// One more in a gauge, until this is dropped.
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

impl Turns {
    /// At most `most` at a time, but one in any case.
    pub(crate) fn new(what: &'static str, most: usize) -> Self {
        let most = most.clamp(1, Semaphore::MAX_PERMITS);
        let (taken, waiting) = turns(what);
        Self {
            free: Arc::new(Semaphore::new(most)),
            taken,
            waiting,
            hits: limit_hits(what),
        }
    }

    /// A turn, if there is one and nobody waits for it.
    pub(crate) fn try_take(&self) -> Option<Turn> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        Some(self.begin(Some(permit)))
    }

    /// A turn, as soon as it is the caller's. One who has to wait is counted.
    pub(crate) async fn take(&self) -> Turn {
        if let Some(turn) = self.try_take() {
            return turn;
        }
        self.hits.increment(1);
        let _waiting = Counted::new(&self.waiting);
        // Nobody closes the semaphore.
        let permit = Arc::clone(&self.free).acquire_owned().await.ok();
        self.begin(permit)
    }

    fn begin(&self, permit: Option<OwnedSemaphorePermit>) -> Turn {
        Turn {
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
        let turns = Turns::new("test", 2);
        let (first, _second) = (turns.take().await, turns.take().await);
        let (mut third, mut fourth) = (Box::pin(turns.take()), Box::pin(turns.take()));
        assert!((&mut third).now_or_never().is_none());
        assert!((&mut fourth).now_or_never().is_none());
        drop(first);
        assert!(turns.try_take().is_none(), "it is the third one's");
        assert!((&mut fourth).now_or_never().is_none());
        drop(third);
        assert!(fourth.now_or_never().is_some(), "the third went away");
    }

    #[test]
    fn there_is_one_in_any_case() {
        for most in [0, 1, usize::MAX] {
            assert!(Turns::new("test", most).try_take().is_some());
        }
    }
}
