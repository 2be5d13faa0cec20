//! Which hits and deletes does the verifier check?

use crate::types::setting::{FLAG, NUMBER, SHARE, Section, Setting, settings};

/// Configures the verifier, which measures in production whether the cache answers correctly.
///
/// The verifier asks the backend again for a sample of what the tiers answered. It runs beside the
/// requests: no request waits for it, and it fills no tier. It counts its verdicts in
/// `layercache_verifications_total` ([`guide::metrics`](crate::guide::metrics)):
///
/// | cause | what it checks | when |
/// |---|---|---|
/// | `hit` | a share of the positive answers from memory and Redis | at once |
/// | `delete` | each delete through this cache: would memory or Redis still answer that the object exists? | 0.1, 1 and 60 s after the delete has returned |
/// ```
/// use layercache::{VerifierConfig, CachedStore};
/// use object_store::memory::InMemory;
///
/// // Checks one hit of a hundred, and each delete.
/// let verifier = VerifierConfig::default()
///     .with_hits(0.01)
///     .with_deletes(true)
///     .with_queue(1024);
/// let store = CachedStore::builder(InMemory::new()).verifier(verifier).build()?;
/// # Ok::<(), layercache::Error>(())
/// ```
///
/// # What `stale` proves
/// A tier gave a positive answer, the backend denied it *afterwards*, and no cache that shares this
/// Redis changed the key meanwhile. To be sure of the last point, the node waits for
/// [`trust_timeout`](crate::RedisConfig::with_trust_timeout) after the denial. By then it has applied
/// every change that was announced before the denial, or it has lost trust and counts `unknown`. So
/// each `stale` is an answer that should not have been given, provided that the backend answers
/// with the latest write. It has one of these causes:
///
/// - Something deleted an object without the cache's knowledge, for example a garbage collection
///   without a [`purge`](crate::CachedStore::purge).
/// - Another node made a change that it could not tell Redis of
///   ([`ChangePolicy::BestEffort`](crate::ChangePolicy)).
/// - A Go registry shares the Redis. It knows no fences.
/// - This crate has a bug.
///
/// The first cause shows as `hit` only, never as `delete`. The node logs each `stale` as an error
/// with its keys. It then invalidates the keys everywhere, as for anything that the backend denies,
/// so it logs a key once until the key is filled again.
///
/// `ok`: the backend confirmed a positive answer, or no tier gave a positive answer after a delete.
/// `unknown`: every other case. The key changed meanwhile (or a key that shares its generation
/// stripe did), the backend or Redis did not answer, or the node lost trust. In doubt the verifier
/// counts `unknown`: a `stale` is never a false alarm, but some stale answers may be missed.
///
/// # Cost
/// - Each hit: one random number. Each sampled hit also costs one more look-up in memory and some
///   allocations.
/// - Each sample: one question to the backend. The verifier asks one at a time, outside
///   [`Limits`](crate::Limits).
/// - Deletes: at each of the three ages, one round trip to Redis for up to 512 of them. The backend
///   is asked only if a tier still answers that the object exists.
/// - Two tasks. They start with the first sample and end with the cache.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VerifierConfig {
    pub(crate) hits: f64,
    pub(crate) deletes: bool,
    pub(crate) queue: usize,
}

impl Section for VerifierConfig {
    const NAME: &'static str = "verifier";
    const SETTINGS: &'static [Setting<Self>] = settings![hits: SHARE, deletes: FLAG, queue: NUMBER];

    fn start() -> Self {
        Self::default()
    }
}

impl Default for VerifierConfig {
    fn default() -> Self {
        Self {
            hits: 0.001,
            deletes: true,
            queue: 4096,
        }
    }
}

impl VerifierConfig {
    /// Sets the share of hits that are checked, from 0 to 1. A value below or above counts as 0 or
    /// as 1. Default: 0.001.
    #[must_use]
    pub const fn with_hits(mut self, share: f64) -> Self {
        self.hits = share;
        self
    }

    /// Sets whether deletes are checked. Default: `true`.
    #[must_use]
    pub const fn with_deletes(mut self, deletes: bool) -> Self {
        self.deletes = deletes;
        self
    }

    /// Sets the maximum number of hits that wait for a check, and separately of deletes. When a queue
    /// is full, further samples are dropped and counted in
    /// `layercache_limit_hits_total{limit="verifier"}`. Minimum: 1. Default: 4096, which allows 68
    /// deletes per second.
    #[must_use]
    pub const fn with_queue(mut self, places: usize) -> Self {
        self.queue = places;
        self
    }
}
