//! Signed addresses: one that lets its holder write keeps the cache away until it expires.

use super::{CachedStore, keys};
use crate::coherence::change::ChangeKind;
use crate::store::error::to_store;
use async_trait::async_trait;
use object_store::path::Path;
use object_store::signer::{Method, SignedUrlOptions, Signer, Url};
use object_store::{ObjectStore, Result};
use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;

/// Forwards to the wrapped store. The holder of an address signed for anything but `GET` and `HEAD`
/// may change the object at any time until the address expires, without the cache learning of it:
/// so what the cache holds of that object is taken away, and nothing of it is cached until then. An
/// upload that begins before the expiry and ends after it is not waited for. One key in 65,536
/// shares this, so many long-lived addresses make the cache less useful.
///
/// Redis keeps the other nodes' caches away until the address expires, also if this node dies. Where Redis
/// loses that, by a restart or an eviction, this node tells it and the other nodes again, at the latest
/// after a third of [`RedisConfig::fence`](crate::RedisConfig). Two minutes are added to the address's time,
/// for clocks that differ.
///
/// # Cost
/// 1 call of the store. For what may be changed by it, 2 Redis round trips before; the other nodes are
/// waited for, as in [`Repository::link`](crate::Repository::link). 0 round trips if another address of the
/// same object stands about as long. Then 1 for each object in each third of the fence's time, and 2 when
/// its last address has expired. It takes none of [`Limits::changes`](crate::Limits).
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

/// No store signs for longer than this; a year is beyond all of them.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// How far the store's clock may be behind ours, and how long it may take to sign.
const SKEW: Duration = Duration::from_secs(120);

impl<S: ObjectStore> CachedStore<S> {
    /// Keeps `paths` out of the cache until what `sign` returns has expired.
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
        let cache = self.core.cache();
        let time = expires_in.saturating_add(SKEW).min(LONGEST);
        let opened = cache.open_signed(kind, keys.clone(), time).await;
        opened.map_err(to_store)?;
        let began = Instant::now();
        let result = sign.await?;
        // The address expires so long after it was signed, and not after that was begun.
        if began.elapsed() > SKEW / 4 {
            let opened = cache.open_signed(kind, keys, time).await;
            opened.map_err(to_store)?;
        }
        Ok(result)
    }
}
