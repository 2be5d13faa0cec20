//! Multipart uploads: which of their steps are changes? The parts pass through; the completion is a
//! change.

use super::erased::ErasedStore;
use super::{CachedStore, keys};
use crate::coherence::change::{ChangeKind, Outcome};
use crate::read_through::ReadThrough;
use crate::store::error::{failed, to_store};
use crate::types::link::Key;
use async_trait::async_trait;
use futures::FutureExt;
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    MultipartId, MultipartUpload, ObjectStore, PutMultipartOptions, PutPayload, PutResult, Result,
    UploadPart,
};
use std::fmt;
use std::sync::Arc;
use tokio::sync::Mutex;

/// An upload whose completion is a change of `keys`.
struct WatchedUpload {
    upload: Arc<Mutex<Upload>>,
    core: ReadThrough,
    keys: Vec<Key>,
}

/// An upload and its state. The lock is held while the upload is completed or aborted, but not
/// while a completion waits for a permit or for Redis. So a completion that never runs leaves the
/// upload unchanged.
#[derive(Debug)]
struct Upload {
    inner: Box<dyn MultipartUpload>,
    /// Set when a completion has succeeded. Another call of `complete` then only tells the other
    /// nodes again.
    completed: Option<PutResult>,
    is_aborted: bool,
}

impl ErasedStore {
    pub(super) fn watch(
        &self,
        upload: Box<dyn MultipartUpload>,
        keys: Vec<Key>,
    ) -> Box<dyn MultipartUpload> {
        let upload = Upload {
            inner: upload,
            completed: None,
            is_aborted: false,
        };
        Box::new(WatchedUpload {
            upload: Arc::new(Mutex::new(upload)),
            core: self.core.clone(),
            keys,
        })
    }
}

impl fmt::Debug for WatchedUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchedUpload")
            .field("upload", &self.upload)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

fn invalid(why: &'static str) -> object_store::Error {
    object_store::Error::Generic {
        store: "CachedStore",
        source: why.into(),
    }
}

impl Upload {
    async fn complete(&mut self) -> Result<PutResult> {
        if let Some(result) = &self.completed {
            return Ok(result.clone());
        }
        // A completion whose caller was dropped may get its permit after the abort.
        if self.is_aborted {
            return Err(invalid("this upload was aborted"));
        }
        let result = self.inner.complete().await?;
        self.completed = Some(result.clone());
        Ok(result)
    }
}

#[async_trait]
impl MultipartUpload for WatchedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        match self.upload.try_lock() {
            Ok(mut upload) => upload.inner.put_part(data),
            Err(_) => Box::pin(async { Err(invalid("this upload is being completed")) }),
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let upload = Arc::clone(&self.upload);
        let call = async move {
            let result = upload.lock().await.complete().await;
            let outcome = result.as_ref().map_or_else(failed, |_| Outcome::Over);
            (result, outcome)
        };
        let keys = self.keys.clone();
        let change = self.core.change(ChangeKind::Creation, keys, call).await;
        change.map_err(to_store)?
    }

    async fn abort(&mut self) -> Result<()> {
        let mut upload = self.upload.lock().await;
        if upload.completed.is_some() {
            // The upload is over, and only the object remains. `WriteMultipart` aborts uploads
            // whose completion could not be confirmed.
            return Ok(());
        }
        upload.inner.abort().await?;
        upload.is_aborted = true;
        Ok(())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: ObjectStore + MultipartStore> MultipartStore for CachedStore<S> {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        self.inner.create_multipart(path).await
    }

    async fn create_multipart_opts(
        &self,
        path: &Path,
        opts: PutMultipartOptions,
    ) -> Result<MultipartId> {
        self.inner.create_multipart_opts(path, opts).await
    }

    async fn put_part(
        &self,
        path: &Path,
        id: &MultipartId,
        part_idx: usize,
        data: PutPayload,
    ) -> Result<PartId> {
        self.inner.put_part(path, id, part_idx, data).await
    }

    async fn complete_multipart(
        &self,
        path: &Path,
        id: &MultipartId,
        parts: Vec<PartId>,
    ) -> Result<PutResult> {
        let Some(meaning) = self.erased.meaning_of_call(path) else {
            return self.inner.complete_multipart(path, id, parts).await;
        };
        let (store, path, id) = (Arc::clone(&self.inner), path.clone(), id.clone());
        let call = async move { store.complete_multipart(&path, &id, parts).await };
        self.erased
            .change(ChangeKind::Creation, keys(meaning), call.boxed())
            .await
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        self.inner.abort_multipart(path, id).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: ObjectStore + PaginatedListStore> PaginatedListStore for CachedStore<S> {
    async fn list_paginated(
        &self,
        prefix: Option<&str>,
        opts: PaginatedListOptions,
    ) -> Result<PaginatedListResult> {
        self.inner.list_paginated(prefix, opts).await
    }
}
