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
