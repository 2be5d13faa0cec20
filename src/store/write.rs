//! Writes: how does a write reach the store between the begin and the end of a change?

use super::erased::ErasedStore;
use super::error::{failed, to_store};
use super::keys;
use crate::coherence::change::{ChangeKind, Outcome};
use crate::layout::Meaning;
use crate::types::Link;
use crate::types::link::Key;
use futures::future::BoxFuture;
use futures::{FutureExt, TryFutureExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, MultipartUpload, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, RenameOptions, Result,
};
use std::future::Future;
use std::sync::Arc;

impl ErasedStore {
    pub(super) fn put<'a>(
        &'a self,
        location: &'a Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> BoxFuture<'a, Result<PutResult>> {
        let Some(meaning) = self.meaning_of_call(location) else {
            return self.inner().put_opts(location, payload, options);
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
                let change =
                    async move { self.core.change_link(link, call).await.map_err(to_store)? };
                change.boxed()
            }
            meaning => {
                let call = async move { store.put_opts(&path, payload, options).await };
                self.change(ChangeKind::Creation, keys(meaning), call)
                    .boxed()
            }
        }
    }

    pub(super) fn put_multipart<'a>(
        &'a self,
        location: &'a Path,
        options: PutMultipartOptions,
    ) -> BoxFuture<'a, Result<Box<dyn MultipartUpload>>> {
        let meaning = self.meaning_of_call(location);
        let upload = self.inner().put_multipart_opts(location, options);
        match meaning {
            Some(meaning) => {
                let watched = upload.map_ok(move |upload| self.watch(upload, keys(meaning)));
                watched.boxed()
            }
            None => upload,
        }
    }

    pub(super) fn copy<'a>(
        &'a self,
        from: &'a Path,
        to: &'a Path,
        options: CopyOptions,
    ) -> BoxFuture<'a, Result<()>> {
        let Some(meaning) = self.meaning_of_call(to) else {
            return self.inner().copy_opts(from, to, options);
        };
        let (store, from, to) = (Arc::clone(self.inner()), from.clone(), to.clone());
        let call = async move { store.copy_opts(&from, &to, options).await };
        self.change(ChangeKind::Creation, keys(meaning), call)
            .boxed()
    }

    pub(super) fn rename<'a>(
        &'a self,
        from: &'a Path,
        to: &'a Path,
        options: RenameOptions,
    ) -> BoxFuture<'a, Result<()>> {
        let meant = |path| self.meaning(path).map(keys).unwrap_or_default();
        let written = self.meaning_of_call(to).map(keys).unwrap_or_default();
        let gone = if from == to { Vec::new() } else { meant(from) };
        let all = [meant(from), written].concat();
        if all.is_empty() {
            return self.inner().rename_opts(from, to, options);
        }
        let (store, from, to) = (Arc::clone(self.inner()), from.clone(), to.clone());
        let call = async move { store.rename_opts(&from, &to, options).await };
        // A rename removes the object from its old path.
        let kind = match gone.is_empty() {
            true => ChangeKind::Creation,
            false => ChangeKind::Removal,
        };
        let change = async move {
            self.change(kind, all, call).await?;
            self.core.verify_deleted(gone);
            Ok(())
        };
        change.boxed()
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
