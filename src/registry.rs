//! The typed API of the cache: how does a registry ask for its blobs and repositories?

mod builder;

pub use builder::RegistryBuilder;

use crate::cache::TieredCache;
use crate::read_through::{Backend, ReadThrough, Reading, WritableBackend};
use crate::types::link::LinkRef;
use crate::types::{Answer, Digest, Error, Freshness, LayerMeta, Link, LinkKind, RepositoryName};
use futures::future::BoxFuture;
use std::sync::Arc;

/// Gives access to a registry's blobs and repositories through the cache.
///
/// It is the typed API of a [`CachedStore`](crate::CachedStore). A registry with a storage trait of
/// its own implements [`Backend`] and uses this type directly. A clone shares the cache with the
/// original; cloning increments two reference counts.
///
/// # Cost
/// Making a registry does no I/O. [`repository`](Self::repository) and [`blobs`](Self::blobs)
/// increment two reference counts. [`guide::costs`](crate::guide::costs) has the cost of each
/// operation: round trips to Redis, calls of the [`Backend`] or the wrapped store, and allocations.
///
/// If another node holds the lease of a missing key, a miss waits for that node's fill: about 300
/// ms at most. It does not wait for a lease that is older than a
/// tenth of [`RedisConfig::with_lease_ttl`](crate::RedisConfig). One read waits for Redis itself at most
/// [`RedisConfig::with_timeout`](crate::RedisConfig), in all its round trips together.
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
    core: ReadThrough,
    backend: Arc<B>,
}

/// Reads and changes the links of one kind, layers or manifests, in one repository.
///
/// Each read takes a [`Freshness`]: `Cached` lets the cache answer, `Verified` asks the backend.
/// Each change calls the backend in a task of its own; the task continues if its caller is dropped.
/// Cloning increments reference counts.
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
/// // Before a manifest is accepted: does the backend have all its layers?
/// let layers = [digest];
/// let answers = repository.stat_many(&layers, Freshness::Verified).await?;
/// assert!(answers.iter().all(|answer| answer.value.is_some()));
///
/// // Layers and manifests are separate kinds.
/// assert!(!repository.manifests().contains(&digest, Freshness::Cached).await?.value);
///
/// // Mount it in another repository without copying the content.
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
    core: ReadThrough,
    backend: Arc<B>,
    name: RepositoryName,
    kind: LinkKind,
}

/// Reads and deletes blobs, independent of repositories. Does not decide who may read a blob; only
/// membership in a [`Repository`] does.
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
    core: ReadThrough,
    backend: Arc<B>,
}

impl<B> Clone for Registry<B> {
    fn clone(&self) -> Self {
        Self {
            core: self.core.clone(),
            backend: Arc::clone(&self.backend),
        }
    }
}

impl<B> Clone for Repository<B> {
    fn clone(&self) -> Self {
        Self {
            core: self.core.clone(),
            backend: Arc::clone(&self.backend),
            name: self.name.clone(),
            kind: self.kind,
        }
    }
}

impl<B> Clone for Blobs<B> {
    fn clone(&self) -> Self {
        Self {
            core: self.core.clone(),
            backend: Arc::clone(&self.backend),
        }
    }
}

impl<B: Backend> Registry<B> {
    /// Returns a builder of a registry over your own backend. For an `object_store`, see
    /// [`CachedStore::registry`](crate::CachedStore::registry).
    ///
    /// ```
    /// use layercache::{Backend, Error, Registry};
    ///
    /// fn registry(backend: impl Backend) -> Result<Registry<impl Backend>, Error> {
    ///     Registry::builder(backend).build()
    /// }
    /// ```
    pub fn builder(backend: B) -> RegistryBuilder<B> {
        RegistryBuilder::new(backend)
    }

    pub(crate) const fn over(core: ReadThrough, backend: Arc<B>) -> Self {
        Self { core, backend }
    }

