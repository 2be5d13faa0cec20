//! [`CachedStore`], the `object_store` middleware: how does an object store get a cache in front of
//! it?

mod backend;
mod builder;
mod delete;
mod erased;
mod error;
mod meta;
mod multipart;
mod read;
#[cfg(feature = "signer")]
mod signer;
mod unknown_paths;
mod warm;
mod write;

pub use backend::StoreBackend;
pub use builder::CachedStoreBuilder;
pub use warm::{Warm, WarmError, WarmProgress, has_text_of};

use crate::cache::Forgotten;
use crate::layout::Meaning;
use crate::registry::Registry;
use crate::types::link::Key;
use bytes::Bytes;
use erased::ErasedStore;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Wraps an [`ObjectStore`] and answers a registry's most frequent reads from a cache.
///
/// A registry asks its storage two small questions all day: is this blob linked into this
/// repository, and how long is it? `CachedStore` answers them from memory, then from Redis if Redis
/// is configured. It asks the wrapped store only if neither tier knows. A
/// [`Layout`](crate::layout::Layout) says which paths are blobs and links. Calls with any other
/// path go straight to the wrapped store.
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
/// store.head(&path).await?; // does not ask it
/// # Ok(())
/// # }
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(example()).unwrap();
/// ```
///
/// The store to wrap may be chosen at run time, by its address for example:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use layercache::{CachedStore, Registry, StoreBackend};
/// use object_store::ObjectStore;
/// use std::sync::Arc;
///
/// struct App {
///     store: CachedStore<Arc<dyn ObjectStore>>,
///     registry: Registry<StoreBackend>,
/// }
///
/// let (store, _) = object_store::parse_url(&"memory:///".parse()?)?;
/// let store = CachedStore::builder(Arc::from(store)).build()?;
/// let app = App { registry: store.registry(), store };
/// # let _ = (app.store, app.registry);
/// # Ok(())
/// # }
/// ```
///
/// Operations for administrators:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use layercache::CachedStore;
/// use object_store::memory::InMemory;
///
/// let store = CachedStore::builder(InMemory::new()).build()?;
/// store.warm(None).await?; // before the first requests, from lists
/// store.purge().await?; // after a garbage collection that the cache did not see
/// store.clear_memory(); // this node's memory only
/// store.shutdown().await; // before the node stops, so that no other node waits for it
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
/// | content of a blob | the store; its metadata fills the cache |
/// | conditions, ranges, versions | the store, exactly |
/// | lists, and all other paths | the store |
///
/// An answer from the cache repeats an earlier answer of the store: the same metadata and
/// attributes, an empty stream and the range `0..size`, as the HTTP stores answer a `head`. Each
/// result carries a [`CacheStatus`](crate::CacheStatus) in its `extensions`, which names the tier
/// that answered. Each request may carry a [`CachePolicy`](crate::CachePolicy) in its `extensions`,
/// which says how to use the cache.
///
/// # Cost
/// [`guide::costs`](crate::guide::costs) has the round trips to Redis, the calls of the wrapped
/// store and the allocations of each read and change. A `delete_stream` takes the paths that are
/// ready, 1,000 at most, as one change. Versions and attributes of an object add allocations to its
/// answer from memory. While its call runs, a change waits for the other nodes; see
/// [`Repository::link`](crate::Repository::link).
///
/// # What is never cached
/// The cache never holds absence, errors or the content of blobs. It never holds a key whose change
/// is under way or may still happen.
///
/// # Changes
/// A change is a `put`, `copy`, `rename`, `delete` or completed multipart upload of a blob or link.
/// It removes the object's entries from all tiers *before* it touches the store, and keeps them out
/// until the store has answered. It returns when no other node can answer from before the change.
///
/// If Redis cannot be reached, a change that writes goes on, and the node tells the other nodes
/// later. A `delete`, and a `rename` away from a cached path, is refused: nothing is changed, and
/// the error [can be retried](crate::Error::is_retryable). [`ChangePolicy`](crate::ChangePolicy)
/// offers other choices.
///
/// Each change runs in a task of its own. A caller that drops the future does not stop it half way.
///
/// # Cancellation
/// If a caller drops a read, the load behind it continues, for other callers and for the tiers. The
/// node gives up a load only if no caller waits for it and the store has not answered for 10
/// seconds.
///
/// # Limits
/// [`Limits`](crate::Limits) bounds the cache's own concurrent calls of the store. Beyond the bound
/// callers wait for a permit; the node still answers at once from memory or Redis. Calls that pass
/// through belong to their callers and are not counted.
///
/// # Runtime
/// Needs a tokio runtime with timers, and with I/O if there is a Redis: `#[tokio::main]` makes such
/// a runtime, and so does `Builder::enable_all`. A store may be built before the runtime exists.
/// [`build`](CachedStoreBuilder::build) refuses a runtime that lacks a part, with
/// [`Error::Runtime`](crate::Error). So does each call that needs the part later: a `head` that
/// memory cannot answer, and every change. Hits in memory, contents, lists and other paths need no
/// more than the wrapped store does. Tokio reports a missing part with a panic only. The cache
/// catches that panic, but the program's panic hook still prints it, and `panic = "abort"` makes it
/// end the program.
///
/// # Compile time
/// The cache does not depend on `S`, so it is compiled once, in this crate. An `S` of
/// `Arc<dyn ObjectStore>` works like any other type.
///
/// # Stacking
/// `CachedStore(PrefixStore(AmazonS3))` caches below one prefix. `LimitStore(CachedStore(..))`
/// limits all callers; `CachedStore(LimitStore(..))` limits only the calls that reach the store.
/// Two caches that share a Redis must see the same objects at the same paths; otherwise give them
/// different namespaces. Several stores of one process, such as those of its tenants, can share
/// one cache: [`CachedStoreBuilder::cache`].
pub struct CachedStore<S: ObjectStore> {
    inner: Arc<S>,
    erased: ErasedStore,
}

