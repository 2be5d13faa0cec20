//! [`CachedStore`]: the middleware.

mod backend;
mod builder;
mod delete;
mod error;
mod meta;
mod multipart;
mod read;
#[cfg(feature = "signer")]
mod signer;
mod warm;
mod write;

pub use backend::StoreBackend;
pub use builder::CachedStoreBuilder;
#[cfg(feature = "redis")]
pub(crate) use warm::has_text_of;
pub use warm::{Warm, WarmError, WarmProgress};

use crate::layout::{Layout, Meaning};
use crate::link::Key;
use crate::read_through::ReadThrough;
use crate::{AuditorConfig, Forgotten, Limits, Registry, TieredCache};
use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// An `object_store` that answers what it is asked most from a cache.
///
/// A registry asks its storage two small questions all day: is this blob linked into this
/// repository, and how long is it? `CachedStore` answers them from memory, then from Redis if there
/// is one, and asks the wrapped store only when neither knows. Which paths those are, a
/// [`Layout`] says; every other path passes through untouched.
///
/// ```
/// use layercache::CachedStore;
/// use object_store::memory::InMemory;
/// use object_store::{ObjectStore, ObjectStoreExt};
///
/// # async fn example() -> object_store::Result<()> {
/// let store = CachedStore::new(InMemory::new());
/// # let hex = "ab".repeat(32);
/// let path = format!("docker/registry/v2/blobs/sha256/ab/{hex}/data").into();
/// store.put(&path, "content".into()).await?;
///
/// store.head(&path).await?; // asks the wrapped store
/// store.head(&path).await?; // does not
/// # Ok(())
/// # }
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(example()).unwrap();
/// ```
///
/// For operators:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use layercache::CachedStore;
/// use object_store::memory::InMemory;
///
/// let store = CachedStore::builder(InMemory::new()).build();
/// store.warm(None).await?; // before the first requests, from lists
/// store.purge().await?; // after a garbage collection behind its back
/// store.flush_memory(); // this node's memory alone
/// store.leave().await; // before it stops: the other nodes need not wait for it
/// println!("{}", store.get_ref()); // the wrapped store
/// # Ok(())
/// # }
/// ```
///
/// # What is cached
/// | call | answered by |
/// |---|---|
/// | `head` of a blob | memory, Redis, the store |
/// | `head` of a link, or its content | memory, the store (Redis knows the membership, not the object) |
/// | content of a blob | the store; what comes with it is remembered |
/// | conditions, ranges, versions | the store, exactly |
/// | lists, and all other paths | the store |
///
/// An answer from the cache is what the store answered before: the same metadata and attributes, an
/// empty stream and the range `0..size`, as the HTTP stores answer a `head`. Each result says in
/// its `extensions` who gave it ([`CacheStatus`](crate::CacheStatus)), and each request may say how
/// it wants the cache used ([`CachePolicy`](crate::CachePolicy)).
///
/// # Cost
/// Redis round trips (`2 + 1`: two before the answer, and one after it) and calls of the wrapped store,
/// by who knows the object. [`Registry`] has the terms.
///
/// | a read | memory | Redis alone | nobody | [`Refresh`](crate::CachePolicy) |
/// |---|---|---|---|---|
/// | `head` of a blob | 0, 0 calls | 1, 0 calls | 2 + 1, 1 call | 1 + 1, 1 call |
/// | `head` of a link, or its content | 0, 0 calls | 1 + 1, 1 call | 1 + 1, 1 call | 1 + 1, 1 call |
/// | content of a blob, or a range of it | 0, 1 call | 1, 1 call | 1 + 1, 1 call | 0, 1 call |
/// | `get_ranges`, conditions, versions, lists, other paths | 0, 1 call | 0, 1 call | 0, 1 call | 0, 1 call |
///
/// A content that is not there costs 2 round trips, and 1 more if Redis alone held anything of it.
/// An answer from memory allocates 6 times for the `head` of a blob (the future, the location, the
/// entity tag, and three times for the extensions), 7 times for that of a link, and 10 times for a
/// link's content; versions and attributes come on top.
///
/// | a change of a blob or a link | Redis round trips | calls |
/// |---|---|---|
/// | `put`, `copy`, `rename`, `delete` | 3: two before the call, one after it | 1 |
/// | `delete_stream` of what stands ready, 1,000 at most | 3 for all of them | 1, and 1 at the same time for other paths |
/// | a multipart upload | 3, around its completion | its own |
/// | anything of another path | 0 | its own |
///
/// A change waits for the other nodes beside its call; see [`Repository::link`](crate::Repository::link).
///
/// # What is never cached
/// Absence, errors, content, and anything that may be changing.
///
/// # Changes
/// A `put`, `copy`, `rename`, `delete` or completed multipart upload of a blob or link takes what
/// the tiers hold of it away *before* the store is touched, and keeps it away until the store has
/// answered; it returns when no other node can answer what was before. If Redis cannot be reached
/// the change is refused and nothing is changed. The change runs in a task of its own: a caller
/// that drops the future does not stop it half way.
///
/// # Cancellation
/// A dropped read leaves the load that it waited for running, for the others and for the tiers; one
/// that nobody waits for and that the store does not answer is given up after some seconds.
///
/// # Limits
/// What the cache itself has under way in the store is bounded ([`Limits`]). Beyond that callers wait
/// for their turn, and what memory or Redis knows is answered all the same. Calls that pass through
/// are their callers' own, and not counted.
///
/// # Runtime
/// Needs a tokio runtime.
///
/// # Stacking
/// `CachedStore(PrefixStore(AmazonS3))` caches below one prefix; `LimitStore(CachedStore(..))`
/// limits callers, `CachedStore(LimitStore(..))` only what reaches the store. Two caches that share
/// a Redis must see the same objects at the same paths, or have different key prefixes.
pub struct CachedStore<S: ObjectStore> {
    core: ReadThrough<StoreBackend<S>>,
}

