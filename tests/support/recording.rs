//! A store that counts the calls that reach it.

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::signer::{Method, Signer, Url};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
    Result, UploadPart,
};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;

/// Wraps a store and counts its calls. Reads and deletes have counts of their own.
#[derive(Debug)]
pub struct Recording<S> {
    inner: Arc<S>,
    calls: Arc<AtomicUsize>,
    reads: Arc<AtomicUsize>,
    /// The number of running reads, and the greatest number so far.
    reading: Arc<AtomicUsize>,
    most_reading: Arc<AtomicUsize>,
    batches: Arc<AtomicUsize>,
    held: Arc<watch::Sender<bool>>,
    fails: Arc<AtomicBool>,
    changes: Arc<AtomicUsize>,
    changes_held: Arc<watch::Sender<Option<Moment>>>,
    at_change: Arc<OnceLock<Hook>>,
    lists: Arc<AtomicUsize>,
    lists_held: Arc<watch::Sender<Option<usize>>>,
}

/// A running read. Dropping it ends it.
struct Reading<'a>(&'a AtomicUsize);

impl<'a> Reading<'a> {
    fn begin(reading: &'a AtomicUsize, most: &AtomicUsize) -> Self {
        let now = reading.fetch_add(1, Ordering::SeqCst) + 1;
        most.fetch_max(now, Ordering::SeqCst);
        Self(reading)
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// An upload whose calls are counted, too.
#[derive(Debug)]
struct Upload {
    upload: Box<dyn MultipartUpload>,
    calls: Arc<AtomicUsize>,
    fails: Arc<AtomicBool>,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.upload.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.fails.load(Ordering::SeqCst) {
            return Err(injected_failure());
        }
        self.upload.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.upload.abort().await
    }
}

/// An action that runs before each change, on the thread that makes the change.
struct Hook(Box<dyn Fn() + Send + Sync>);

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

/// The moment at which a change is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The change has not happened yet.
    Before,
    /// The change has happened, and does not return.
    After,
}

impl<S> Clone for Recording<S> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            calls: Arc::clone(&self.calls),
            reads: Arc::clone(&self.reads),
            reading: Arc::clone(&self.reading),
            most_reading: Arc::clone(&self.most_reading),
            batches: Arc::clone(&self.batches),
            held: Arc::clone(&self.held),
            fails: Arc::clone(&self.fails),
            changes: Arc::clone(&self.changes),
            changes_held: Arc::clone(&self.changes_held),
            at_change: Arc::clone(&self.at_change),
            lists: Arc::clone(&self.lists),
            lists_held: Arc::clone(&self.lists_held),
        }
    }
}

impl<S: ObjectStore> Recording<S> {
    pub fn new(inner: S) -> Self {
        Self::over(Arc::new(inner))
    }

    fn over(inner: Arc<S>) -> Self {
        Self {
            inner,
            calls: Arc::default(),
            reads: Arc::default(),
            reading: Arc::default(),
            most_reading: Arc::default(),
            batches: Arc::default(),
            held: Arc::new(watch::Sender::new(false)),
            fails: Arc::default(),
            changes: Arc::default(),
            changes_held: Arc::new(watch::Sender::new(None)),
            at_change: Arc::default(),
            lists: Arc::default(),
            lists_held: Arc::new(watch::Sender::new(None)),
        }
    }

    /// Returns another wrapper of the same store, which counts and holds its own calls.
    pub fn apart(&self) -> Self {
        Self::over(Arc::clone(&self.inner))
    }

