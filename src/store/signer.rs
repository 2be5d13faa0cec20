//! Signed URLs: how does the cache stay correct while a URL lets its holder write?

use super::erased::ErasedStore;
use super::{CachedStore, keys};
use crate::coherence::change::ChangeKind;
use crate::store::error::to_store;
use crate::types::runtime;
use async_trait::async_trait;
use object_store::path::Path;
use object_store::signer::{Method, SignedUrlOptions, Signer, Url};
use object_store::{ObjectStore, Result};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Signs URLs with the wrapped store.
///
/// The holder of a URL that is signed for any method but `GET` and `HEAD` may change the object at
/// any time until the URL expires, without the cache's knowledge. So the cache removes the object's
/// entries and caches nothing of the object until then. It does not wait for an upload that begins
/// before the expiry and ends after it. Memory tracks keys in 65,536 groups, so one of 65,536 other
/// keys stays out of this node's memory too; many long-lived URLs make the cache less useful.
///
/// A fence in Redis keeps the object out of the other nodes' caches until the URL expires, also if
/// this node dies. If Redis loses the fence in a restart or an eviction, this node puts it up again
/// and tells the other nodes, at the latest after a third of
/// [`RedisConfig::with_fence_ttl`](crate::RedisConfig). The fence lasts two minutes longer than the
/// URL, to allow for clocks that differ.
///
/// # Cost
/// One call of the store. [`guide::costs`](crate::guide::costs#many-keys-and-special-cases) has the
/// round trips of a URL that allows a change, before the call and until the URL expires. For such a
/// URL the node waits for the other nodes as in [`Repository::link`](crate::Repository::link), unless
/// another URL of the same object expires at about the same time or later. Takes no permit of
/// [`Limits::with_changes`](crate::Limits).
#[async_trait]
#[deny(clippy::missing_trait_methods)]
#[cfg_attr(docsrs, doc(cfg(feature = "signer")))]
impl<S: ObjectStore + Signer> Signer for CachedStore<S> {
    async fn signed_url(&self, method: Method, path: &Path, expires_in: Duration) -> Result<Url> {
        let signer = self.signer_of_inner();
        signer.signed_url(method, path, expires_in).await
    }

    async fn signed_url_opts(
        &self,
        method: Method,
        path: &Path,
        expires_in: Duration,
        options: &SignedUrlOptions,
    ) -> Result<Url> {
        let signer = self.signer_of_inner();
        let signed = signer.signed_url_opts(method, path, expires_in, options);
        signed.await
    }

    async fn signed_urls(
        &self,
        method: Method,
        paths: &[Path],
        expires_in: Duration,
    ) -> Result<Vec<Url>> {
        let signer = self.signer_of_inner();
        signer.signed_urls(method, paths, expires_in).await
    }
}

impl<S: ObjectStore + Signer> CachedStore<S> {
    fn signer_of_inner(&self) -> ErasedSigner {
        ErasedSigner {
            store: self.erased.clone(),
            signer: Arc::clone(&self.inner) as _,
        }
    }
}

impl<S: ObjectStore> CachedStore<S> {
    /// Returns what signs URLs of this store and keeps the cache correct as [`Signer`] of
    /// `CachedStore` says. Returns `None` if
    /// [`CachedStoreBuilder::signer`](crate::CachedStoreBuilder::signer) was not called. Does no
    /// I/O.
    ///
    /// ```
    /// use layercache::CachedStore;
    /// use object_store::path::Path;
    /// use object_store::signer::Method;
    /// use object_store::ObjectStore;
    /// use std::sync::Arc;
    /// use std::time::Duration;
    ///
    /// /// Returns the address from which a client reads a blob, if the storage can sign.
    /// async fn address(
    ///     store: &CachedStore<Arc<dyn ObjectStore>>,
    ///     blob: &Path,
    /// ) -> object_store::Result<Option<String>> {
    ///     let Some(signer) = store.signer() else {
    ///         return Ok(None);
    ///     };
    ///     let url = signer.signed_url(Method::GET, blob, Duration::from_secs(60)).await?;
    ///     Ok(Some(url.into()))
    /// }
    /// ```
    #[cfg_attr(docsrs, doc(cfg(feature = "signer")))]
    pub fn signer(&self) -> Option<Arc<dyn Signer>> {
        self.erased.signer()
    }
}

/// A store, and the signer of its URLs.
#[derive(Debug)]
struct ErasedSigner {
    store: ErasedStore,
    signer: Arc<dyn Signer>,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Signer for ErasedSigner {
    async fn signed_url(&self, method: Method, path: &Path, expires_in: Duration) -> Result<Url> {
        let paths = [path.clone()];
        let sign = self.signer.signed_url(method.clone(), path, expires_in);
        self.store
            .while_signed(&method, &paths, expires_in, sign)
            .await
    }

    async fn signed_url_opts(
        &self,
        method: Method,
        path: &Path,
        expires_in: Duration,
        options: &SignedUrlOptions,
    ) -> Result<Url> {
        let paths = [path.clone()];
        let sign = self
            .signer
            .signed_url_opts(method.clone(), path, expires_in, options);
        self.store
            .while_signed(&method, &paths, expires_in, sign)
            .await
    }

    async fn signed_urls(
        &self,
        method: Method,
        paths: &[Path],
        expires_in: Duration,
    ) -> Result<Vec<Url>> {
        let sign = self.signer.signed_urls(method.clone(), paths, expires_in);
        self.store
            .while_signed(&method, paths, expires_in, sign)
            .await
    }
}

/// The longest time of a signed URL. No store signs for as long as a year.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// How far the store's clock may be behind this node's, plus how long signing may take.
const SKEW: Duration = Duration::from_secs(120);

impl ErasedStore {
    fn signer(&self) -> Option<Arc<dyn Signer>> {
        let signer = self.signer.clone()?;
        let store = self.clone();
        Some(Arc::new(ErasedSigner { store, signer }))
    }

    /// Keeps `paths` out of the cache until the URL that `sign` returns has expired.
    async fn while_signed<T>(
        &self,
        method: &Method,
        paths: &[Path],
        expires_in: Duration,
        sign: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let meanings = paths.iter().filter_map(|path| self.meaning_of_call(path));
        let keys: Vec<_> = meanings.flat_map(keys).collect();
        if matches!(*method, Method::GET | Method::HEAD) || keys.is_empty() {
            return sign.await;
        }
        runtime::check().map_err(to_store)?;
        let kind = match *method {
            Method::DELETE => ChangeKind::Removal,
            _ => ChangeKind::Creation,
        };
        let cache = self.core.cache();
        let time = expires_in.saturating_add(SKEW).min(LONGEST);
        let opened = cache.open_signed(kind, keys.clone(), time).await;
        opened.map_err(to_store)?;
        let began = Instant::now();
        let result = sign.await?;
        // The URL's time counts from the end of signing, not from its begin. Extend the fence if
        // signing was slow.
        if began.elapsed() > SKEW / 4 {
            let opened = cache.open_signed(kind, keys, time).await;
            opened.map_err(to_store)?;
        }
        Ok(result)
    }
}
