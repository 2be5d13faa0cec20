//! [`ExpiringFences`]: which keys stay out of memory because their change may still happen?
//!
//! The fences stand until they expire. No task ends them, so they depend on no runtime. A caller
//! that is about to take a read stamp, which a fence would refuse, first ends the expired fences.

use crate::coherence::Coherence;
use crate::coherence::generation::MemoryFence;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The standing fences, at most one per stripe. So their number is bounded even if a failing
/// backend fails all changes.
#[derive(Debug)]
pub(super) struct ExpiringFences {
    coherence: Arc<Coherence>,
    base: Instant,
    /// When the first fence expires, in nanoseconds since `base`.
    first: AtomicU64,
    standing: Mutex<HashMap<usize, (MemoryFence, Instant)>>,
}

/// The value of `first` while no fence stands.
const NEVER: u64 = u64::MAX;

impl ExpiringFences {
    pub(super) fn new(coherence: Arc<Coherence>) -> Arc<Self> {
        Arc::new(Self {
            coherence,
            base: Instant::now(),
            first: AtomicU64::new(NEVER),
            standing: Mutex::default(),
        })
    }

    fn standing(&self) -> MutexGuard<'_, HashMap<usize, (MemoryFence, Instant)>> {
        // The table is consistent between its updates, even after a panic.
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets these fences stand for `time` from now.
    pub(super) fn add(&self, fences: impl IntoIterator<Item = MemoryFence>, time: Duration) {
        let until = Instant::now() + time;
        let mut standing = self.standing();
        for fence in fences {
            let stripe = fence.stripe();
            let until = standing
                .get(&stripe)
                .map_or(until, |(_, old)| until.max(*old));
            // The new fence was put up before the old one ends, so the stripe stays fenced.
            if let Some((old, _)) = standing.insert(stripe, (fence, until)) {
                self.coherence.generations.end(old);
            }
        }
        self.note_first(&standing);
    }

    /// Ends the expired fences. While no fence stands, this reads only one word.
    pub(super) fn expire(&self) {
        let first = self.first.load(Ordering::Acquire);
        if first == NEVER {
            return;
        }
        let now = Instant::now();
        if self.since_base(now) < first {
            return;
        }
        let mut standing = self.standing();
        let over = standing.extract_if(|_, (_, until)| *until <= now);
        for (_, (fence, _)) in over {
            self.coherence.generations.end(fence);
        }
        self.note_first(&standing);
    }

    fn note_first(&self, standing: &HashMap<usize, (MemoryFence, Instant)>) {
        let first = standing.values().map(|(_, until)| *until).min();
        let first = first.map_or(NEVER, |first| self.since_base(first));
        self.first.store(first, Ordering::Release);
    }

    fn since_base(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.base).as_nanos();
        u64::try_from(since).unwrap_or(NEVER - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Digest;
    use crate::types::link::Key;

    const TIME: Duration = Duration::from_secs(30);
    const KEY: Key = Key::Meta(Digest::Sha256([1; 32]));

    #[tokio::test(start_paused = true)]
    async fn any_number_of_failures_costs_one_fence_which_stands_for_the_last() {
        let coherence = Arc::new(Coherence::alone());
        let fences = ExpiringFences::new(Arc::clone(&coherence));
        let may_fill = || {
            fences.expire();
            coherence
                .trusted(Instant::now())
                .unwrap()
                .read_stamp(&KEY)
                .is_some()
        };
        for _ in 0..2 {
            for _ in 0..1000 {
                fences.add([coherence.generations.begin(&KEY)], TIME);
                tokio::time::sleep(TIME / 100).await;
                assert_eq!(fences.standing().len(), 1);
            }
            tokio::time::sleep(TIME * 9 / 10).await;
            assert!(!may_fill(), "the last has not expired");
            tokio::time::sleep(TIME / 10).await;
            assert!(may_fill());
            assert!(fences.standing().is_empty());
        }
    }
}
