//! The verifier: do the tiers answer what the backend says? It checks beside the requests.

mod config;
mod deletes;
mod hits;
mod judge;

pub use config::VerifierConfig;

use super::{Erased, ReadThrough};
use crate::cache::memory::ReadStamps;
use crate::telemetry::metrics::{Tier, Verifications};
use crate::types::link::Key;
use crate::types::question::{Question, QuestionRef};
use crate::types::runtime;
use deletes::Deleted;
use judge::Positive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::Instant;

/// Takes samples of hits and deletes, and counts the verdicts.
#[derive(Debug)]
pub(super) struct Verifier {
    /// Number of hits that are checked, out of 2³².
    share: u64,
    hits: Sender<Positive>,
    deletes: Option<Sender<Deleted>>,
    seen: Arc<Verifications>,
    /// The receivers that the tasks take when they start.
    ends: Mutex<Option<Ends>>,
    has_begun: AtomicBool,
}

#[derive(Debug)]
struct Ends {
    hits: Receiver<Positive>,
    deletes: Receiver<Deleted>,
    queue: usize,
}

/// A weak reference to the core, which does not keep the cache alive.
#[derive(Debug)]
struct WeakCore(Weak<dyn Erased>);

impl WeakCore {
    fn upgrade(&self) -> Option<ReadThrough> {
        self.0.upgrade().map(|inner| ReadThrough { inner })
    }
}

impl Verifier {
    pub(super) fn new(config: VerifierConfig) -> Self {
        let queue = config.queue.clamp(1, 1 << 20);
        let (hits, hit_end) = mpsc::channel(queue);
        let (deletes, delete_end) = mpsc::channel(queue);
        Self {
            share: (config.hits.clamp(0.0, 1.0) * (1_u64 << 32) as f64) as u64,
            hits,
            deletes: config.deletes.then_some(deletes),
            seen: Arc::new(Verifications::new()),
            ends: Mutex::new(Some(Ends {
                hits: hit_end,
                deletes: delete_end,
                queue,
            })),
            has_begun: AtomicBool::new(false),
        }
    }

    /// Returns whether this hit is checked. Random.
    fn picks(&self) -> bool {
        u64::from(fastrand::u32(..)) < self.share
    }

    fn send<T>(&self, to: &Sender<T>, sample: T) {
        if let Err(TrySendError::Full(_)) = to.try_send(sample) {
            self.seen.dropped.increment(1);
        }
    }
}

impl ReadThrough {
    /// Offers a hit in memory to the verifier.
    #[inline]
    pub(super) fn verify_hit(&self, question: QuestionRef<'_>) {
        if let Some(verifier) = &self.inner().verifier
            && verifier.picks()
        {
            self.sample(verifier, question);
        }
    }

    /// Asks memory once more, because the stamps have to be older than the answer that is checked.
    #[cold]
    fn sample(&self, verifier: &Verifier, question: QuestionRef<'_>) {
        let question = question.to_owned();
        let read_stamps = self.cache().read_stamps(&question);
        if self.knows(&question) {
            self.begin(verifier);
            let tier = Tier::Memory;
            let positive = Positive {
                question,
                read_stamps,
                tier,
            };
            verifier.send(&verifier.hits, positive);
        }
    }

    /// Offers a hit in Redis to the verifier. The stamps were taken before Redis was asked.
    pub(super) fn verify_shared_hit(&self, question: &Question, read_stamps: ReadStamps) {
        if let Some(verifier) = &self.inner().verifier
            && verifier.picks()
        {
            self.begin(verifier);
            let positive = Positive {
                question: question.clone(),
                read_stamps,
                tier: Tier::Redis,
            };
            verifier.send(&verifier.hits, positive);
        }
    }

    /// Tells the verifier of deleted keys. It will check whether a tier still has them.
    pub(crate) fn verify_deleted(&self, keys: impl IntoIterator<Item = Key>) {
        let Some(verifier) = &self.inner().verifier else {
            return;
        };
        let Some(deletes) = &verifier.deletes else {
            return;
        };
        self.begin(verifier);
        let at = Instant::now();
        for key in keys {
            verifier.send(deletes, Deleted { at, key });
        }
    }

    /// Starts the tasks, if there is a runtime for them.
    fn begin(&self, verifier: &Verifier) {
        if verifier.has_begun.load(Ordering::Relaxed) {
            return;
        }
        let Ok(runtime) = runtime::current() else {
            return;
        };
        let mut ends = verifier.ends.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ends) = ends.take() {
            let core = || WeakCore(Arc::downgrade(&self.inner));
            let seen = || Arc::clone(&verifier.seen);
            runtime.spawn(hits::run(core(), ends.hits, seen()));
            runtime.spawn(deletes::run(core(), ends.deletes, ends.queue, seen()));
        }
        verifier.has_begun.store(true, Ordering::Relaxed);
    }
}
