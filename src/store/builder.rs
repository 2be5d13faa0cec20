//! How a [`CachedStore`] is made.

use super::CachedStore;
use crate::layout::{Distribution, Layout};
use crate::{AuditorConfig, Limits, MemoryConfig, TieredCache};
#[cfg(feature = "redis")]
use crate::{RedisCache, RedisConfig};
use object_store::ObjectStore;
use std::sync::Arc;

/// How a [`CachedStore`] is made.
///
/// ```
/// use layercache::layout::OciImages;
/// use layercache::{CachedStore, Limits, MemoryConfig};
/// use object_store::memory::InMemory;
///
/// let store = CachedStore::builder(InMemory::new())
///     .layout(OciImages::default())
///     .memory(MemoryConfig::default().with_capacity(256 << 20))
///     .limits(Limits::default().with_loads(256))
///     .build();
/// assert_eq!(store.to_string(), "CachedStore(InMemory)");
/// ```
#[derive(Debug)]
#[must_use]
pub struct CachedStoreBuilder<S> {
    inner: S,
    layout: Arc<dyn Layout>,
    memory: MemoryConfig,
    limits: Limits,
    auditor: Option<AuditorConfig>,
    #[cfg(feature = "redis")]
    redis: Option<RedisCache>,
}

impl<S: ObjectStore> CachedStoreBuilder<S> {
    pub(super) fn new(inner: S) -> Self {
        Self {
            inner,
            layout: Arc::new(Distribution::default()),
            memory: MemoryConfig::default(),
            limits: Limits::default(),
            auditor: None,
            #[cfg(feature = "redis")]
            redis: None,
        }
    }

    /// Sets what paths mean. Default: [`Distribution`].
    pub fn layout(mut self, layout: impl Layout) -> Self {
        self.layout = Arc::new(layout);
        self
    }

    /// Sets how much memory remembers.
    pub const fn memory(mut self, memory: MemoryConfig) -> Self {
        self.memory = memory;
        self
    }

    /// Sets how much may be under way in the store at a time.
    pub const fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Has an auditor look at whether the cache keeps its promise. Default: none.
    ///
    /// ```
    /// use layercache::{AuditorConfig, CachedStore};
    /// use object_store::memory::InMemory;
    ///
    /// let store = CachedStore::builder(InMemory::new())
    ///     .auditor(AuditorConfig::default())
    ///     .build();
    /// ```
    pub const fn auditor(mut self, auditor: AuditorConfig) -> Self {
        self.auditor = Some(auditor);
        self
    }

    /// Puts a Redis behind memory, to be shared with other nodes of the same store. Several stores over one
    /// Redis need a [`namespace`](RedisConfig::namespace) each.
    ///
    /// Does not connect: a start does not need Redis.
    ///
    /// # Errors
    /// An address that cannot be one is refused.
    ///
    /// ```
    /// use layercache::{CachedStore, RedisConfig};
    /// use object_store::memory::InMemory;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), layercache::Error> {
    /// let store = CachedStore::builder(InMemory::new())
    ///     .redis(RedisConfig::new("redis://127.0.0.1"))?
    ///     .build();
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "redis")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
    pub fn redis(mut self, redis: RedisConfig) -> Result<Self, crate::Error> {
        self.redis = Some(RedisCache::new(redis)?);
        Ok(self)
    }

    /// Makes the store.
    pub fn build(self) -> CachedStore<S> {
        #[cfg(feature = "redis")]
        let cache = match self.redis {
            Some(redis) => {
                let redis = redis.of_store(&self.inner, Arc::clone(&self.layout));
                TieredCache::with_redis(self.memory, redis)
            }
            None => TieredCache::in_memory(self.memory),
        };
        #[cfg(not(feature = "redis"))]
        let cache = TieredCache::in_memory(self.memory);
        let options = (self.limits, self.auditor);
        CachedStore::with(self.inner, self.layout, cache, options)
    }
}
