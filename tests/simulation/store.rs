//! [`SimStore`]: the backend of all machines, behind the simulated network.

use super::busy::Busy;
use super::outbox::{Emission, Outbox};
use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryFutureExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use std::fmt;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Every error that this store injects contains this text.
pub(crate) const INJECTED: &str = "injected";

/// A machine's way to the store.
#[derive(Debug, Clone)]
pub(crate) struct SimStore {
    pub(crate) store: Arc<InMemory>,
    pub(crate) outbox: Outbox,
    pub(crate) busy: Busy,
}

/// A call on its way to the store, or its answer on its way back.
pub(crate) trait Call: Send {
    /// Returns the path that the call changes, and whether there is an object afterwards.
    fn changes(&self) -> Option<(&Path, bool)>;

    /// Makes the call.
    fn execute(&mut self);

    /// Answers the caller, with the call's result or with an injected error.
    fn reply(&mut self, fails: bool);
}

struct TypedCall<T> {
    changes: Option<(Path, bool)>,
    future: Option<BoxFuture<'static, Result<T>>>,
    result: Option<Result<T>>,
    reply: Option<oneshot::Sender<Result<T>>>,
}

impl<T: Send> Call for TypedCall<T> {
    fn changes(&self) -> Option<(&Path, bool)> {
        let changes = self.changes.as_ref()?;
        Some((&changes.0, changes.1))
    }

    fn execute(&mut self) {
        if let Some(future) = self.future.take() {
            self.result = Some(future.now_or_never().expect("memory answers at once"));
        }
    }

    fn reply(&mut self, fails: bool) {
        let result = match self.result.take() {
            Some(result) if !fails => result,
            _ => Err(injected()),
        };
        if let Some(reply) = self.reply.take() {
            // The caller may be gone.
            let _ = reply.send(result);
        }
    }
}

fn injected() -> object_store::Error {
    object_store::Error::Generic {
        store: "SimStore",
        source: INJECTED.into(),
    }
}

/// Replaces the time of the real clock, which differs in each run.
fn timeless(mut meta: ObjectMeta) -> ObjectMeta {
    meta.last_modified = Default::default();
    meta
}

impl SimStore {
    async fn call<T: Send + 'static>(
        &self,
        changes: Option<(&Path, bool)>,
        call: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let _under_way = self.busy.begin();
        let (reply, answer) = oneshot::channel();
        self.outbox.emit(Emission::Call(Box::new(TypedCall {
            changes: changes.map(|(path, present)| (path.clone(), present)),
            future: Some(call.boxed()),
            result: None,
            reply: Some(reply),
        })));
        answer.await.unwrap_or_else(|_| Err(injected()))
    }
}

impl fmt::Display for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimStore")
    }
}

#[async_trait]
impl ObjectStore for SimStore {
    async fn put_opts(&self, at: &Path, data: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let (store, path) = (Arc::clone(&self.store), at.clone());
        let put = async move { store.put_opts(&path, data, opts).await };
        self.call(Some((at, true)), put).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Ok(Box::new(SimUpload {
            store: self.clone(),
            path: at.clone(),
            parts: Vec::new(),
        }))
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        let (store, path) = (Arc::clone(&self.store), at.clone());
        let get = async move {
            let mut result = store.get_opts(&path, options).await?;
            result.meta = timeless(result.meta);
            Ok(result)
        };
        self.call(None, get).await
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
                let (inner, gone) = (Arc::clone(&store.store), path.clone());
                let delete = async move { inner.delete(&gone).await };
                store.call(Some((&path, false)), delete).await?;
                Ok(path)
            }
        };
        locations.map(delete).buffered(8).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned());
        let list = async move {
            let inner = Arc::clone(&store.store);
            let list = async move { inner.list(prefix.as_ref()).try_collect::<Vec<_>>().await };
            let metas = store.call(None, list).await?;
            Ok(stream::iter(metas.into_iter().map(timeless).map(Ok)))
        };
        list.try_flatten_stream().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let (store, prefix) = (Arc::clone(&self.store), prefix.cloned());
        let list = async move {
            let mut list = store.list_with_delimiter(prefix.as_ref()).await?;
            list.objects = list.objects.into_iter().map(timeless).collect();
            Ok(list)
        };
        self.call(None, list).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let (store, from, at) = (Arc::clone(&self.store), from.clone(), to.clone());
        let copy = async move { store.copy_opts(&from, &at, options).await };
        self.call(Some((to, true)), copy).await
    }
}

/// An upload whose parts stay on the machine until it is completed.
#[derive(Debug)]
struct SimUpload {
    store: SimStore,
    path: Path,
    parts: Vec<PutPayload>,
}

#[async_trait]
impl MultipartUpload for SimUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.parts.push(data);
        async { Ok(()) }.boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let parts = self.parts.iter().flatten().cloned();
        let data = parts.collect::<PutPayload>();
        self.store
            .put_opts(&self.path, data, PutOptions::default())
            .await
    }

    async fn abort(&mut self) -> Result<()> {
        Ok(())
    }
}
