//! How is a [`CachedStore`] configured and built?

use super::CachedStore;
use super::erased::ErasedStore;
use crate::layout::Layout;
use crate::settings::{CoreBuilder, core_setters};
use crate::types::Error;
use object_store::ObjectStore;
#[cfg(feature = "signer")]
use object_store::signer::Signer;
use std::sync::Arc;

/// Builds a [`CachedStore`].
///
/// ```
/// use layercache::layout::OciImages;
/// use layercache::{CachedStore, Limits, MemoryConfig, Settings, VerifierConfig};
/// use object_store::memory::InMemory;
///
/// let store = CachedStore::builder(InMemory::new())
///     .settings(Settings::default()) // all of an operator's
///     .layout(OciImages::default())
///     .memory(MemoryConfig::default().with_capacity(256 << 20))
///     .limits(Limits::default().with_loads(256))
///     .verifier(VerifierConfig::default())
///     .build()?;
/// assert_eq!(store.to_string(), "CachedStore(InMemory)");
/// # Ok::<(), layercache::Error>(())
/// ```
///
/// With Redis behind memory:
///
/// ```
/// # #[cfg(feature = "redis")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), layercache::Error> {
/// use layercache::{CachedStore, RedisConfig};
/// use object_store::memory::InMemory;
///
/// let store = CachedStore::builder(InMemory::new())
///     .redis(RedisConfig::new("redis://127.0.0.1"))
///     .build()?;
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "redis"))]
/// # fn main() {}
/// ```
///
/// With one cache for all tenants. It has one memory, and could have one Redis behind it
/// ([`TieredCache::with_redis`](crate::TieredCache)):
///
/// ```
/// use layercache::{CachedStore, MemoryConfig, TieredCache};
/// use object_store::memory::InMemory;
/// use object_store::prefix::PrefixStore;
/// use std::sync::Arc;
///
/// let bucket = Arc::new(InMemory::new());
/// let memory = MemoryConfig::default().with_capacity(1 << 30);
/// let cache = Arc::new(TieredCache::in_memory(memory));
/// for tenant in ["tenant-a", "tenant-b"] {
///     let store = PrefixStore::new(Arc::clone(&bucket), tenant);
///     let store = CachedStore::builder(store).cache(Arc::clone(&cache), tenant).build()?;
///     assert_eq!(store.to_string(), format!("CachedStore(PrefixObjectStore({tenant}))"));
/// }
///
/// // One name for two tenants is refused.
/// let a = CachedStore::builder(PrefixStore::new(Arc::clone(&bucket), "tenant-a"));
/// let a = a.cache(Arc::clone(&cache), "tenants").build()?;
/// let b = CachedStore::builder(PrefixStore::new(bucket, "tenant-b"));
/// assert!(b.cache(cache, "tenants").build().is_err());
/// # drop(a);
/// # Ok::<(), layercache::Error>(())
/// ```
#[derive(Debug)]
#[must_use]
pub struct CachedStoreBuilder<S> {
    inner: S,
    core: CoreBuilder,
    #[cfg(feature = "signer")]
    signer: Option<Arc<dyn Signer>>,
}

impl<S: ObjectStore> CachedStoreBuilder<S> {
    pub(super) fn new(inner: S) -> Self {
        Self {
            inner,
            core: CoreBuilder::default(),
            #[cfg(feature = "signer")]
            signer: None,
        }
    }

    /// Sets the layout, which says what each path means. Default:
    /// [`Distribution`](crate::layout::Distribution).
    pub fn layout(mut self, layout: impl Layout) -> Self {
        self.core.settings.layout = Arc::new(layout);
        self
    }

    core_setters!();

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
    /// - [`Error::Setting`] if a setting does not work, for example the address of Redis, or if
    ///   settings exclude each other.
    /// - [`Error::Runtime`] if this is called in a tokio runtime that the cache cannot use.
    pub fn build(self) -> Result<CachedStore<S>, Error> {
        let inner = Arc::new(self.inner);
        let erased = ErasedStore::build(Arc::clone(&inner) as _, self.core)?;
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
        let erased = ErasedStore::build_in_memory(Arc::clone(&inner) as _, self.core);
        CachedStore { inner, erased }
    }
}