    /// Returns the cache of this registry: to [`purge`](TieredCache::purge) it, or to
    /// [shut it down](TieredCache::shutdown) before the node stops. If the registry shares its cache
    /// with others, this is the part that belongs to the registry's name space, and only the shared
    /// cache itself can be shut down. Does no I/O.
    ///
    /// ```
    /// use layercache::{Backend, Error, Registry};
    ///
    /// async fn stop(registry: &Registry<impl Backend>) -> Result<(), Error> {
    ///     registry.cache().purge().await?; // after a garbage collection that the cache did not see
    ///     registry.cache().shutdown().await; // before the node stops
    ///     Ok(())
    /// }
    /// ```
    pub fn cache(&self) -> &TieredCache {
        self.core.cache()
    }

    /// Returns the layers of a repository. For its manifests, see [`Repository::manifests`].
    pub fn repository(&self, name: RepositoryName) -> Repository<B> {
        Repository {
            core: self.core.clone(),
            backend: Arc::clone(&self.backend),
            name,
            kind: LinkKind::Layer,
        }
    }

    /// Returns the blobs, independent of repositories.
    pub fn blobs(&self) -> Blobs<B> {
        Blobs {
            core: self.core.clone(),
            backend: Arc::clone(&self.backend),
        }
    }
}

impl<B: Backend> Repository<B> {
    /// Returns the repository's name.
    pub const fn name(&self) -> &RepositoryName {
        &self.name
    }

    /// Returns the manifests of this repository.
    #[must_use]
    pub fn manifests(&self) -> Self {
        self.of_kind(LinkKind::Manifest)
    }

    /// Returns the members of this kind in this repository.
    ///
    /// ```
    /// use layercache::{Backend, Link, Registry, Repository};
    ///
    /// fn of_link<B: Backend>(registry: &Registry<B>, link: &Link) -> Repository<B> {
    ///     registry.repository(link.repository.clone()).of_kind(link.kind)
    /// }
    /// ```
    #[must_use]
    pub fn of_kind(&self, kind: LinkKind) -> Self {
        Self {
            kind,
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

    /// Returns the path and the length of a blob in this repository. Returns `None` if the blob is
    /// not in this repository, even if another repository has it, or if its content is missing.
    ///
    /// # Cost
    /// [`guide::costs`](crate::guide::costs#reads) has the cost of a hit, a miss and a verified
    /// read. A miss asks the backend for both facts at the same time, and not for a fact that a
    /// tier has. If repositories share no content, one backend call answers both facts.
    ///
    /// # Errors
    /// Returns the backend's errors only. No error is cached.
    pub fn stat<'a>(
        &'a self,
        digest: &'a Digest,
        freshness: Freshness,
    ) -> impl Future<Output = Result<Answer<Option<LayerMeta>>, Error>> + Send + use<'a, B> {
        let link = self.link_ref(digest);
        Reading::new(move || self.core.stat(link, freshness))
    }

    /// Runs [`stat`](Self::stat) for many blobs and returns the answers in the order of `digests`.
    ///
    /// # Cost
    /// The blobs share round trips: [`guide::costs`](crate::guide::costs#reads). At most 64 blobs
    /// are loaded from the backend at the same time. An absent blob costs as much as in
    /// [`stat`](Self::stat).
    ///
    /// # Errors
    /// Returns the first error of the backend.
    pub fn stat_many(
        &self,
        digests: &[Digest],
        freshness: Freshness,
    ) -> BoxFuture<'_, Result<Vec<Answer<Option<LayerMeta>>>, Error>> {
        let links = digests.iter().map(|digest| self.link_to(digest)).collect();
        self.core.stat_many(links, freshness)
    }

    /// Returns whether a blob is in this repository. Does not check whether its content exists.
    ///
    /// # Cost
    /// [`guide::costs`](crate::guide::costs#reads) has the cost of a hit, a miss and a verified
    /// read.
    ///
    /// # Errors
    /// Returns the backend's errors only.
    pub fn contains<'a>(
        &'a self,
        digest: &'a Digest,
        freshness: Freshness,
    ) -> impl Future<Output = Result<Answer<bool>, Error>> + Send + use<'a, B> {
        let link = self.link_ref(digest);
        Reading::new(move || self.core.contains(link, freshness))
    }
}

