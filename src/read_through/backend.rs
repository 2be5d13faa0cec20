//! [`Backend`]: what does the read-through core ask if no tier knows the answer?

use crate::types::error::BoxError;
use crate::types::{Digest, LayerMeta, Link};
use async_trait::async_trait;
use futures::future::join;
use std::fmt::Debug;

/// Answers from the storage itself which blobs a repository has and where a blob is.
///
/// `CachedStore` provides a backend for any `object_store`. A registry with a storage trait of its
/// own implements this trait. It also implements [`WritableBackend`] if its changes go through the
/// cache.
///
/// The cache calls each method from a task of its own and does not cancel the call when the caller
/// is dropped. There is one exception: the cache cancels a question after ten seconds if no caller
/// waits for it any more. A call that hangs occupies one permit of the [`Limits`](crate::Limits),
/// so a backend should have its own timeout. An error goes to the callers that wait for the answer
/// and is not cached.
///
/// ```
/// use async_trait::async_trait;
/// use layercache::{
///     Backend, BoxError, Digest, Freshness, LayerMeta, Link, LinkState, Registry,
/// };
///
/// /// Has one blob of 7 bytes, in all repositories.
/// #[derive(Debug)]
/// struct One(Digest);
///
/// #[async_trait]
/// impl Backend for One {
///     async fn link_state(&self, link: &Link) -> Result<LinkState, BoxError> {
///         Ok(match link.digest == self.0 {
///             true => LinkState::Linked(None),
///             false => LinkState::Absent,
///         })
///     }
///
///     async fn describe(&self, digest: &Digest) -> Result<Option<LayerMeta>, BoxError> {
///         match *digest == self.0 {
///             true => Ok(Some(LayerMeta::new("the/one", 7)?)),
///             false => Ok(None),
///         }
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let digest = Digest::Sha256([0xab; 32]);
/// let link = Link::layer("library/alpine".parse()?, digest);
/// assert!(One(digest).shares_blobs(), "by default all repositories share a blob's content");
/// assert_eq!(One(digest).stat(&link).await.link.ok(), Some(LinkState::Linked(None)));
///
/// let registry = Registry::builder(One(digest)).build()?;
/// let repository = registry.repository(link.repository);
/// let answer = repository.stat(&digest, Freshness::Cached).await?;
/// assert_eq!(answer.value.map(|meta| meta.length()), Some(7));
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait Backend: Debug + Send + Sync + 'static {
    /// Returns whether the blob is in the repository.
    async fn link_state(&self, link: &Link) -> Result<LinkState, BoxError>;

    /// Returns the path and the length of the blob; `None` if it does not exist.
    async fn describe(&self, digest: &Digest) -> Result<Option<LayerMeta>, BoxError>;

    /// Returns both facts at once: the membership, and the metadata of the blob if it exists. The
    /// default asks for both at the same time.
    async fn stat(&self, link: &Link) -> Stat {
        let (link, meta) = join(self.link_state(link), self.describe(&link.digest)).await;
        Stat { link, meta }
    }

    /// Returns whether all repositories share the content of a blob, so that its metadata is the
    /// same in all of them. If it returns `false`, the cache calls only
    /// [`link_state`](Self::link_state) and [`stat`](Self::stat). Default: `true`.
    fn shares_blobs(&self) -> bool {
        true
    }
}

/// Describes a membership as the backend sees it.
///
/// ```
/// use layercache::{LayerMeta, LinkState};
///
/// // A row of a table proves one membership; an object, with its metadata, proves the other.
/// let (row, object) = (LinkState::Linked(None), LinkState::Linked(Some(LayerMeta::new("a/link", 71)?)));
/// assert_ne!(row, object);
/// # Ok::<(), layercache::LayerMetaError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkState {
    /// The blob is not in the repository.
    Absent,
    /// The blob is in the repository. The value is the object whose presence proves it; `None` if
    /// the backend keeps memberships in another form, such as a row of a table.
    Linked(Option<LayerMeta>),
    /// There is an object at the membership's path, but its content is not a valid link. The blob
    /// counts as absent, and nothing is cached.
    Broken,
}