impl<S: ObjectStore> CachedStore<S> {
    /// Wraps `inner` with a cache in memory and the layout of docker/distribution.
    pub fn new(inner: S) -> Self {
        Self::builder(inner).build()
    }

    /// Wraps `inner` as set by the builder.
    pub fn builder(inner: S) -> CachedStoreBuilder<S> {
        CachedStoreBuilder::new(inner)
    }

    fn with(
        inner: S,
        layout: Arc<dyn Layout>,
        cache: TieredCache,
        (limits, auditor): (Limits, Option<AuditorConfig>),
    ) -> Self {
        let backend = StoreBackend::new(Arc::new(inner), layout);
        Self {
            core: ReadThrough::new(backend, cache, limits, auditor),
        }
    }

    /// The wrapped store. What is changed through it the cache does not learn of. No I/O.
    pub fn get_ref(&self) -> &S {
        self.inner()
    }

    /// The typed face of the same store and the same cache: a reference count, and no I/O.
    pub fn registry(&self) -> Registry<StoreBackend<S>> {
        Registry::over(self.core.clone())
    }

    /// Forgets all that is in memory. What is in Redis stays.
    ///
    /// # Cost
    /// As [`TieredCache::flush_memory`].
    pub fn flush_memory(&self) {
        self.core.cache().flush_memory();
    }

    /// Forgets everything, here, in Redis and on all nodes that share it; see
    /// [`TieredCache::purge`].
    ///
    /// # Cost
    /// As [`TieredCache::purge`].
    ///
    /// # Errors
    /// If Redis could not be told.
    pub async fn purge(&self) -> std::result::Result<(), crate::Error> {
        self.core.cache().purge().await
    }

    /// Forgets the memberships of some repositories, here, in Redis and on all nodes that share it; see
    /// [`TieredCache::purge_repositories`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), layercache::Error> {
    /// use layercache::CachedStore;
    /// use object_store::memory::InMemory;
    ///
    /// let store = CachedStore::new(InMemory::new());
    /// store.purge_repositories(|name| name == "library/alpine").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cost
    /// As [`TieredCache::purge_repositories`].
    ///
    /// # Errors
    /// If Redis could not be told.
    pub async fn purge_repositories(
        &self,
        which: impl Fn(&str) -> bool + Sync + Send,
    ) -> std::result::Result<Forgotten, crate::Error> {
        self.core.cache().purge_repositories(which).await
    }

    /// Fills the tiers from a list of what the store has below `prefix`, or of all of it: before the
    /// first requests of a node, or after a [`purge`](Self::purge). See [`Warm`].
    pub fn warm(&self, prefix: Option<&Path>) -> Warm<S> {
        Warm::new(self.clone(), prefix.cloned())
    }

    /// Leaves the other nodes that share Redis, before this one stops; see [`TieredCache::leave`].
    ///
    /// # Cost
    /// As [`TieredCache::leave`].
    pub async fn leave(&self) {
        self.core.cache().leave().await;
    }

    fn inner(&self) -> &Arc<S> {
        self.core.backend().store()
    }

    fn meaning(&self, location: &Path) -> Option<Meaning> {
        self.core.backend().layout().meaning(location)
    }
}

/// The facts that an object says something of.
fn keys(meaning: Meaning) -> Vec<Key> {
    match meaning {
        Meaning::Blob(digest) => vec![Key::Meta(digest)],
        Meaning::Link(link) => vec![Key::Link(link)],
        Meaning::RepositoryBlob(link) => vec![Key::Meta(link.digest), Key::Link(link)],
    }
}

impl<S: ObjectStore> Clone for CachedStore<S> {
    /// Another handle on the same store and the same cache.
    fn clone(&self) -> Self {
        Self {
            core: self.core.clone(),
        }
    }
}

impl<S: ObjectStore> fmt::Display for CachedStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CachedStore({})", self.inner())
    }
}

impl<S: ObjectStore> fmt::Debug for CachedStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedStore")
            .field("inner", self.inner())
            .field("layout", &self.core.backend().layout())
            .field("cache", self.core.cache())
            .finish()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: ObjectStore> ObjectStore for CachedStore<S> {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        self.put(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.put_multipart(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let mut asked = self.asked(location, &options);
        match self.hit(location, &mut asked) {
            Some(result) => Ok(result),
            None => self.get(location, options, asked).boxed().await,
        }
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let result = self.inner().get_ranges(location, ranges).await;
        self.heal_if_gone(location, result).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.delete_all(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner().list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner().list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner().list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.copy(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.rename(from, to, options).await
    }
}
