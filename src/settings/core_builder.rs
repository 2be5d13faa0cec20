//! [`CoreBuilder`]: how do both public builders make a store's cache?

use super::Settings;
#[cfg(feature = "redis")]
use crate::cache::RedisCache;
use crate::cache::TieredCache;
use crate::cache::storage::Storage;
use crate::read_through::{Backend, ReadThrough};
use crate::types::namespace::Namespace;
use crate::types::{Error, runtime};
use std::sync::Arc;

/// Builds a [`ReadThrough`]. The setters of both public builders set its fields.
#[derive(Debug, Default)]
pub(crate) struct CoreBuilder {
    pub(crate) settings: Settings,
    /// The setters that were called and that a shared cache leaves no use for.
    pub(crate) of_own_cache: Vec<&'static str>,
    /// The shared cache, and the name space in it.
    pub(crate) shared: Option<(Arc<TieredCache>, String)>,
}

/// The error for a shared cache together with settings of an own one.
#[derive(Debug, thiserror::Error)]
#[error(
    "`cache` and `{setter}` exclude each other: the shared cache has its memory and its Redis \
     already; set them where that cache is made"
)]
struct Conflict {
    setter: &'static str,
}

impl CoreBuilder {
    /// Builds the core over `backend`. With `storage`, a name space refuses the facts of any other
    /// storage.
    pub(crate) fn build(
        self,
        backend: Arc<dyn Backend>,
        storage: Option<&Storage>,
    ) -> Result<ReadThrough, Error> {
        runtime::check_here()?;
        let cache = match &self.shared {
            Some((cache, name)) => self.space_of(cache, name, storage)?,
            None => Arc::new(self.own_cache(storage)?),
        };
        Ok(self.over(backend, cache))
    }

    /// Builds the core with a cache in memory only, which cannot fail.
    pub(crate) fn build_in_memory(self, backend: Arc<dyn Backend>) -> ReadThrough {
        let cache = TieredCache::in_memory(self.settings.memory);
        self.over(backend, Arc::new(cache))
    }

    fn over(self, backend: Arc<dyn Backend>, cache: Arc<TieredCache>) -> ReadThrough {
        let Settings {
            limits, verifier, ..
        } = self.settings;
        ReadThrough::new(backend, cache, limits, verifier)
    }

    fn space_of(
        &self,
        cache: &TieredCache,
        name: &str,
        storage: Option<&Storage>,
    ) -> Result<Arc<TieredCache>, Error> {
        if let Some(setter) = self.of_own_cache.first() {
            return Err(Error::Setting {
                setting: "cache",
                source: Box::new(Conflict { setter }),
            });
        }
        cache.in_namespace(&Namespace::new("namespace", name)?, storage)
    }

    #[cfg(feature = "redis")]
    fn own_cache(&self, storage: Option<&Storage>) -> Result<TieredCache, Error> {
        let memory = self.settings.memory;
        let Some(config) = &self.settings.redis else {
            return Ok(TieredCache::in_memory(memory));
        };
        let mut redis = RedisCache::new(config.clone())?;
        if let Some(storage) = storage {
            redis = redis.of_storage(storage);
        }
        Ok(TieredCache::with_redis(memory, redis))
    }

    #[cfg(not(feature = "redis"))]
    #[allow(clippy::unnecessary_wraps, reason = "Redis has settings that can fail")]
    fn own_cache(&self, _storage: Option<&Storage>) -> Result<TieredCache, Error> {
        Ok(TieredCache::in_memory(self.settings.memory))
    }
}

/// Writes the setters that both public builders have. A trait with these methods would have to be
/// imported by each caller.
macro_rules! core_setters {
    () => {
        /// Replaces all settings by those of an operator. Call it first: later setters change
        /// single ones.
        ///
        /// If a [shared cache](Self::cache) is used, the sections `memory` and `redis` are not used:
        /// they describe a cache that one store has for itself.
        pub fn settings(mut self, settings: $crate::settings::Settings) -> Self {
            self.core.settings = settings;
            self.core.of_own_cache.clear();
            self
        }

        /// Sets the size and the time to live of the cache in memory.
        pub fn memory(mut self, memory: $crate::cache::MemoryConfig) -> Self {
            self.core.settings.memory = memory;
            self.core.of_own_cache.push("memory");
            self
        }

        /// Adds a Redis behind memory, shared with the other nodes of the same storage. Several
        /// storages on one Redis need a [name space](crate::RedisConfig::with_namespace) each, or
        /// share [one cache](Self::cache).
        ///
        /// Does not connect, so that a node can start without Redis.
        #[cfg(feature = "redis")]
        #[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
        pub fn redis(mut self, redis: $crate::cache::RedisConfig) -> Self {
            self.core.settings.redis = Some(redis);
            self.core.of_own_cache.push("redis");
            self
        }

        /// Uses one cache for several storages of this process, for example one for each tenant:
        /// they share its memory, its connection to Redis and its part as a node. `namespace`
        /// separates the facts of this storage from all others in the cache: 1 to 64 letters,
        /// digits, `.`, `_` and `-`. All nodes must use the same name for the same storage.
        ///
        /// In Redis, the name of each of the storage's keys begins with the cache's
        /// [prefix](crate::RedisConfig::with_prefix), this name and a slash. Before a node uses
        /// the name space there, it checks that no other storage is noted under it, in one round
        /// trip for each new connection. If another one is noted, the node reads from and writes to
        /// the backend, as without Redis.
        ///
        /// [`purge`](crate::TieredCache::purge) removes only this storage's facts from Redis. The
        /// application shuts the node down with the shared cache's own
        /// [`shutdown`](crate::TieredCache::shutdown), once no storage needs it any more. If it
        /// does not, the node is shut down when the cache and all that use it are dropped.
        ///
        /// [`build`](Self::build) fails if `memory` or `redis` is set too, or if the process uses
        /// the name space for another storage already.
        pub fn cache(
            mut self,
            cache: std::sync::Arc<$crate::cache::TieredCache>,
            namespace: impl Into<String>,
        ) -> Self {
            self.core.shared = Some((cache, namespace.into()));
            self
        }

        /// Sets the limits on the cache's own concurrent loads and changes in the backend.
        pub const fn limits(mut self, limits: $crate::coherence::limiter::Limits) -> Self {
            self.core.settings.limits = limits;
            self
        }

        /// Adds a verifier, which asks the backend again for a sample of hits. Default: none.
        pub const fn verifier(mut self, verifier: $crate::read_through::VerifierConfig) -> Self {
            self.core.settings.verifier = Some(verifier);
            self
        }
    };
}

pub(crate) use core_setters;