impl LinkState {
    /// Returns the object whose presence is the membership.
    pub(crate) fn into_object(self) -> Option<LayerMeta> {
        match self {
            Self::Linked(object) => object,
            Self::Absent | Self::Broken => None,
        }
    }
}

/// Holds a backend's answers about a blob in a repository.
///
/// ```
/// use layercache::{LinkState, Stat};
///
/// // A backend that can answer both with one query implements `Backend::stat`.
/// let absent = Stat::new(Ok(LinkState::Absent), Ok(None));
/// assert!(absent.link.is_ok());
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Stat {
    /// Whether the blob is in the repository.
    pub link: Result<LinkState, BoxError>,
    /// The blob's metadata; `None` if the blob does not exist.
    pub meta: Result<Option<LayerMeta>, BoxError>,
}

impl Stat {
    /// Creates the answers about a blob: whether it is in the repository, and its metadata.
    pub const fn new(
        link: Result<LinkState, BoxError>,
        meta: Result<Option<LayerMeta>, BoxError>,
    ) -> Self {
        Self { link, meta }
    }
}

/// A [`Backend`] whose memberships and blobs can be changed through the cache.
///
/// The cache makes each change in a task of its own, between the two steps that keep caches correct
/// (the fence before the call, the invalidation after it). It does not cancel the change when the
/// caller is dropped. All three changes must be idempotent.
///
/// ```
/// use async_trait::async_trait;
/// use layercache::{BoxError, Digest, Link, WritableBackend};
/// # use layercache::{Backend, LayerMeta, LinkState};
/// # #[derive(Debug)]
/// # struct Database;
/// # #[derive(Debug, thiserror::Error)]
/// # #[error("refused")]
/// # struct Refused;
/// # impl Database {
/// #     async fn execute(&self, _: &str, _: &Digest) -> Result<(), BoxError> { Ok(()) }
/// # }
/// # #[async_trait]
/// # impl Backend for Database {
/// #     async fn link_state(&self, _: &Link) -> Result<LinkState, BoxError> { Ok(LinkState::Absent) }
/// #     async fn describe(&self, _: &Digest) -> Result<Option<LayerMeta>, BoxError> { Ok(None) }
/// # }
///
/// #[async_trait]
/// impl WritableBackend for Database {
///     async fn create_link(&self, link: &Link) -> Result<(), BoxError> {
///         self.execute("INSERT INTO links … ON CONFLICT DO NOTHING", &link.digest).await
///     }
///
///     async fn remove_link(&self, link: &Link) -> Result<(), BoxError> {
///         self.execute("DELETE FROM links …", &link.digest).await
///     }
///
///     async fn delete_blob(&self, digest: &Digest) -> Result<(), BoxError> {
///         self.execute("DELETE FROM blobs …", digest).await
///     }
///
///     fn has_changed_nothing(&self, error: &BoxError) -> bool {
///         error.is::<Refused>()
///     }
/// }
/// ```
#[async_trait]
pub trait WritableBackend: Backend {
    /// Makes the blob a member of the repository.
    async fn create_link(&self, link: &Link) -> Result<(), BoxError>;

    /// Ends the blob's membership in the repository.
    async fn remove_link(&self, link: &Link) -> Result<(), BoxError>;

    /// Deletes the content of a blob.
    async fn delete_blob(&self, digest: &Digest) -> Result<(), BoxError>;

    /// Returns whether an error proves that the call changed nothing and will change nothing. A
    /// refused request proves it; a request that timed out does not. If a change may still happen,
    /// its keys stay uncached for [`RedisConfig::with_fence_ttl`](crate::RedisConfig). Default:
    /// `false` for every error.
    fn has_changed_nothing(&self, error: &BoxError) -> bool {
        let _ = error;
        false
    }
}
