//! The auditor: whether the tiers answer what the backend says, looked at beside the requests.

mod config;
mod deletes;
mod hits;
mod judge;

pub use config::AuditorConfig;

use super::{Backend, Inner, ReadThrough};
use crate::cache::memory::Rights;
use crate::cache::shared::{Question, QuestionRef};
use crate::link::Key;
use crate::metrics::{Audits, Tier};
use deletes::Deleted;
use judge::Positive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::Instant;

/// What is to be looked at, and what was seen.
#[derive(Debug)]
pub(super) struct Auditor {
    /// Of 2³² hits so many are looked at.
    share: u64,
    hits: Sender<Positive>,
    deletes: Option<Sender<Deleted>>,
    seen: Arc<Audits>,
    /// What the tasks take when they begin.
    ends: Mutex<Option<Ends>>,
    has_begun: AtomicBool,
}

#[derive(Debug)]
struct Ends {
    hits: Receiver<Positive>,
    deletes: Receiver<Deleted>,
    queue: usize,
}

/// A core that is there as long as somebody else has it.
#[derive(Debug)]
struct WeakCore<B>(Weak<Inner<B>>);

impl<B> WeakCore<B> {
    fn upgrade(&self) -> Option<ReadThrough<B>> {
        self.0.upgrade().map(|inner| ReadThrough { inner })
    }
}

impl Auditor {
    pub(super) fn new(config: AuditorConfig) -> Self {
        let queue = config.queue.clamp(1, 1 << 20);
        let (hits, hit_end) = mpsc::channel(queue);
        let (deletes, delete_end) = mpsc::channel(queue);
        Self {
            share: (config.hits.clamp(0.0, 1.0) * (1_u64 << 32) as f64) as u64,
            hits,
            deletes: config.deletes.then_some(deletes),
            seen: Arc::new(Audits::new()),
            ends: Mutex::new(Some(Ends {
                hits: hit_end,
                deletes: delete_end,
                queue,
            })),
            has_begun: AtomicBool::new(false),
        }
    }

    /// Whether this hit is looked at.
    fn picks(&self) -> bool {
        u64::from(fastrand::u32(..)) < self.share
    }

    fn send<T>(&self, to: &Sender<T>, sample: T) {
        if let Err(TrySendError::Full(_)) = to.try_send(sample) {
            self.seen.dropped.increment(1);
        }
    }
}

impl<B: Backend> ReadThrough<B> {
    /// Memory has answered this: it may be looked at.
    #[inline]
    pub(super) fn audit_hit(&self, question: QuestionRef<'_>) {
        if let Some(auditor) = &self.inner.auditor
            && auditor.picks()
        {
            self.sample(auditor, question);
        }
    }

    /// Looks in memory once more: the rights have to be older than the answer that is looked at.
    #[cold]
    fn sample(&self, auditor: &Auditor, question: QuestionRef<'_>) {
        let question = question.to_owned();
        let rights = self.cache().rights(&question);
        if self.knows(&question) {
            self.begin(auditor);
            let tier = Tier::Memory;
            let positive = Positive {
                question,
                rights,
                tier,
            };
            auditor.send(&auditor.hits, positive);
        }
    }

    /// Redis has answered this, after these rights were taken: it may be looked at.
    pub(super) fn audit_shared_hit(&self, question: &Question, rights: Rights) {
        if let Some(auditor) = &self.inner.auditor
            && auditor.picks()
        {
            self.begin(auditor);
            let positive = Positive {
                question: question.clone(),
                rights,
                tier: Tier::Redis,
            };
            auditor.send(&auditor.hits, positive);
        }
    }

    /// These were deleted: whether a tier still has them will be looked at.
    pub(crate) fn audit_deleted(&self, keys: impl IntoIterator<Item = Key>) {
        let Some(auditor) = &self.inner.auditor else {
            return;
        };
        let Some(deletes) = &auditor.deletes else {
            return;
        };
        self.begin(auditor);
        let at = Instant::now();
        for key in keys {
            auditor.send(deletes, Deleted { at, key });
        }
    }

    /// Begins the tasks, where there is a runtime for them.
    fn begin(&self, auditor: &Auditor) {
        if auditor.has_begun.load(Ordering::Relaxed) {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let mut ends = auditor.ends.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ends) = ends.take() {
            let core = || WeakCore(Arc::downgrade(&self.inner));
            let seen = || Arc::clone(&auditor.seen);
            runtime.spawn(hits::look(core(), ends.hits, seen()));
            runtime.spawn(deletes::look(core(), ends.deletes, ends.queue, seen()));
        }
        auditor.has_begun.store(true, Ordering::Relaxed);
    }
}
