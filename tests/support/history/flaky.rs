//! A store that is slow, and sometimes fails without saying what happened.

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::sleep;

/// Every error that this store injects contains this text.
pub const INJECTED: &str = "injected";

/// One in-memory store for all nodes. A clone only increments a reference count.
#[derive(Debug, Clone)]
pub struct Flaky {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: InMemory,
    random: Mutex<fastrand::Rng>,
    /// One in this many calls fails.
    one_in: u32,
    /// For each path, the number of changes that have failed and will still happen.
    late: Mutex<HashMap<Path, isize>>,
}

/// How a change ends.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Works,
    Fails,
    /// The change happens, and an error is returned.
    FailsAfter,
    /// An error is returned, and the change happens later.
    HappensLate(Duration),
}

impl Flaky {
    /// Makes a store. With `one_in` 0 no call fails.
    pub fn new(seed: u64, one_in: u32) -> Self {
        Self {
            inner: Arc::new(Inner {
                store: InMemory::new(),
                random: Mutex::new(fastrand::Rng::with_seed(seed)),
                one_in,
                late: Mutex::default(),
            }),
        }
    }

    /// Puts an object at once, without a delay or a fault.
    pub async fn put_now(&self, path: &Path, content: impl Into<PutPayload>) {
        let put = self.inner.store.put(path, content.into()).await;
        put.expect("memory takes all");
    }

    /// Waits until no failed change of `path` can still happen.
    pub async fn settled(&self, path: &Path) {
        while self.inner.late.lock().unwrap().contains_key(path) {
            sleep(Duration::from_millis(2)).await;
        }
    }

    fn random<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.inner.random.lock().unwrap())
    }

    /// Waits for a time that is mostly short and sometimes longer than any trust.
    async fn pause(&self) {
        let millis = self.random(|random| match random.u32(..1000) {
            0..700 => 0,
            700..930 => random.u64(1..4),
            930..990 => random.u64(5..40),
            _ => random.u64(100..800),
        });
        if millis > 0 {
            sleep(Duration::from_millis(millis)).await;
        }
    }

    fn fate(&self) -> Fate {
        let one_in = self.inner.one_in;
        self.random(|random| {
            if one_in == 0 || random.u32(..one_in) > 0 {
                return Fate::Works;
            }
            match random.u32(..3) {
                0 => Fate::Fails,
                1 => Fate::FailsAfter,
                _ => Fate::HappensLate(Duration::from_millis(random.u64(1..300))),
            }
        })
    }

    /// Makes a change of `path`, or fails to.
    async fn change<T: Send + 'static>(
        &self,
        path: &Path,
        change: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        // Some changes take longer, so that more reads and faults overlap with them.
        if self.random(|random| random.u32(..4) == 0) {
            sleep(Duration::from_millis(
                self.random(|random| random.u64(5..80)),
            ))
            .await;
        }
        self.pause().await;
        let result = match self.fate() {
            Fate::Works => change.await,
            Fate::Fails => Err(injected("nothing happened")),
            Fate::FailsAfter => {
                let _ = change.await;
                Err(injected("it happened"))
            }
            Fate::HappensLate(later) => {
                self.count_late(path, 1);
                let (store, path) = (self.clone(), path.clone());
                tokio::spawn(async move {
                    sleep(later).await;
                    let _ = change.await;
                    store.count_late(&path, -1);
                });
                Err(injected("it happens later"))
            }
        };
        self.pause().await;
        result
    }

    fn count_late(&self, path: &Path, by: isize) {
        let mut late = self.inner.late.lock().unwrap();
        *late.entry(path.clone()).or_default() += by;
        late.retain(|_, count| *count > 0);
    }
}

fn injected(what: &str) -> object_store::Error {
    object_store::Error::Generic {
        store: "Flaky",
        source: format!("{INJECTED}: {what}").into(),
    }
}

impl fmt::Display for Flaky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Flaky")
    }
}

#[async_trait]
impl ObjectStore for Flaky {
    async fn put_opts(&self, at: &Path, data: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let (inner, path) = (Arc::clone(&self.inner), at.clone());
        let put = async move { inner.store.put_opts(&path, data, opts).await };
        self.change(at, put).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.store.put_multipart_opts(at, opts).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.pause().await;
        let result = self.inner.store.get_opts(at, options).await;
        self.pause().await;
        match self.fate() {
            Fate::Works => result,
            _ => Err(injected("not read")),
        }
    }

    async fn get_ranges(&self, at: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.store.get_ranges(at, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let delete = move |path: Result<Path>| {
            let store = store.clone();
            async move {
                let path = path?;
                let (inner, gone) = (Arc::clone(&store.inner), path.clone());
                let delete = async move { inner.store.delete(&gone).await };
                store.change(&path, delete).await?;
                Ok(path)
            }
        };
        locations.map(delete).buffered(8).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.store.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let (inner, from, at) = (Arc::clone(&self.inner), from.clone(), to.clone());
        let copy = async move { inner.store.copy_opts(&from, &at, options).await };
        self.change(to, copy).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.store.rename_opts(from, to, options).await
    }
}