impl<S: ObjectStore> CachedStore<S> {
    /// Wraps `inner` with a cache in memory only and the layout of docker/distribution.
    pub fn new(inner: S) -> Self {
        Self::builder(inner).build_in_memory()
    }

    /// Returns a builder that wraps `inner`.
    pub fn builder(inner: S) -> CachedStoreBuilder<S> {
        CachedStoreBuilder::new(inner)
    }

    /// Returns the wrapped store. The cache does not learn of changes that are made through it.
    /// Does no I/O.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns the typed API over the same store and the same cache. Increments two reference
    /// counts and does no I/O.
    pub fn registry(&self) -> Registry<StoreBackend> {
        Registry::over(self.erased.core.clone(), Arc::clone(&self.erased.backend))
    }

    /// Clears this node's memory. Redis keeps its entries. If several stores share the cache, this
    /// clears the memory of all of them.
    ///
    /// # Cost
    /// As [`TieredCache::clear_memory`](crate::TieredCache::clear_memory).
    pub fn clear_memory(&self) {
        self.erased.core.cache().clear_memory();
    }

    /// Removes everything from the cache: from this node's memory, from Redis, and from the memory
    /// of all nodes that share the Redis. If the store [shares its cache](CachedStoreBuilder::cache),
    /// only its own facts are removed from Redis. See
    /// [`TieredCache::purge`](crate::TieredCache::purge).
    ///
    /// # Cost
    /// As [`TieredCache::purge`](crate::TieredCache::purge).
    ///
    /// # Errors
    /// Returns an error if Redis could not be told.
    pub fn purge(&self) -> BoxFuture<'_, std::result::Result<(), crate::types::Error>> {
        self.erased.core.cache().purge()
    }

    /// Removes some repositories from the cache: from this node's memory, from Redis, and from the
    /// memory of all nodes that share the Redis. See
    /// [`TieredCache::purge_repositories`](crate::TieredCache::purge_repositories).
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
    /// As [`TieredCache::purge_repositories`](crate::TieredCache::purge_repositories).
    ///
    /// # Errors
    /// Returns an error if Redis could not be told.
    pub async fn purge_repositories(
        &self,
        which: impl Fn(&str) -> bool + Sync + Send,
    ) -> std::result::Result<Forgotten, crate::types::Error> {
        self.erased.core.cache().purge_repositories(which).await
    }

    /// Fills the tiers from a list of the store's objects below `prefix`, or of all objects if
    /// `prefix` is `None`. Used before a node serves its first requests, or after a
    /// [`purge`](Self::purge). See [`Warm`].
    pub fn warm(&self, prefix: Option<&Path>) -> Warm {
        Warm::new(self.erased.clone(), prefix.cloned())
    }

    /// Ends this node's part in the group of nodes that share the Redis, before the node stops. The
    /// other nodes then no longer wait for it. See
    /// [`TieredCache::shutdown`](crate::TieredCache::shutdown).
    ///
    /// Does nothing if the store [shares its cache](CachedStoreBuilder::cache): other stores may
    /// still need the node. Shut the shared cache down instead.
    ///
    /// # Cost
    /// As [`TieredCache::shutdown`](crate::TieredCache::shutdown).
    pub fn shutdown(&self) -> BoxFuture<'_, ()> {
        self.erased.core.cache().shutdown()
    }
}

