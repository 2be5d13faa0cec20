//! How is a [`Registry`] over an own backend configured and built?

use super::Registry;
use crate::cache::MemoryConfig;
#[cfg(feature = "redis")]
use crate::cache::RedisConfig;
use crate::coherence::limiter::Limits;
use crate::read_through::{Backend, CoreBuilder, VerifierConfig};
use crate::types::Error;
use std::sync::Arc;

/// Builds a [`Registry`] over your own [`Backend`]. Its settings are those of
/// [`CachedStoreBuilder`](crate::CachedStoreBuilder).
///
/// ```
/// use layercache::{Backend, Error, Limits, MemoryConfig, Registry, VerifierConfig};
///
/// fn registry(backend: impl Backend) -> Result<Registry<impl Backend>, Error> {
///     Registry::builder(backend)
///         .memory(MemoryConfig::default().with_capacity(256 << 20))
///         .limits(Limits::default().with_loads(64))
///         .verifier(VerifierConfig::default())
///         .build()
/// }
/// ```
#[derive(Debug)]
#[must_use]
pub struct RegistryBuilder<B> {
    backend: B,
    core: CoreBuilder,
}

impl<B: Backend> RegistryBuilder<B> {
    pub(super) fn new(backend: B) -> Self {
        Self {
            backend,
            core: CoreBuilder::default(),
        }
    }

    /// Sets the size and the time to live of the cache in memory.
    pub const fn memory(mut self, memory: MemoryConfig) -> Self {
        self.core.memory = memory;
        self
    }

    /// Sets the limits on concurrent loads and changes in the backend.
    pub const fn limits(mut self, limits: Limits) -> Self {
        self.core.limits = limits;
        self
    }

    /// Adds a verifier, which asks the backend again for a sample of hits. Default: none.
    pub const fn verifier(mut self, verifier: VerifierConfig) -> Self {
        self.core.verifier = Some(verifier);
        self
    }

    /// Adds a Redis behind memory, shared with the other nodes of the same backend. Several
    /// backends on one Redis need a [`namespace`](RedisConfig::with_namespace) each.
    ///
    /// Does not connect, so that a node can start without Redis.
    ///
    /// ```
    /// use layercache::{Backend, Error, RedisConfig, Registry};
    ///
    /// fn shared(backend: impl Backend) -> Result<Registry<impl Backend>, Error> {
    ///     Registry::builder(backend)
    ///         .redis(RedisConfig::new("redis://127.0.0.1"))
    ///         .build()
    /// }
    /// ```
    #[cfg(feature = "redis")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
    pub fn redis(mut self, redis: RedisConfig) -> Self {
        self.core.redis = Some(redis);
        self
    }

    /// Builds the registry. Does no I/O.
    ///
    /// # Errors
    /// - [`Error::Setting`] if a setting does not work, for example the address of Redis.
    /// - [`Error::Runtime`] if this is called in a tokio runtime that the cache cannot use.
    pub fn build(self) -> Result<Registry<B>, Error> {
        let backend = Arc::new(self.backend);
        let core = self.core.build(Arc::clone(&backend) as _, None)?;
        Ok(Registry::over(core, backend))
    }
}
