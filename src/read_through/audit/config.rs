//! What the auditor looks at.

/// What the auditor looks at: whether the cache keeps its promise, as a figure in production.
///
/// It asks the backend what tiers have answered, beside the requests: none of them waits for it, and
/// nothing is filled by it. Its verdicts are in `layercache_audits_total`
/// ([`guide::metrics`](crate::guide::metrics)):
///
/// | cause | what is looked at | when |
/// |---|---|---|
/// | `hit` | a share of the positives that memory and Redis have answered | at once |
/// | `delete` | what was deleted through this cache: would memory, or Redis, say that it is there? | 0.1, 1 and 60 s after the delete has returned |
///
/// ```
/// use layercache::{AuditorConfig, CachedStore};
/// use object_store::memory::InMemory;
///
/// // One hit of a hundred, and each delete.
/// let auditor = AuditorConfig::default()
///     .with_hits(0.01)
///     .with_deletes(true)
///     .with_queue(1024);
/// let store = CachedStore::builder(InMemory::new()).auditor(auditor).build();
/// ```
///
/// # What `stale` proves
/// A tier gave a positive, the backend denied it *afterwards*, and no change of it was made meanwhile
/// through a cache that shares this Redis. That is waited for: this node looks once more when it has
/// heard a heartbeat of its own that it sent after the denial, and so every change that was told before
/// it; a node whose trust has lapsed says `unknown`. So each `stale` is an answer that should not have
/// been given, if the backend answers what was written last. It is one of these:
///
/// - something was deleted behind the cache's back, as by a garbage collection without a
///   [`purge`](crate::CachedStore::purge);
/// - another node has made a change that it could not tell Redis of
///   ([`ChangePolicy::BestEffort`](crate::ChangePolicy));
/// - the Redis is shared with a Go registry, which knows no fences;
/// - or this crate breaks its promise.
///
/// What was deleted behind the cache's back shows as `hit` alone; a `delete` with `stale` is none of the
/// first kind. It is logged as an error, with what it is about, and taken away everywhere, as anything is
/// that the backend denies; so it is logged once, until somebody fills it again.
///
/// `ok` is a positive that the backend has confirmed, or no positive after a delete. `unknown` is
/// everything else: something was changed meanwhile (or shares a stripe of the generations with what
/// was), the backend or Redis did not answer, or trust had lapsed. It errs on this side: no `stale` is
/// an accident, and some may be missed.
///
/// # Cost
/// Of a hit: a random number, and for those that are looked at a look-up in memory more and some
/// allocations. Of each sample: one question to the backend, one after the other, besides
/// [`Limits`](crate::Limits). Of deletes: at each of the three ages one round trip to Redis for up to 512 of
/// them, and no question to the backend unless somebody would say that they are there. Two tasks,
/// which end with the cache and begin with the first sample.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct AuditorConfig {
    /// The share of hits that are looked at, from 0 to 1. Default: 0.001.
    pub hits: f64,
    /// Whether deletes are looked at. Default: yes.
    pub deletes: bool,
    /// How many hits may wait to be looked at, and as many deletes. What comes when there is no room is
    /// dropped, and counted: `layercache_limit_hits_total{limit="audits"}`. Default: 4096, which
    /// is 68 deletes a second. At least 1.
    pub queue: usize,
}

impl Default for AuditorConfig {
    fn default() -> Self {
        Self {
            hits: 0.001,
            deletes: true,
            queue: 4096,
        }
    }
}

impl AuditorConfig {
    /// Sets [`hits`](Self::hits).
    #[must_use]
    pub const fn with_hits(mut self, share: f64) -> Self {
        self.hits = share;
        self
    }

    /// Sets [`deletes`](Self::deletes).
    #[must_use]
    pub const fn with_deletes(mut self, deletes: bool) -> Self {
        self.deletes = deletes;
        self
    }

    /// Sets [`queue`](Self::queue).
    #[must_use]
    pub const fn with_queue(mut self, places: usize) -> Self {
        self.queue = places;
        self
    }
}