/// Returns the keys of the facts that an object at this path carries.
fn keys(meaning: Meaning) -> Vec<Key> {
    match meaning {
        Meaning::Blob(digest) => vec![Key::Meta(digest)],
        Meaning::Link(link) => vec![Key::Link(link)],
        Meaning::RepositoryBlob(link) => vec![Key::Own(link.clone()), Key::Link(link)],
    }
}

impl<S: ObjectStore> Clone for CachedStore<S> {
    /// Returns another handle on the same store and the same cache. Increments a few reference
    /// counts.
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            erased: self.erased.clone(),
        }
    }
}

impl<S: ObjectStore> fmt::Display for CachedStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CachedStore({})", self.inner)
    }
}

impl<S: ObjectStore> fmt::Debug for CachedStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedStore")
            .field("inner", &self.inner)
            .field("erased", &self.erased)
            .finish()
    }
}

/// Written without `async_trait`, whose `async` blocks each application would compile again.
#[deny(clippy::missing_trait_methods)]
impl<S: ObjectStore> ObjectStore for CachedStore<S> {
    fn put_opts<'a, 'b, 'f>(
        &'a self,
        location: &'b Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> BoxFuture<'f, Result<PutResult>>
    where
        'a: 'f,
        'b: 'f,
    {
        self.erased.put(location, payload, opts)
    }

    fn put_multipart_opts<'a, 'b, 'f>(
        &'a self,
        location: &'b Path,
        opts: PutMultipartOptions,
    ) -> BoxFuture<'f, Result<Box<dyn MultipartUpload>>>
    where
        'a: 'f,
        'b: 'f,
    {
        self.erased.put_multipart(location, opts)
    }

    fn get_opts<'a, 'b, 'f>(
        &'a self,
        location: &'b Path,
        options: GetOptions,
    ) -> BoxFuture<'f, Result<GetResult>>
    where
        'a: 'f,
        'b: 'f,
    {
        self.erased.get(location, options)
    }

    fn get_ranges<'a, 'b, 'c, 'f>(
        &'a self,
        location: &'b Path,
        ranges: &'c [Range<u64>],
    ) -> BoxFuture<'f, Result<Vec<Bytes>>>
    where
        'a: 'f,
        'b: 'f,
        'c: 'f,
    {
        self.erased.get_ranges(location, ranges)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.erased.delete_all(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    fn list_with_delimiter<'a, 'b, 'f>(
        &'a self,
        prefix: Option<&'b Path>,
    ) -> BoxFuture<'f, Result<ListResult>>
    where
        'a: 'f,
        'b: 'f,
    {
        self.inner.list_with_delimiter(prefix)
    }

    fn copy_opts<'a, 'b, 'c, 'f>(
        &'a self,
        from: &'b Path,
        to: &'c Path,
        options: CopyOptions,
    ) -> BoxFuture<'f, Result<()>>
    where
        'a: 'f,
        'b: 'f,
        'c: 'f,
    {
        self.erased.copy(from, to, options)
    }

    fn rename_opts<'a, 'b, 'c, 'f>(
        &'a self,
        from: &'b Path,
        to: &'c Path,
        options: RenameOptions,
    ) -> BoxFuture<'f, Result<()>>
    where
        'a: 'f,
        'b: 'f,
        'c: 'f,
    {
        self.erased.rename(from, to, options)
    }
}
