//! How is the core built? Both public builders set the same things.

use super::{Backend, ReadThrough, VerifierConfig};
use crate::cache::{MemoryConfig, TieredCache};
#[cfg(feature = "redis")]
use crate::cache::{RedisCache, RedisConfig};
use crate::coherence::limiter::Limits;
use crate::layout::Layout;
use crate::types::{Error, runtime};
use std::fmt::Display;
use std::sync::Arc;

/// Builds a [`ReadThrough`].
#[derive(Debug, Default)]
pub(crate) struct CoreBuilder {
    pub(crate) memory: MemoryConfig,
    pub(crate) limits: Limits,
    pub(crate) verifier: Option<VerifierConfig>,
    #[cfg(feature = "redis")]
    pub(crate) redis: Option<RedisConfig>,
}

/// The storage whose facts Redis holds: its name, and its layout.
type Storage<'a> = (&'a dyn Display, Arc<dyn Layout>);

impl CoreBuilder {
    /// Builds the core over `backend`. With `storage`, Redis refuses the facts of any other
    /// storage.
    pub(crate) fn build(
        self,
        backend: Arc<dyn Backend>,
        storage: Option<Storage<'_>>,
    ) -> Result<ReadThrough, Error> {
        runtime::check_here()?;
        let cache = self.cache(storage)?;
        Ok(ReadThrough::new(backend, cache, self.limits, self.verifier))
    }

    /// Builds the core with a cache in memory only, which cannot fail.
    pub(crate) fn build_in_memory(self, backend: Arc<dyn Backend>) -> ReadThrough {
        let cache = TieredCache::in_memory(self.memory);
        ReadThrough::new(backend, cache, self.limits, self.verifier)
    }

    #[cfg(feature = "redis")]
    fn cache(&self, storage: Option<Storage<'_>>) -> Result<TieredCache, Error> {
        let Some(config) = &self.redis else {
            return Ok(TieredCache::in_memory(self.memory));
        };
        let mut redis = RedisCache::new(config.clone())?;
        if let Some((name, layout)) = storage {
            redis = redis.of_store(&name, layout);
        }
        Ok(TieredCache::with_redis(self.memory, redis))
    }

    #[cfg(not(feature = "redis"))]
    #[allow(clippy::unnecessary_wraps, reason = "Redis has settings that can fail")]
    fn cache(&self, _storage: Option<Storage<'_>>) -> Result<TieredCache, Error> {
        Ok(TieredCache::in_memory(self.memory))
    }
}
