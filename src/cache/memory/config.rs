//! [`MemoryConfig`]: how much does the memory tier hold, and for how long?

use crate::types::setting::{BYTES, Section, Setting, TIME, settings};
use std::time::Duration;

/// How much the memory tier holds, and for how long.
///
/// ```
/// use layercache::{CachedStore, MemoryConfig};
/// use object_store::memory::InMemory;
/// use std::time::Duration;
///
/// // About 400,000 blobs. Memory forgets a blob within a minute after a garbage collection.
/// let memory = MemoryConfig::default().with_capacity(256 << 20).with_ttl(Duration::from_secs(60));
/// let store = CachedStore::builder(InMemory::new()).memory(memory).build()?;
/// # Ok::<(), layercache::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryConfig {
    pub(crate) capacity: u64,
    pub(crate) ttl: Duration,
}

impl Section for MemoryConfig {
    const NAME: &'static str = "memory";
    const SETTINGS: &'static [Setting<Self>] = settings![capacity: BYTES, ttl: TIME];

    fn start() -> Self {
        Self::default()
    }
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
    /// Sets the approximate number of bytes that memory may take. In addition, each thread keeps up
    /// to 256 entries that it reads often. Default: 64 MiB, which is about 100,000 blobs.
    #[must_use]
    pub const fn with_capacity(mut self, capacity: u64) -> Self {
        self.capacity = capacity;
        self
    }

    /// Sets how long memory answers a fact. The time counts from the fill, and reads do not renew
    /// it. Memory subtracts up to a tenth at random, so that facts that were filled together do not
    /// expire together. It counts in sixteenths of a second, so a fact may expire up to a sixteenth
    /// early. Values over 365 days count as 365 days. With Redis, memory uses at most half of
    /// Redis's TTL. Default: 5 minutes.
    #[must_use]
    pub const fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }
}

/// The longest time that memory keeps a fact.
pub(super) const MOST_TTL: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Subtracts up to a tenth of `ttl` at random. The result is never longer than `ttl`.
pub(crate) fn jittered(ttl: Duration) -> Duration {
    ttl.mul_f64(1.0 - 0.1 * fastrand::f64())
}
