//! The caches of the two facts (membership and meta), and the tiers that they consist of.

#![cfg_attr(
    not(all(feature = "redis", feature = "signer")),
    allow(dead_code, reason = "only Redis and signed URLs need some of it")
)]

#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod check;
pub(crate) mod deadline;
pub(crate) mod memory;
#[cfg(feature = "redis")]
pub(crate) mod redis;
pub(crate) mod shared;
pub(crate) mod storage;
pub(crate) mod tiered;

pub use memory::{MemoryCache, MemoryConfig};
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub use redis::{Connector, RedisCache, RedisConfig, RedisStream};
pub use tiered::TieredCache;

/// Counts the facts that [`TieredCache::purge_repositories`] has removed from Redis. Entries in the
/// memory of nodes do not count.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), layercache::Error> {
/// use layercache::cache::Forgotten;
/// use layercache::{MemoryConfig, TieredCache};
///
/// // This cache has no Redis.
/// let cache = TieredCache::in_memory(MemoryConfig::default());
/// let forgotten = cache.purge_repositories(|name| name.starts_with("team/")).await?;
/// assert_eq!(forgotten, Forgotten::default());
/// assert_eq!(forgotten.memberships, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Forgotten {
    /// The number of selected repositories for which Redis had keys.
    pub repositories: u64,
    /// The number of their memberships, layers and manifests together.
    pub memberships: u64,
}

use crate::types::{Digest, Error, LayerMeta, Link};
use async_trait::async_trait;
use std::fmt::Debug;

/// A cache of two independent facts: which blobs a repository has, and where a blob is.
///
/// It has the four operations of docker/distribution's `LayerInfoCache` ([2015]): `contains`,
/// `add`, `meta` and `set_meta`. Two more operations remove the facts.
///
/// # Contract
/// There is no implied relationship between the two facts. The cache may know one of them about a
/// blob, both or neither, and no code may infer one from the other. *Membership alone decides
/// access.*
///
/// An answer of `false` or `None` means "ask the backend", never "absent". A cache does not know
/// everything, and may forget anything at any time. After a removal, the cache does not answer the
/// fact again until a caller adds it again. That caller may be in any process that shares the
/// cache.
///
/// A stored value that the cache cannot read counts as missing, not as an error. An `Err` means
/// that the cache could not be read or written.
///
/// Implementations run the check suite `cache::check` (feature `testing`).
///
/// ```
/// use layercache::{Digest, LayerInfoCache, LayerMeta, Link, MemoryCache, MemoryConfig};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let cache = MemoryCache::new(MemoryConfig::default());
/// let digest: Digest =
///     "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".parse()?;
/// let link = Link::layer("library/alpine".parse()?, digest);
///
/// cache.add(&link).await?;
/// assert!(cache.contains(&link).await?);
/// assert_eq!(cache.meta(&digest).await?, None, "membership says nothing of the meta");
///
/// let meta = LayerMeta::new("blobs/sha256/e3/e3b0/data", 0)?;
/// cache.set_meta(&digest, &meta).await?;
/// cache.remove(&link).await?;
/// assert!(!cache.contains(&link).await?);
/// assert_eq!(cache.meta(&digest).await?, Some(meta), "nor does its end");
///
/// cache.remove_meta(&digest).await?;
/// assert_eq!(cache.meta(&digest).await?, None);
/// # Ok(())
/// # }
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(example()).unwrap();
/// ```
///
/// [2015]: https://github.com/distribution/distribution/commit/b1f616cbff
#[async_trait]
pub trait LayerInfoCache: Debug + Send + Sync {
    /// Returns whether the blob is known to be in the repository. `false` means "ask the backend".
    async fn contains(&self, link: &Link) -> Result<bool, Error>;

    /// Remembers that the blob is in the repository.
    async fn add(&self, link: &Link) -> Result<(), Error>;

    /// Forgets that the blob is in the repository. Succeeds even if the cache does not know it.
    async fn remove(&self, link: &Link) -> Result<(), Error>;

    /// Returns the known metadata of the blob. `None` means "ask the backend". Does not check
    /// membership.
    async fn meta(&self, digest: &Digest) -> Result<Option<LayerMeta>, Error>;

    /// Remembers the metadata of the blob, and replaces the metadata from before.
    async fn set_meta(&self, digest: &Digest, meta: &LayerMeta) -> Result<(), Error>;

    /// Forgets the metadata of the blob. Succeeds even if the cache has none.
    async fn remove_meta(&self, digest: &Digest) -> Result<(), Error>;
}
