//! Multipart uploads: the parts pass through, the completion is a change.

use super::{CachedStore, StoreBackend, keys};
use crate::coherence::change::{ChangeKind, Outcome};
use crate::link::Key;
use crate::read_through::ReadThrough;
use crate::store::error::{failed, to_store};
use async_trait::async_trait;
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    MultipartId, MultipartUpload, ObjectStore, PutMultipartOptions, PutPayload, PutResult, Result,
    UploadPart,
};
use std::fmt;
use std::sync::Arc;

/// An upload whose completion is a change of `keys`.
struct WatchedUpload<S: ObjectStore> {
    /// Taken while it is being completed: a caller that goes away then leaves nothing to go on with.
    upload: Option<Box<dyn MultipartUpload>>,
    core: ReadThrough<StoreBackend<S>>,
    keys: Vec<Key>,
}

impl<S: ObjectStore> CachedStore<S> {
    pub(super) fn watch(
        &self,
        upload: Box<dyn MultipartUpload>,
        keys: Vec<Key>,
    ) -> Box<dyn MultipartUpload> {
        Box::new(WatchedUpload {
            upload: Some(upload),
            core: self.core.clone(),
            keys,
        })
    }
}

impl<S: ObjectStore> fmt::Debug for WatchedUpload<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchedUpload")
            .field("upload", &self.upload)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

fn gone() -> object_store::Error {
    object_store::Error::Generic {
        store: "CachedStore",
        source: "this upload was being completed when its caller went away".into(),
    }
}

#[async_trait]
impl<S: ObjectStore> MultipartUpload for WatchedUpload<S> {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        match &mut self.upload {
            Some(upload) => upload.put_part(data),
            None => Box::pin(async { Err(gone()) }),
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let mut upload = self.upload.take().ok_or_else(gone)?;
        let call = async move {
            let result = upload.complete().await;
            let outcome = result.as_ref().map_or_else(failed, |_| Outcome::Over);
            ((result, upload), outcome)
        };
        let keys = self.keys.clone();
        let change = self.core.change(ChangeKind::Creation, keys, call).await;
        let (result, upload) = change.map_err(to_store)?;
        self.upload = Some(upload);
        result
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.as_mut().ok_or_else(gone)?.abort().await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: ObjectStore + MultipartStore> MultipartStore for CachedStore<S> {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        self.inner().create_multipart(path).await
    }

    async fn create_multipart_opts(
        &self,
        path: &Path,
        opts: PutMultipartOptions,
    ) -> Result<MultipartId> {
        self.inner().create_multipart_opts(path, opts).await
    }

    async fn put_part(
        &self,
        path: &Path,
        id: &MultipartId,
        part_idx: usize,
        data: PutPayload,
    ) -> Result<PartId> {
        self.inner().put_part(path, id, part_idx, data).await
    }

    async fn complete_multipart(
        &self,
        path: &Path,
        id: &MultipartId,
        parts: Vec<PartId>,
    ) -> Result<PutResult> {
        let Some(meaning) = self.meaning(path) else {
            return self.inner().complete_multipart(path, id, parts).await;
        };
        let (store, path, id) = (Arc::clone(self.inner()), path.clone(), id.clone());
        let call = async move { store.complete_multipart(&path, &id, parts).await };
        self.change(ChangeKind::Creation, keys(meaning), call).await
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        self.inner().abort_multipart(path, id).await
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
        self.inner().list_paginated(prefix, opts).await
    }
}
