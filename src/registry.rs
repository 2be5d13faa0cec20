//! The typed API, for those who write registries.

use crate::read_through::{Backend, LinkState, ReadThrough, WritableBackend};
use crate::{
    Answer, Digest, Error, Freshness, LayerMeta, Limits, Link, LinkKind, RepositoryName,
    TieredCache,
};

/// A registry's blobs and repositories, behind a cache.
///
/// It is the typed face of a [`CachedStore`](crate::CachedStore), and the cache for registries that
/// have a storage trait of their own and implement [`Backend`]. Cloning is a reference count.
///
/// ```
/// use layercache::{CachedStore, CacheStatus, Freshness};
/// use object_store::{ObjectStoreExt, memory::InMemory};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let store = CachedStore::new(InMemory::new());
/// let repository = store.registry().repository("library/alpine".parse()?);
///
/// # let hex = "ab".repeat(32);
/// let digest = format!("sha256:{hex}").parse()?;
/// store.put(&format!("docker/registry/v2/blobs/sha256/ab/{hex}/data").into(), "content".into()).await?;
/// assert_eq!(repository.stat(&digest, Freshness::Cached).await?.value, None, "not linked yet");
///
/// repository.link(&digest).await?;
/// let answer = repository.stat(&digest, Freshness::Cached).await?;
/// assert_eq!(answer.value.map(|meta| meta.length()), Some(7));
/// assert_eq!(answer.status, CacheStatus::Memory, "what was asked and written before is known");
/// # Ok(())
/// # }
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(example()).unwrap();
/// ```
#[derive(Debug)]
pub struct Registry<B> {
    core: ReadThrough<B>,
}

/// One repository's links of one kind. Cloning is a reference count.
///
/// Questions may be asked of the cache or of the backend ([`Freshness`]); changes go through to the
/// backend, in a task of their own that does not stop when its caller does.
#[derive(Debug)]
pub struct Repository<B> {
    core: ReadThrough<B>,
    name: RepositoryName,
    kind: LinkKind,
}

/// The blobs themselves, wherever they belong. Says nothing of who may read them.
#[derive(Debug)]
pub struct Blobs<B> {
    core: ReadThrough<B>,
}

impl<B> Clone for Registry<B> {
    fn clone(&self) -> Self {
        Self {
            core: self.core.clone(),
        }
    }
}

impl<B> Clone for Repository<B> {
    fn clone(&self) -> Self {
        Self {
            core: self.core.clone(),
            name: self.name.clone(),
            kind: self.kind,
        }
    }
}

impl<B> Clone for Blobs<B> {
    fn clone(&self) -> Self {
        Self {
            core: self.core.clone(),
        }
    }
}

impl<B: Backend> Registry<B> {
    /// A registry over a backend of one's own.
    pub fn new(backend: B, cache: TieredCache) -> Self {
        Self::with_limits(backend, cache, Limits::default())
    }

    /// The same, with other limits to what is under way in the backend at a time.
    pub fn with_limits(backend: B, cache: TieredCache, limits: Limits) -> Self {
        Self::over(ReadThrough::new(backend, cache, limits))
    }

    pub(crate) const fn over(core: ReadThrough<B>) -> Self {
        Self { core }
    }

    /// A repository's layers; see [`Repository::manifests`] for the other kind.
    pub fn repository(&self, name: RepositoryName) -> Repository<B> {
        Repository {
            core: self.core.clone(),
            name,
            kind: LinkKind::Layer,
        }
    }

    /// The blobs themselves.
    pub fn blobs(&self) -> Blobs<B> {
        Blobs {
            core: self.core.clone(),
        }
    }
}

impl<B: Backend> Repository<B> {
    /// The repository's name.
    pub const fn name(&self) -> &RepositoryName {
        &self.name
    }

    /// The same repository's manifests.
    #[must_use]
    pub fn manifests(&self) -> Self {
        Self {
            kind: LinkKind::Manifest,
            ..self.clone()
        }
    }

    fn link_to(&self, digest: &Digest) -> Link {
        Link {
            kind: self.kind,
            repository: self.name.clone(),
            digest: *digest,
        }
    }

