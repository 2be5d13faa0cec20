//! The typed API, for those who write registries.

use crate::link::LinkRef;
use crate::read_through::{Backend, ReadThrough, WritableBackend};
use crate::{
    Answer, AuditorConfig, Digest, Error, Freshness, LayerMeta, Limits, Link, LinkKind,
    RepositoryName, TieredCache,
};

/// A registry's blobs and repositories, behind a cache.
///
/// It is the typed face of a [`CachedStore`](crate::CachedStore), and the cache for registries that
/// have a storage trait of their own and implement [`Backend`]. Cloning is a reference count.
///
/// # Cost
/// Making one does no I/O, and neither does asking it for a repository or for the blobs, which is two
/// reference counts. The operations say, each under this heading:
///
/// | | counts |
/// |---|---|
/// | allocations | those of a memory hit; what does I/O makes some, which are not told |
/// | Redis round trips | one after the other: `2 + 1` are two that the caller waits for, and one when it has its answer. None without Redis. One more where a server does not have a script yet. In a cluster each goes to all the primaries that have some of the keys, at the same time |
/// | backend calls | those of a [`Backend`], or of the wrapped store |
///
/// While another node is about to fill what is missing, a miss waits for it, 300 ms at most, with two
/// round trips at each look. It does not wait for a node whose lease is older than a tenth of
/// [`RedisConfig::lease`](crate::RedisConfig). All that one read waits for Redis itself is
/// [`RedisConfig::timeout`](crate::RedisConfig) at most, in all its round trips together.
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
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use layercache::{CachedStore, Freshness};
/// # use object_store::{ObjectStoreExt, memory::InMemory};
/// # let store = CachedStore::new(InMemory::new());
/// # let registry = store.registry();
/// # let hex = "ab".repeat(32);
/// # let digest = format!("sha256:{hex}").parse()?;
/// # store.put(&format!("docker/registry/v2/blobs/sha256/ab/{hex}/data").into(), "content".into()).await?;
/// let repository = registry.repository("library/alpine".parse()?);
/// assert_eq!(repository.name().as_str(), "library/alpine");
///
/// repository.link(&digest).await?;
/// assert!(repository.contains(&digest, Freshness::Cached).await?.value);
/// assert!(repository.stat(&digest, Freshness::Verified).await?.value.is_some());
///
/// // Before a manifest is accepted: are all its layers here, in truth?
/// let layers = [digest];
/// let answers = repository.stat_many(&layers, Freshness::Verified).await?;
/// assert!(answers.iter().all(|answer| answer.value.is_some()));
///
/// // Its manifests are of another kind.
/// assert!(!repository.manifests().contains(&digest, Freshness::Cached).await?.value);
///
/// // To another repository, without the content passing by.
/// let fork = registry.repository("team/alpine".parse()?);
/// let meta = fork.mount(repository.name(), &digest).await?;
/// assert_eq!(meta.map(|meta| meta.length()), Some(7));
///
/// repository.unlink(&digest).await?;
/// assert_eq!(repository.stat(&digest, Freshness::Cached).await?.value, None);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Repository<B> {
    core: ReadThrough<B>,
    name: RepositoryName,
    kind: LinkKind,
}

