//! The fences in memory of changes that may still happen: they stand for their time, and lapse.

use crate::coherence::Coherence;
use crate::coherence::generation::Fence;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// How often fences are looked through at most, however many lapse.
const PAUSE: Duration = Duration::from_millis(100);

/// One fence per stripe, however many changes failed: a backend in trouble fails all of them.
#[derive(Debug)]
pub(super) struct Lapses {
    coherence: Arc<Coherence>,
    standing: Mutex<HashMap<usize, (Fence, Instant)>>,
}

impl Lapses {
    pub(super) fn new(coherence: Arc<Coherence>) -> Arc<Self> {
        Arc::new(Self {
            coherence,
            standing: Mutex::default(),
        })
    }

    fn standing(&self) -> MutexGuard<'_, HashMap<usize, (Fence, Instant)>> {
        // The table is whole between any two of its changes, whoever panicked.
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets fences stand for this time from now on.
    pub(super) fn add(self: &Arc<Self>, fences: impl IntoIterator<Item = Fence>, time: Duration) {
        let until = Instant::now() + time;
        let mut standing = self.standing();
        let begins = standing.is_empty();
        for fence in fences {
            let stripe = fence.stripe();
            let until = standing
                .get(&stripe)
                .map_or(until, |(_, old)| until.max(*old));
            // The new one keeps the stripe fenced from before the old one ends.
            if let Some((old, _)) = standing.insert(stripe, (fence, until)) {
                self.coherence.generations.end(old);
            }
        }
        if begins && !standing.is_empty() {
            tokio::spawn(Arc::clone(self).lapse());
        }
    }

    async fn lapse(self: Arc<Self>) {
        loop {
            let earliest = self.standing().values().map(|(_, until)| *until).min();
            let Some(earliest) = earliest else {
                return;
            };
            sleep_until(earliest.max(Instant::now() + PAUSE)).await;
            let (now, mut standing) = (Instant::now(), self.standing());
            let over = standing.extract_if(|_, (_, until)| *until <= now);
            for (_, (fence, _)) in over {
                self.coherence.generations.end(fence);
            }
            if standing.is_empty() {
                // Under the lock: whoever adds the next begins anew.
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;
    use crate::link::Key;

    const TIME: Duration = Duration::from_secs(30);
    const KEY: Key = Key::Meta(Digest::Sha256([1; 32]));

    #[tokio::test(start_paused = true)]
    async fn any_number_of_failures_costs_one_fence_which_stands_for_the_last() {
        let coherence = Arc::new(Coherence::alone());
        let lapses = Lapses::new(Arc::clone(&coherence));
        let may_fill = || {
            coherence
                .trusted(Instant::now())
                .unwrap()
                .right(&KEY)
                .is_some()
        };
        for _ in 0..2 {
            for _ in 0..1000 {
                lapses.add([coherence.generations.begin(&KEY)], TIME);
                tokio::time::sleep(TIME / 100).await;
                assert_eq!(lapses.standing().len(), 1);
            }
            tokio::time::sleep(TIME * 9 / 10).await;
            assert!(!may_fill(), "the last has not lapsed");
            tokio::time::sleep(TIME / 10 + PAUSE).await;
            assert!(may_fill());
            assert!(lapses.standing().is_empty());
        }
    }
}
