//! Signed addresses: one that lets its holder write keeps the cache away until it expires.

use super::{CachedStore, keys};
use crate::coherence::change::{ChangeKind, Outcome};
use crate::store::error::to_store;
use async_trait::async_trait;
use object_store::path::Path;
use object_store::signer::{Method, SignedUrlOptions, Signer, Url};
use object_store::{ObjectStore, Result};
use std::future::Future;
use std::time::Duration;
use tokio::sync::oneshot;

/// Forwards to the wrapped store. The holder of an address signed for anything but `GET` and `HEAD`
/// may change the object at any time until the address expires, without the cache learning of it:
/// so what the cache holds of that object is taken away, and nothing of it is cached until then. An
/// upload that begins before the expiry and ends after it is not waited for. One key in 65,536
/// shares this, so many long-lived addresses make the cache less useful.
///
/// # Cost
/// 1 call of the store. For what may be changed by it, 2 Redis round trips before, and 1 when the last
/// address has expired; the other nodes are not waited for.
#[async_trait]
#[deny(clippy::missing_trait_methods)]
#[cfg_attr(docsrs, doc(cfg(feature = "signer")))]
impl<S: ObjectStore + Signer> Signer for CachedStore<S> {
    async fn signed_url(&self, method: Method, path: &Path, expires_in: Duration) -> Result<Url> {
        let paths = [path.clone()];
        let sign = self.inner().signed_url(method.clone(), path, expires_in);
        self.while_signed(&method, &paths, expires_in, sign).await
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
            .inner()
            .signed_url_opts(method.clone(), path, expires_in, options);
        self.while_signed(&method, &paths, expires_in, sign).await
    }

    async fn signed_urls(
        &self,
        method: Method,
        paths: &[Path],
        expires_in: Duration,
    ) -> Result<Vec<Url>> {
        let sign = self.inner().signed_urls(method.clone(), paths, expires_in);
        self.while_signed(&method, paths, expires_in, sign).await
    }
}

/// How far the store's clock may be behind ours.
const SKEW: Duration = Duration::from_secs(60);

impl<S: ObjectStore> CachedStore<S> {
    /// Begins a change of `paths` that ends when what `sign` returns has expired.
    async fn while_signed<T>(
        &self,
        method: &Method,
        paths: &[Path],
        expires_in: Duration,
        sign: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let meanings = paths.iter().filter_map(|path| self.meaning(path));
        let keys: Vec<_> = meanings.flat_map(keys).collect();
        if matches!(*method, Method::GET | Method::HEAD) || keys.is_empty() {
            return sign.await;
        }
        let kind = match *method {
            Method::DELETE => ChangeKind::Removal,
            _ => ChangeKind::Creation,
        };
        let (begun, has_begun) = oneshot::channel();
        let (signed, is_signed) = oneshot::channel::<()>();
        let core = self.core.clone();
        let change = tokio::spawn(async move {
            let expiry = async move {
                let _ = begun.send(());
                // The address expires so long after it was signed.
                let _ = is_signed.await;
                tokio::time::sleep(expires_in + SKEW).await;
                ((), Outcome::Over)
            };
            core.change(kind, keys, expiry).await
        });
        if has_begun.await.is_err() {
            // The change was refused, so its call was dropped and the change is over.
            return match change.await {
                Ok(Err(error)) => Err(to_store(error)),
                _ => Err(to_store(crate::Error::LoadLost)),
            };
        }
        let result = sign.await;
        drop(signed);
        result
    }
}