impl<B: WritableBackend> Repository<B> {
    /// Makes a blob a member of this repository. Does not check whether the blob exists.
    ///
    /// # Cost
    /// One write of the backend, and round trips before and after it:
    /// [`guide::costs`](crate::guide::costs#changes). While the backend call runs, the node waits
    /// for an acknowledgement from every other node. That takes some milliseconds. If another node
    /// is silent, it takes [`RedisConfig::with_trust_timeout`] and a twentieth of it.
    ///
    /// [`RedisConfig::with_trust_timeout`]: crate::RedisConfig
    ///
    /// # Errors
    /// Returns the backend's errors. If Redis cannot be reached, the node makes the link all the
    /// same and tells the other nodes later. Only [`ChangePolicy::Strict`](crate::ChangePolicy)
    /// adds the errors of [`unlink`](Self::unlink).
    pub fn link(&self, digest: &Digest) -> BoxFuture<'_, Result<(), Error>> {
        let backend = Arc::clone(&self.backend) as _;
        self.core.create_link(backend, self.link_to(digest))
    }

    /// Ends a blob's membership in this repository. The content stays. If the blob is not a member,
    /// the call succeeds.
    ///
    /// # Cost
    /// One delete of the backend, and round trips before and after it:
    /// [`guide::costs`](crate::guide::costs#changes). The node waits for the other nodes as in
    /// [`link`](Self::link).
    ///
    /// # Errors
    /// - [`Error::ChangeRefused`] if Redis cannot be told before the change. Nothing was changed.
    /// - [`Error::ChangeUnconfirmed`] if the backend made the change and Redis cannot be told
    ///   afterwards.
    /// - The backend's errors.
    ///
    /// The first two are [retryable](Error::is_retryable).
    pub fn unlink(&self, digest: &Digest) -> BoxFuture<'_, Result<(), Error>> {
        let backend = Arc::clone(&self.backend) as _;
        self.core.remove_link(backend, self.link_to(digest))
    }

    /// Makes a blob of another repository a member of this one and returns its path and length.
    /// Returns `None`, and changes nothing, if the other repository does not have the blob. The
    /// node asks the backend, not the cache, so that a blob that a garbage collection removed
    /// without the cache's knowledge cannot be mounted.
    ///
    /// # Cost
    /// A verified [`stat`](Self::stat) and a [`link`](Self::link):
    /// [`guide::costs`](crate::guide::costs#changes). The node waits for the other nodes as in
    /// [`link`](Self::link).
    ///
    /// # Errors
    /// Returns the errors of [`link`](Self::link).
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
    /// Returns the path and the length of a blob, independent of repositories.
    ///
    /// # Cost
    /// [`guide::costs`](crate::guide::costs#reads) has the cost of a hit, a miss and a verified
    /// read.
    ///
    /// # Errors
    /// Returns the backend's errors only.
    pub fn stat<'a>(
        &'a self,
        digest: &'a Digest,
        freshness: Freshness,
    ) -> impl Future<Output = Result<Answer<Option<LayerMeta>>, Error>> + Send + use<'a, B> {
        Reading::new(move || self.core.meta(digest, freshness))
    }
}

impl<B: WritableBackend> Blobs<B> {
    /// Deletes a blob's content. Links to the blob stay.
    ///
    /// # Cost
    /// One delete of the backend, and round trips before and after it:
    /// [`guide::costs`](crate::guide::costs#changes). The node waits for the other nodes as in
    /// [`Repository::link`].
    ///
    /// # Errors
    /// Returns the errors of [`Repository::unlink`].
    pub fn delete(&self, digest: &Digest) -> BoxFuture<'_, Result<(), Error>> {
        let backend = Arc::clone(&self.backend) as _;
        self.core.delete_blob(backend, *digest)
    }
}