/// The blobs themselves, wherever they belong. Says nothing of who may read them.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use layercache::{CachedStore, Freshness};
/// # use object_store::{ObjectStoreExt, memory::InMemory};
/// # let store = CachedStore::new(InMemory::new());
/// # let registry = store.registry();
/// # let hex = "ab".repeat(32);
/// # let digest = format!("sha256:{hex}").parse()?;
/// # store.put(&format!("docker/registry/v2/blobs/sha256/ab/{hex}/data").into(), "content".into()).await?;
/// let blobs = registry.blobs();
/// let answer = blobs.stat(&digest, Freshness::Cached).await?;
/// assert_eq!(answer.value.map(|meta| meta.length()), Some(7));
///
/// blobs.delete(&digest).await?;
/// assert_eq!(blobs.stat(&digest, Freshness::Cached).await?.value, None);
/// # Ok(())
/// # }
/// ```
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
    ///
    /// ```
    /// use layercache::{Backend, Limits, MemoryConfig, Registry, TieredCache};
    ///
    /// fn registry(backend: impl Backend) -> Registry<impl Backend> {
    ///     let cache = TieredCache::in_memory(MemoryConfig::default());
    ///     Registry::with_limits(backend, cache, Limits::default().with_loads(64))
    /// }
    /// ```
    pub fn with_limits(backend: B, cache: TieredCache, limits: Limits) -> Self {
        Self::over(ReadThrough::new(backend, cache, limits, None))
    }

    /// The same, with an auditor that looks at whether the cache keeps its promise.
    ///
    /// ```
    /// use layercache::{AuditorConfig, Backend, Limits, MemoryConfig, Registry, TieredCache};
    ///
    /// fn registry(backend: impl Backend) -> Registry<impl Backend> {
    ///     let cache = TieredCache::in_memory(MemoryConfig::default());
    ///     Registry::with_auditor(backend, cache, Limits::default(), AuditorConfig::default())
    /// }
    /// ```
    pub fn with_auditor(
        backend: B,
        cache: TieredCache,
        limits: Limits,
        auditor: AuditorConfig,
    ) -> Self {
        Self::over(ReadThrough::new(backend, cache, limits, Some(auditor)))
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

    const fn link_ref<'a>(&'a self, digest: &'a Digest) -> LinkRef<'a> {
        LinkRef {
            kind: self.kind,
            repository: &self.name,
            digest,
        }
    }

    fn link_to(&self, digest: &Digest) -> Link {
        self.link_ref(digest).to_owned()
    }

    /// Where a blob of this repository is and how long it is; `None` if it is not in the
    /// repository, whoever else has it, or if its content is gone.
    ///
    /// # Cost
    /// | | allocations | Redis round trips | backend calls |
    /// |---|---|---|---|
    /// | memory hit | 0 | 0 | 0 |
    /// | Redis hit | | 1, for both facts | 0 |
    /// | miss | | 2 + 1 | 2 at the same time; what a tier knew is not asked |
    /// | absent | | 2 + 1, and 1 more after if there is the content | 2 at the same time |
    /// | `Verified` | | 1 + 1 | 2 at the same time |
    /// | `Verified`, absent | | 1 + 1, and 1 more after for each: a tier held it, there is the content | 2 at the same time |
    ///
    /// Where repositories share no content both facts are one call. See [`Registry`] for the terms.
    ///
    /// # Errors
    /// Only those of the backend; none of them is remembered.
    pub async fn stat(
        &self,
        digest: &Digest,
        freshness: Freshness,
    ) -> Result<Answer<Option<LayerMeta>>, Error> {
        self.core.stat(self.link_ref(digest), freshness).await
    }

    /// [`stat`](Self::stat) for many blobs, in their order.
    ///
    /// # Cost
    /// | | allocations | Redis round trips | backend calls |
    /// |---|---|---|---|
    /// | memory hit | 6, however many | 0 | 0 |
    /// | Redis hit | | 1 for each 512, one after the other; in a cluster one to each primary, at the same time | 0 |
    /// | miss | | 1, and for each 64 of what is missing 2 + 1 | 2 for each, 128 at the same time |
    /// | `Verified` | | for each 64, 1 + 1 | 2 for each, 128 at the same time |
    ///
    /// What is absent costs as in [`stat`](Self::stat). See [`Registry`] for the terms.
    ///
    /// # Errors
    /// The first one of the backend.
    pub async fn stat_many(
        &self,
        digests: &[Digest],
        freshness: Freshness,
    ) -> Result<Vec<Answer<Option<LayerMeta>>>, Error> {
        let links = digests.iter().map(|digest| self.link_to(digest)).collect();
        self.core.stat_many(links, freshness).await
    }

    /// Whether a blob is in this repository. Says nothing of its content.
    ///
    /// # Cost
    /// | | allocations | Redis round trips | backend calls |
    /// |---|---|---|---|
    /// | memory hit | 0 | 0 | 0 |
    /// | Redis hit | | 1 | 0 |
    /// | miss, or absent | | 2 + 1 | 1 |
    /// | `Verified` | | 1 + 1 | 1 |
    /// | `Verified`, absent | | 1 + 1, and 1 more after if a tier held it | 1 |
    ///
    /// See [`Registry`] for the terms.
    ///
    /// # Errors
    /// Only those of the backend.
    pub async fn contains(
        &self,
        digest: &Digest,
        freshness: Freshness,
    ) -> Result<Answer<bool>, Error> {
        self.core.contains(self.link_ref(digest), freshness).await
    }
}

impl<B: WritableBackend> Repository<B> {
    /// Makes a blob a member of this repository. Whether the blob exists is the caller's business.
    ///
    /// # Cost
    /// | allocations | Redis round trips | backend calls |
    /// |---|---|---|
    /// | | 3: two before the call, one after it | 1, a write |
    ///
    /// Beside the call the other nodes are waited for: some milliseconds, or [`RedisConfig::trust`]
    /// and a twentieth if one of them is silent. See [`Registry`] for the terms.
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
    /// | allocations | Redis round trips | backend calls |
    /// |---|---|---|
    /// | | 3: two before the call, one after it | 1, a delete |
    ///
    /// The other nodes are waited for as in [`link`](Self::link).
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
    /// | | allocations | Redis round trips | backend calls |
    /// |---|---|---|---|
    /// | mounted | | 4: a verified [`stat`](Self::stat), a [`link`](Self::link) | 3: two at the same time, then a write |
    /// | not mounted | | as a verified `stat` | 2 at the same time |
    ///
    /// The other nodes are waited for as in [`link`](Self::link).
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
    /// | | allocations | Redis round trips | backend calls |
    /// |---|---|---|---|
    /// | memory hit | 0 | 0 | 0 |
    /// | Redis hit | | 1 | 0 |
    /// | miss, or absent | | 2 + 1 | 1 |
    /// | `Verified` | | 1 + 1 | 1 |
    /// | `Verified`, absent | | 1 + 1, and 1 more after if a tier held it | 1 |
    ///
    /// See [`Registry`] for the terms.
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
    /// | allocations | Redis round trips | backend calls |
    /// |---|---|---|
    /// | | 3: two before the call, one after it | 1, a delete |
    ///
    /// The other nodes are waited for as in [`Repository::link`].
    ///
    /// # Errors
    /// As [`Repository::link`].
    pub async fn delete(&self, digest: &Digest) -> Result<(), Error> {
        self.core.delete_blob(digest).await
    }
}
