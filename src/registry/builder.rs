//! How is a [`Registry`] over an own backend configured and built?

use super::Registry;
use crate::read_through::Backend;
use crate::settings::{CoreBuilder, core_setters};
use crate::types::Error;
use std::sync::Arc;

/// Builds a [`Registry`] over your own [`Backend`]. Its settings are those of
/// [`CachedStoreBuilder`](crate::CachedStoreBuilder), without the layout: the backend itself knows
/// where things are.
///
/// ```
/// use layercache::{Backend, Error, Limits, MemoryConfig, Registry, Settings, VerifierConfig};
///
/// fn registry(backend: impl Backend) -> Result<Registry<impl Backend>, Error> {
///     Registry::builder(backend)
///         .settings(Settings::default()) // all of an operator's
///         .memory(MemoryConfig::default().with_capacity(256 << 20))
///         .limits(Limits::default().with_loads(64))
///         .verifier(VerifierConfig::default())
///         .build()
/// }
/// ```
///
/// With Redis behind memory, or with a cache that several registries share:
///
/// ```
/// # #[cfg(feature = "redis")] {
/// use layercache::{Backend, Error, RedisConfig, Registry, TieredCache};
/// use std::sync::Arc;
///
/// fn with_redis(backend: impl Backend) -> Result<Registry<impl Backend>, Error> {
///     let redis = RedisConfig::new("redis://127.0.0.1");
///     Registry::builder(backend).redis(redis).build()
/// }
///
/// fn of_tenant(
///     backend: impl Backend,
///     cache: &Arc<TieredCache>,
///     tenant: &str,
/// ) -> Result<Registry<impl Backend>, Error> {
///     Registry::builder(backend).cache(Arc::clone(cache), tenant).build()
/// }
/// # }
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

    core_setters!();

    /// Builds the registry. Does no I/O.
    ///
    /// # Errors
    /// - [`Error::Setting`] if a setting does not work, for example the address of Redis, or if
    ///   settings exclude each other.
    /// - [`Error::Runtime`] if this is called in a tokio runtime that the cache cannot use.
    pub fn build(self) -> Result<Registry<B>, Error> {
        let backend = Arc::new(self.backend);
        let core = self.core.build(Arc::clone(&backend) as _, None)?;
        Ok(Registry::over(core, backend))
    }
}
