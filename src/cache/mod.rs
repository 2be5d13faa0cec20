//! Caches of the two facts, and the tiers they are made of.

#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod check;
#[cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "Redis is the only shared tier")
)]
pub(crate) mod deadline;
pub(crate) mod memory;
#[cfg(feature = "redis")]
pub(crate) mod redis;
#[cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "Redis is the only shared tier")
)]
pub(crate) mod shared;
pub(crate) mod tiered;

pub use memory::{MemoryCache, MemoryConfig};
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub use redis::{RedisCache, RedisConfig};
pub use tiered::TieredCache;

/// What [`TieredCache::purge_repositories`] has taken away from Redis. Memories do not count.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), layercache::Error> {
/// use layercache::cache::Forgotten;
/// use layercache::{MemoryConfig, TieredCache};
///
/// // There is no Redis behind it.
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
    /// How many repositories Redis knew something of.
    pub repositories: u64,
    /// How many memberships, of both kinds.
    pub memberships: u64,
}

use crate::{Digest, Error, LayerMeta, Link};
use async_trait::async_trait;
use std::fmt::Debug;

/// A cache of two independent facts: which blobs a repository has, and where a blob is.
///
/// It is the `LayerInfoCache` of docker/distribution ([2015]) with its four operations,
/// `contains`, `add`, `meta` and `set_meta`, and removal.
///
/// # Contract
/// There is no implied relationship between the two facts: a blob may be in one, in both or in
/// none, and no code may infer one from the other. *Access is decided by membership alone.*
///
/// An answer of `false` or `None` means "ask the backend", never "absent": a cache may forget
/// anything at any time, and cannot be trusted to know everything. What was removed is not answered
/// again until it is added again, by anyone who shares the cache.
///
/// What is stored and cannot be understood is not there, and is no error. An `Err` means that the
/// cache could not be asked or told.
///
/// `cache::check` (feature `testing`) is the suite that implementations run.
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
    /// Whether the blob is known to be in the repository. `false` means "ask the backend".
    async fn contains(&self, link: &Link) -> Result<bool, Error>;

    /// Remembers that the blob is in the repository.
    async fn add(&self, link: &Link) -> Result<(), Error>;

    /// Forgets that the blob is in the repository. To forget what is not known is no error.
    async fn remove(&self, link: &Link) -> Result<(), Error>;

    /// What is known of the blob. `None` means "ask the backend". Membership is not checked here.
    async fn meta(&self, digest: &Digest) -> Result<Option<LayerMeta>, Error>;

    /// Remembers what is known of the blob, in place of anything known before.
    async fn set_meta(&self, digest: &Digest, meta: &LayerMeta) -> Result<(), Error>;

    /// Forgets what is known of the blob. To forget what is not known is no error.
    async fn remove_meta(&self, digest: &Digest) -> Result<(), Error>;
}
