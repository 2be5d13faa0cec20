//! [`Backend`]: what the read-through core asks when no tier knows.

use crate::error::BoxError;
use crate::{Digest, LayerMeta, Link};
use async_trait::async_trait;
use futures::future::join;
use std::fmt::Debug;

/// A store that knows the truth: which blobs a repository has, and where a blob is.
///
/// `CachedStore` brings one for any `object_store`; a registry with a storage trait of its own
/// implements this one, and [`WritableBackend`] if it wants its changes made through the cache.
///
/// A method is called from a task of its own and is not cancelled when its caller goes away; only a
/// question that nobody waits for any more is, after ten seconds. One that hangs keeps one of the
/// [`Limits`](crate::Limits), so a backend should bring its own timeout. Errors reach those who wait
/// for the answer, and are not stored.
///
/// ```
/// use async_trait::async_trait;
/// use layercache::{
///     Backend, BoxError, Digest, Freshness, LayerMeta, Link, LinkState, MemoryConfig, Registry,
///     TieredCache,
/// };
///
/// /// Has one blob of 7 bytes, in all repositories.
/// #[derive(Debug)]
/// struct One(Digest);
///
/// #[async_trait]
/// impl Backend for One {
///     async fn link(&self, link: &Link) -> Result<LinkState, BoxError> {
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
/// let registry = Registry::new(One(digest), TieredCache::in_memory(MemoryConfig::default()));
/// let repository = registry.repository(link.repository);
/// let answer = repository.stat(&digest, Freshness::Cached).await?;
/// assert_eq!(answer.value.map(|meta| meta.length()), Some(7));
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait Backend: Debug + Send + Sync + 'static {
    /// Whether the blob is in the repository.
    async fn link(&self, link: &Link) -> Result<LinkState, BoxError>;

    /// What is to be known of the blob, wherever it belongs; `None` if there is none.
    async fn describe(&self, digest: &Digest) -> Result<Option<LayerMeta>, BoxError>;

    /// Both at once: the membership, and the meta of the blob if it has one. The default asks for
    /// both at the same time.
    async fn stat(&self, link: &Link) -> Stat {
        let (link, meta) = join(self.link(link), self.describe(&link.digest)).await;
        Stat { link, meta }
    }

    /// Whether all repositories share the content of a blob, so that its meta is the same in all of
    /// them. Where not, only [`link`](Self::link) and [`stat`](Self::stat) are called.
    fn shares_blobs(&self) -> bool {
        true
    }
}

/// What a backend says of a membership.
///
/// ```
/// use layercache::{LayerMeta, LinkState};
///
/// // A row of a table, and an object that a `head` of it could be answered with.
/// let (row, object) = (LinkState::Linked(None), LinkState::Linked(Some(LayerMeta::new("a/link", 71)?)));
/// assert_ne!(row, object);
/// # Ok::<(), layercache::LayerMetaError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// The blob is not in the repository.
    Absent,
    /// The blob is in the repository; with the object whose presence says so, if it is one.
    Linked(Option<LayerMeta>),
    /// There is an object where the membership should be, but it does not say so. The blob counts
    /// as absent, and nothing is cached.
    Broken,
}

impl LinkState {
    /// The object whose presence is the membership.
    pub(crate) fn into_object(self) -> Option<LayerMeta> {
        match self {
            Self::Linked(object) => object,
            Self::Absent | Self::Broken => None,
        }
    }
}

/// What a backend says of a blob in a repository.
///
/// ```
/// use layercache::{LinkState, Stat};
///
/// // One query that answers both: a backend that has it implements `Backend::stat`.
/// let absent = Stat { link: Ok(LinkState::Absent), meta: Ok(None) };
/// assert!(absent.link.is_ok());
/// ```
#[derive(Debug)]
pub struct Stat {
    /// Whether the blob is in the repository.
    pub link: Result<LinkState, BoxError>,
    /// What is to be known of the blob.
    pub meta: Result<Option<LayerMeta>, BoxError>,
}

/// A [`Backend`] that can be changed.
///
/// A change is made in a task of its own, between the two steps that keep caches right. It is not
/// cancelled when its caller goes away. All three are idempotent.
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
/// #     async fn link(&self, _: &Link) -> Result<LinkState, BoxError> { Ok(LinkState::Absent) }
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

    /// Ends the membership.
    async fn remove_link(&self, link: &Link) -> Result<(), BoxError>;

    /// Deletes the content of a blob.
    async fn delete_blob(&self, digest: &Digest) -> Result<(), BoxError>;

    /// Whether an error of one of these says for certain that nothing was changed, and will not be:
    /// a request that was refused, but not one that timed out. Of a change that may still happen
    /// nothing is cached for [`RedisConfig::fence`](crate::RedisConfig). The default is certain of
    /// nothing.
    fn has_changed_nothing(&self, error: &BoxError) -> bool {
        let _ = error;
        false
    }
}