    /// Where a blob of this repository is and how long it is; `None` if it is not in the
    /// repository, whoever else has it, or if its content is gone.
    ///
    /// # Cost
    /// A memory hit does no I/O and allocates nothing. A Redis hit is one round trip for both facts.
    /// A miss is one more round trip, for the leases, and asks the backend for the link and the
    /// content at the same time; what one of the tiers knew is not asked again. While another node
    /// is about to fill what is missing, this one waits for it, 300 ms at most.
    ///
    /// # Errors
    /// Only those of the backend; none of them is remembered.
    pub async fn stat(
        &self,
        digest: &Digest,
        freshness: Freshness,
    ) -> Result<Answer<Option<LayerMeta>>, Error> {
        self.core.stat(&self.link_to(digest), freshness).await
    }

    /// [`stat`](Self::stat) for many blobs, in their order.
    ///
    /// # Cost
    /// One round trip to Redis for all that memory does not know. The backend is asked for the
    /// rest, 64 blobs at a time.
    ///
    /// # Errors
    /// The first one of the backend.
    pub async fn stat_many(
        &self,
        digests: &[Digest],
        freshness: Freshness,
    ) -> Result<Vec<Answer<Option<LayerMeta>>>, Error> {
        let links: Vec<_> = digests.iter().map(|digest| self.link_to(digest)).collect();
        self.core.stat_many(&links, freshness).await
    }

    /// Whether a blob is in this repository. Says nothing of its content.
    ///
    /// # Cost
    /// As [`stat`](Self::stat), with the link alone.
    ///
    /// # Errors
    /// Only those of the backend.
    pub async fn contains(
        &self,
        digest: &Digest,
        freshness: Freshness,
    ) -> Result<Answer<bool>, Error> {
        let answer = self.core.link(&self.link_to(digest), freshness).await?;
        Ok(answer.map(|state| matches!(state, LinkState::Linked(_))))
    }
}

impl<B: WritableBackend> Repository<B> {
    /// Makes a blob a member of this repository. Whether the blob exists is the caller's business.
    ///
    /// # Cost
    /// One write in the backend; with Redis, two round trips before it and one after it, and beside
    /// it the other nodes are waited for: some milliseconds, or [`RedisConfig::trust`] and a
    /// twentieth if one of them is silent.
    ///
    /// [`RedisConfig::trust`]: crate::RedisConfig
    ///
    /// # Errors
    /// [`Error::ChangeRefused`] if Redis cannot be told, and nothing was changed then;
    /// [`Error::ChangeUnconfirmed`] if it was changed and Redis cannot be told of that; those of the
    /// backend.
    pub async fn link(&self, digest: &Digest) -> Result<(), Error> {
        self.core.create_link(&self.link_to(digest)).await
    }

    /// Ends a blob's membership in this repository. Its content stays. What is not a member already
    /// is no error.
    ///
    /// # Cost
    /// One delete in the backend; with Redis, as [`link`](Self::link).
    ///
    /// # Errors
    /// As [`link`](Self::link).
    pub async fn unlink(&self, digest: &Digest) -> Result<(), Error> {
        self.core.remove_link(&self.link_to(digest)).await
    }

    /// Makes a blob of another repository a member of this one, and says where it is; `None`, and
    /// nothing is changed, if that repository does not have it. The backend is asked, not the
    /// cache: what was collected behind the cache's back cannot be mounted.
    ///
    /// # Cost
    /// A verified [`stat`](Self::stat) and a [`link`](Self::link).
    ///
    /// # Errors
    /// As [`link`](Self::link).
    pub async fn mount(
        &self,
        from: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<LayerMeta>, Error> {
        let source = Self {
            name: from.clone(),
            ..self.clone()
        };
        let meta = source.stat(digest, Freshness::Verified).await?.value;
        if meta.is_some() {
            self.link(digest).await?;
        }
        Ok(meta)
    }
}

impl<B: Backend> Blobs<B> {
    /// Where a blob is and how long it is, wherever it belongs.
    ///
    /// # Cost
    /// As [`Repository::stat`], with the content alone.
    ///
    /// # Errors
    /// Only those of the backend.
    pub async fn stat(
        &self,
        digest: &Digest,
        freshness: Freshness,
    ) -> Result<Answer<Option<LayerMeta>>, Error> {
        self.core.meta(digest, freshness).await
    }
}

impl<B: WritableBackend> Blobs<B> {
    /// Deletes a blob's content. Links to it stay.
    ///
    /// # Cost
    /// One delete in the backend; with Redis, as [`Repository::link`].
    ///
    /// # Errors
    /// As [`Repository::link`].
    pub async fn delete(&self, digest: &Digest) -> Result<(), Error> {
        self.core.delete_blob(digest).await
    }
}
