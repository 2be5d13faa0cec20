//! How is a [`CachedStore`] configured and built?

use super::CachedStore;
use super::erased::ErasedStore;
use crate::cache::MemoryConfig;
#[cfg(feature = "redis")]
use crate::cache::RedisConfig;
use crate::coherence::limiter::Limits;
use crate::layout::{Distribution, Layout};
use crate::read_through::{CoreBuilder, VerifierConfig};
use crate::settings::Settings;
use crate::types::Error;
use object_store::ObjectStore;
#[cfg(feature = "signer")]
use object_store::signer::Signer;
use std::sync::Arc;

/// Builds a [`CachedStore`].
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
///     .build()?;
/// assert_eq!(store.to_string(), "CachedStore(InMemory)");
/// # Ok::<(), layercache::Error>(())
/// ```
#[derive(Debug)]
#[must_use]
pub struct CachedStoreBuilder<S> {
    inner: S,
    layout: Arc<dyn Layout>,
    core: CoreBuilder,
    #[cfg(feature = "signer")]
    signer: Option<Arc<dyn Signer>>,
}

impl<S: ObjectStore> CachedStoreBuilder<S> {
    pub(super) fn new(inner: S) -> Self {
        Self {
            inner,
            layout: Arc::new(Distribution::default()),
            core: CoreBuilder::default(),
            #[cfg(feature = "signer")]
            signer: None,
        }
    }

    /// Sets the layout, which says what each path means. Default: [`Distribution`].
    pub fn layout(mut self, layout: impl Layout) -> Self {
        self.layout = Arc::new(layout);
        self
    }

    /// Sets the size and the time to live of the cache in memory.
    pub const fn memory(mut self, memory: MemoryConfig) -> Self {
        self.core.memory = memory;
        self
    }

    /// Sets the limits on concurrent loads and changes in the store.
    pub const fn limits(mut self, limits: Limits) -> Self {
        self.core.limits = limits;
        self
    }

    /// Adds a verifier, which asks the store again for a sample of hits. Default: none.
    ///
    /// ```
    /// use layercache::{VerifierConfig, CachedStore};
    /// use object_store::memory::InMemory;
    ///
    /// let store = CachedStore::builder(InMemory::new())
    ///     .verifier(VerifierConfig::default())
    ///     .build()?;
    /// # Ok::<(), layercache::Error>(())
    /// ```
    pub const fn verifier(mut self, verifier: VerifierConfig) -> Self {
        self.core.verifier = Some(verifier);
        self
    }

    /// Adds a Redis behind memory, shared with the other nodes of the same store. Several stores on
    /// one Redis need a [name space](RedisConfig::with_namespace) each.
    ///
    /// Does not connect, so that a node can start without Redis.
    ///
    /// ```
    /// use layercache::{CachedStore, RedisConfig};
    /// use object_store::memory::InMemory;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), layercache::Error> {
    /// let store = CachedStore::builder(InMemory::new())
    ///     .redis(RedisConfig::new("redis://127.0.0.1"))
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "redis")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
    pub fn redis(mut self, redis: RedisConfig) -> Self {
        self.core.redis = Some(redis);
        self
    }

    /// Sets what signs URLs of the wrapped store, for [`CachedStore::signer`]. A store whose type
    /// implements [`Signer`] needs no setting: its `CachedStore` implements `Signer` itself. An
    /// `Arc<dyn ObjectStore>` does not say whether it can sign. Default: none.
    ///
    /// The signer must give a path the same meaning as the wrapped store does: it signs for the
    /// same bucket, below the same prefix.
    ///
    /// ```
    /// use layercache::CachedStore;
    /// use object_store::ObjectStore;
    /// use object_store::aws::AmazonS3Builder;
    /// use object_store::signer::Signer;
    /// use std::sync::Arc;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let s3 = Arc::new(AmazonS3Builder::new().with_bucket_name("registry").build()?);
    /// let (store, signer): (Arc<dyn ObjectStore>, Arc<dyn Signer>) = (s3.clone(), s3);
    /// let store = CachedStore::builder(store).signer(signer).build()?;
    /// assert!(store.signer().is_some());
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "signer")]
    #[cfg_attr(docsrs, doc(cfg(feature = "signer")))]
    pub fn signer(mut self, signer: Arc<dyn Signer>) -> Self {
        self.signer = Some(signer);
        self
    }

    /// Builds the store. Does no I/O.
    ///
    /// # Errors
    /// - [`Error::Setting`] if a setting does not work, for example the address of Redis.
    /// - [`Error::Runtime`] if this is called in a tokio runtime that the cache cannot use.
    pub fn build(self) -> Result<CachedStore<S>, Error> {
        let inner = Arc::new(self.inner);
        let erased = ErasedStore::build(Arc::clone(&inner) as _, self.layout, self.core)?;
        #[cfg(feature = "signer")]
        let erased = ErasedStore {
            signer: self.signer,
            ..erased
        };
        Ok(CachedStore { inner, erased })
    }

    /// Builds the store with the defaults, which cannot fail.
    pub(super) fn build_in_memory(self) -> CachedStore<S> {
        let inner = Arc::new(self.inner);
        let erased = ErasedStore::build_in_memory(Arc::clone(&inner) as _, self.layout, self.core);
        CachedStore { inner, erased }
    }

    /// Replaces all settings by those of an operator. Call it first: later setters change single
    /// ones.
    ///
    /// ```
    /// use layercache::{CachedStore, Limits, Settings};
    /// use object_store::memory::InMemory;
    ///
    /// let store = CachedStore::builder(InMemory::new())
    ///     .settings(Settings::default())
    ///     .limits(Limits::default().with_loads(256))
    ///     .build()?;
    /// # Ok::<(), layercache::Error>(())
    /// ```
    pub fn settings(mut self, settings: Settings) -> Self {
        self.layout = settings.layout;
        self.core = CoreBuilder {
            memory: settings.memory,
            limits: settings.limits,
            verifier: settings.verifier,
            #[cfg(feature = "redis")]
            redis: settings.redis,
        };
        self
    }
}