    /// Returns the number of calls of any kind.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Counts one call and returns the wrapped store.
    fn call(&self) -> &Arc<S> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        &self.inner
    }

    /// Returns the number of calls of `get_opts`.
    pub fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }

    /// Returns the greatest number of calls of `get_opts` that ran at the same time.
    pub fn most_reads_at_a_time(&self) -> usize {
        self.most_reading.load(Ordering::SeqCst)
    }

    /// Returns the number of calls of `delete_stream`.
    pub fn batches(&self) -> usize {
        self.batches.load(Ordering::SeqCst)
    }

    /// With `true`, reads from now on do their work and do not return. With `false`, the held reads
    /// return.
    pub fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    /// Returns the number of calls of `list` and `list_with_offset`.
    pub fn lists(&self) -> usize {
        self.lists.load(Ordering::SeqCst)
    }

    /// Holds the list call with this number, counted from 0, and all later ones: the call has read
    /// (if the store reads at once) and yields nothing. With `None`, the held ones go on.
    pub fn hold_lists(&self, from: Option<usize>) {
        self.lists_held.send_replace(from);
    }

    fn list_of(
        &self,
        objects: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let number = self.lists.fetch_add(1, Ordering::SeqCst);
        let (mut held, fails) = (self.lists_held.subscribe(), Arc::clone(&self.fails));
        let listed = async move {
            let goes_on = |held: &Option<usize>| held.is_none_or(|from| number < from);
            let _ = held.wait_for(goes_on).await;
            objects.map(move |object| match fails.load(Ordering::SeqCst) {
                true => Err(injected_failure()),
                false => object,
            })
        };
        stream::once(listed).flatten().boxed()
    }

    /// With `true`, reads, lists and completions of uploads fail from now on. With `false`, they
    /// succeed again.
    pub fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::SeqCst);
    }

    /// Returns the number of calls of `put_opts` and `delete_stream`.
    pub fn changes(&self) -> usize {
        self.changes.load(Ordering::SeqCst)
    }

    /// Holds puts and deletes at this moment from now on. With `None`, the held ones return.
    pub fn hold_changes(&self, moment: Option<Moment>) {
        self.changes_held.send_replace(moment);
    }

    /// Runs `act` before each change, on the thread that makes the change.
    pub fn at_change(&self, act: impl Fn() + Send + Sync + 'static) {
        let set = self.at_change.set(Hook(Box::new(act)));
        set.expect("no hook is set yet");
    }

    fn count_change(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        if let Some(Hook(act)) = self.at_change.get() {
            act();
        }
    }

    fn changed_when(&self, moment: Moment) -> impl Future<Output = ()> + Send + 'static {
        let mut held = self.changes_held.subscribe();
        async move {
            let _ = held.wait_for(|held| *held != Some(moment)).await;
        }
    }

    /// Returns the wrapped store, for tests that change it without the cache.
    pub fn inner(&self) -> &S {
        &self.inner
    }
}

fn injected_failure() -> Error {
    Error::Generic {
        store: "Recording",
        source: "injected failure".into(),
    }
}

impl<S: ObjectStore> fmt::Display for Recording<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recording({})", self.inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: ObjectStore> ObjectStore for Recording<S> {
    async fn put_opts(&self, at: &Path, data: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.count_change();
        self.changed_when(Moment::Before).await;
        let result = self.call().put_opts(at, data, opts).await;
        self.changed_when(Moment::After).await;
        result
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let upload = self.call().put_multipart_opts(at, opts).await?;
        let (calls, fails) = (Arc::clone(&self.calls), Arc::clone(&self.fails));
        Ok(Box::new(Upload {
            upload,
            calls,
            fails,
        }))
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let _reading = Reading::begin(&self.reading, &self.most_reading);
        let result = self.call().get_opts(at, options).await;
        let mut held = self.held.subscribe();
        let _ = held.wait_for(|held| !held).await;
        if self.fails.load(Ordering::SeqCst) {
            return Err(injected_failure());
        }
        result
    }

    async fn get_ranges(&self, at: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.call().get_ranges(at, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.batches.fetch_add(1, Ordering::SeqCst);
        self.count_change();
        let (before, after) = (
            self.changed_when(Moment::Before),
            self.changed_when(Moment::After),
        );
        let inner = Arc::clone(self.call());
        let deleted = async move {
            before.await;
            let results: Vec<_> = inner.delete_stream(locations).collect().await;
            after.await;
            stream::iter(results)
        };
        stream::once(deleted).flatten().boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.list_of(self.call().list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.list_of(self.call().list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.call().list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.call().copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.call().rename_opts(from, to, options).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: ObjectStore + MultipartStore> MultipartStore for Recording<S> {
    async fn create_multipart(&self, at: &Path) -> Result<MultipartId> {
        self.call().create_multipart(at).await
    }

    async fn create_multipart_opts(
        &self,
        at: &Path,
        opts: PutMultipartOptions,
    ) -> Result<MultipartId> {
        self.call().create_multipart_opts(at, opts).await
    }

    async fn put_part(
        &self,
        at: &Path,
        id: &MultipartId,
        index: usize,
        data: PutPayload,
    ) -> Result<PartId> {
        self.call().put_part(at, id, index, data).await
    }

    async fn complete_multipart(
        &self,
        at: &Path,
        id: &MultipartId,
        parts: Vec<PartId>,
    ) -> Result<PutResult> {
        self.call().complete_multipart(at, id, parts).await
    }

    async fn abort_multipart(&self, at: &Path, id: &MultipartId) -> Result<()> {
        self.call().abort_multipart(at, id).await
    }
}

#[async_trait]
impl<S: Signer> Signer for Recording<S> {
    async fn signed_url(&self, method: Method, path: &Path, expires_in: Duration) -> Result<Url> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.inner.signed_url(method, path, expires_in).await
    }
}
