//! Writes: how does a write reach the store between the begin and the end of a change?

use super::error::{failed, to_store};
use super::{CachedStore, keys};
use crate::coherence::change::{ChangeKind, Outcome};
use crate::layout::Meaning;
use crate::types::Link;
use crate::types::link::Key;
use object_store::path::Path;
use object_store::{
    CopyOptions, MultipartUpload, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, RenameOptions, Result,
};
use std::future::Future;
use std::sync::Arc;

impl<S: ObjectStore> CachedStore<S> {
    pub(super) async fn put(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let Some(meaning) = self.meaning(location) else {
            return self.inner().put_opts(location, payload, options).await;
        };
        let (store, path) = (Arc::clone(self.inner()), location.clone());
        match meaning {
            Meaning::Link(link) if holds_digest(&payload, &link) => {
                let call = async move {
                    let result = store.put_opts(&path, payload, options).await;
                    let outcome = match result {
                        Ok(_) => Outcome::Written,
                        Err(ref error) => failed(error),
                    };
                    (result, outcome)
                };
                self.core.change_link(link, call).await.map_err(to_store)?
            }
            meaning => {
                let call = async move { store.put_opts(&path, payload, options).await };
                self.change(ChangeKind::Creation, keys(meaning), call).await
            }
        }
    }

    pub(super) async fn put_multipart(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let upload = self.inner().put_multipart_opts(location, options).await?;
        Ok(match self.meaning(location) {
            Some(meaning) => self.watch(upload, keys(meaning)),
            None => upload,
        })
    }

    pub(super) async fn copy(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let Some(meaning) = self.meaning(to) else {
            return self.inner().copy_opts(from, to, options).await;
        };
        let (store, from, to) = (Arc::clone(self.inner()), from.clone(), to.clone());
        let call = async move { store.copy_opts(&from, &to, options).await };
        self.change(ChangeKind::Creation, keys(meaning), call).await
    }

    pub(super) async fn rename(
        &self,
        from: &Path,
        to: &Path,
        options: RenameOptions,
    ) -> Result<()> {
        let meant = |path| self.meaning(path).map(keys).unwrap_or_default();
        let gone = if from == to { Vec::new() } else { meant(from) };
        let all = [meant(from), meant(to)].concat();
        if all.is_empty() {
            return self.inner().rename_opts(from, to, options).await;
        }
        let (store, from, to) = (Arc::clone(self.inner()), from.clone(), to.clone());
        let call = async move { store.rename_opts(&from, &to, options).await };
        // A rename removes the object from its old path.
        let kind = match gone.is_empty() {
            true => ChangeKind::Creation,
            false => ChangeKind::Removal,
        };
        self.change(kind, all, call).await?;
        self.core.verify_deleted(gone);
        Ok(())
    }

    /// Surrounds a call of the store with the change protocol.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        kind: ChangeKind,
        keys: Vec<Key>,
        call: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let call = async move {
            let result = call.await;
            let outcome = result.as_ref().map_or_else(failed, |_| Outcome::Over);
            (result, outcome)
        };
        self.core.change(kind, keys, call).await.map_err(to_store)?
    }
}

fn holds_digest(payload: &PutPayload, link: &Link) -> bool {
    let digest = link.digest.to_string();
    payload.content_length() == digest.len() && payload.iter().flatten().eq(digest.as_bytes())
}
