//! How much memory remembers, and for how long.

use std::time::Duration;

/// How much memory remembers, and for how long.
///
/// ```
/// use layercache::{CachedStore, MemoryConfig};
/// use object_store::memory::InMemory;
/// use std::time::Duration;
///
/// // Some 400,000 blobs, and what a garbage collection has removed is forgotten within a minute.
/// let memory = MemoryConfig::default().with_capacity(256 << 20).with_ttl(Duration::from_secs(60));
/// let store = CachedStore::builder(InMemory::new()).memory(memory).build();
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryConfig {
    /// The bytes that memory may take, about. Default: 64 MiB, which is some 100,000 blobs. Besides,
    /// each thread keeps up to 128 entries that it was asked for again and again.
    pub capacity: u64,
    /// How long a fact is answered, counted from its fill and never renewed by reads; up to a tenth
    /// is taken off at random, so that what was filled together does not expire together.
    /// It is counted in sixteenths of a second, and what is begun of one does not count. At most 365
    /// days: what is longer counts as that. Default: 5 minutes.
    pub ttl: Duration,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            capacity: 64 << 20,
            ttl: Duration::from_secs(300),
        }
    }
}

impl MemoryConfig {
    /// Sets [`capacity`](Self::capacity), in bytes.
    #[must_use]
    pub const fn with_capacity(mut self, capacity: u64) -> Self {
        self.capacity = capacity;
        self
    }

    /// Sets [`ttl`](Self::ttl).
    #[must_use]
    pub const fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }
}

/// The most that a fact is kept.
pub(super) const MOST_TTL: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// `ttl`, less up to a tenth at random: never longer than promised.
pub(crate) fn jittered(ttl: Duration) -> Duration {
    ttl.mul_f64(1.0 - 0.1 * fastrand::f64())
}
