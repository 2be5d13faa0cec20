//! How does a caller choose how one call uses the cache, and how does it learn which tier answered?

/// How one call uses the cache. Put it into the `extensions` of a request.
///
/// ```
/// use layercache::CachePolicy;
/// use object_store::{Extensions, GetOptions};
///
/// let mut extensions = Extensions::new();
/// extensions.insert(CachePolicy::Refresh);
/// let options = GetOptions::new().with_head(true).with_extensions(extensions);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum CachePolicy {
    /// The cache answers if it can.
    #[default]
    Default,
    /// The backend answers, and the cache does not store the answer.
    Bypass,
    /// The backend answers, and the cache stores the answer.
    Refresh,
}

/// Which tier answered. It is in the `extensions` of every result of `get_opts`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use layercache::{CacheStatus, CachedStore};
/// use object_store::{GetOptions, ObjectStore, ObjectStoreExt, memory::InMemory};
///
/// let store = CachedStore::new(InMemory::new());
/// # let path = format!("docker/registry/v2/blobs/sha256/ab/{}/data", "ab".repeat(32)).into();
/// # store.put(&path, "content".into()).await?;
/// for expected in [CacheStatus::Miss, CacheStatus::Memory] {
///     let result = store.get_opts(&path, GetOptions::new().with_head(true)).await?;
///     assert_eq!(result.extensions.get(), Some(&expected));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CacheStatus {
    /// The memory of this process.
    Memory,
    /// Redis.
    Redis,
    /// The backend, because no tier had the answer.
    Miss,
    /// The backend, because the cache does not answer calls of this kind.
    Bypass,
}

/// Whether the cache may answer.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use layercache::{CacheStatus, CachedStore, Freshness};
/// # let store = CachedStore::new(object_store::memory::InMemory::new());
/// # let repository = store.registry().repository("library/alpine".parse()?);
/// # let digest = layercache::Digest::Sha256([0xab; 32]);
///
/// repository.link(&digest).await?;
/// assert_eq!(repository.contains(&digest, Freshness::Cached).await?.status, CacheStatus::Memory);
/// assert_eq!(repository.contains(&digest, Freshness::Verified).await?.status, CacheStatus::Miss);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Freshness {
    /// The cache may answer.
    #[default]
    Cached,
    /// The backend answers, and the cache stores the answer.
    Verified,
}

/// An answer, and the tier that gave it.
///
/// ```
/// use layercache::{Answer, CacheStatus};
///
/// let answer = Answer { value: Some(1024), status: CacheStatus::Memory };
/// assert_eq!(answer.map(|length| length.is_some()).value, true);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer<T> {
    /// The answer.
    pub value: T,
    /// The tier that gave it.
    pub status: CacheStatus,
}

impl<T> Answer<T> {
    /// Converts the value with `f`, and keeps the status.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Answer<U> {
        Answer {
            value: f(self.value),
            status: self.status,
        }
    }
}
