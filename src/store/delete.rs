//! Deletes: how are they batched? Each batch is one change.

use super::erased::ErasedStore;
use super::error::{failed, to_store};
use super::keys;
use crate::coherence::change::{ChangeKind, Outcome};
use futures::StreamExt;
use futures::future::join;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{ObjectStore, Result};
use std::sync::Arc;

/// Maximum number of objects per batch: as many as S3 deletes in one request.
const BATCH: usize = 1000;

impl ErasedStore {
    /// Deletes as `delete_stream` does. Takes all paths that are ready in the input as one batch.
    /// Takes the next batch when the caller has read all results of the last one. Returns one
    /// result for each input, in the order of the input.
    pub(super) fn delete_all(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .ready_chunks(BATCH)
            .then(move |batch| {
                let store = store.clone();
                async move { stream::iter(store.delete_batch(batch).await) }
            })
            .flatten()
            .boxed()
    }

    async fn delete_batch(&self, batch: Vec<Result<Path>>) -> Vec<Result<Path>> {
        let (cached, other): (Vec<Path>, Vec<Path>) = batch
            .iter()
            .flatten()
            .cloned()
            .partition(|path| self.meaning_of_call(path).is_some());
        let other = delete(Arc::clone(self.inner()), other);
        let (cached, other) = join(self.delete_cached(cached), other).await;
        let (mut cached_results, mut other_results) = (cached.into_iter(), other.into_iter());
        let outputs = batch.into_iter().map(|input| {
            let path = input?;
            let result = match self.meaning(&path) {
                Some(_) => cached_results.next(),
                None => other_results.next(),
            };
            // Each path has a result. If one were missing, its outcome would be unknown.
            result.unwrap_or_else(|| Err(unknown(&path)))
        });
        outputs.collect()
    }

    async fn delete_cached(&self, paths: Vec<Path>) -> Vec<Result<Path>> {
        if paths.is_empty() {
            return Vec::new();
        }
        let meanings = paths.iter().filter_map(|path| self.meaning(path));
        let keys: Vec<_> = meanings.flat_map(keys).collect();
        let count = paths.len();
        let call = delete(Arc::clone(self.inner()), paths);
        let call = async move {
            let results = call.await;
            let outcome = outcome(&results);
            (results, outcome)
        };
        match self.core.change(ChangeKind::Removal, keys, call).await {
            Ok(results) => {
                self.verify(results.iter().flatten());
                results
            }
            Err(error) => (0..count).map(|_| Err(to_store(error.again()))).collect(),
        }
    }
}

impl ErasedStore {
    /// Tells the verifier of deleted paths.
    fn verify<'a>(&self, paths: impl Iterator<Item = &'a Path>) {
        let meanings = paths.filter_map(|path| self.meaning(path));
        self.core.verify_deleted(meanings.flat_map(keys));
    }
}

/// Deletes from the store and returns one result for each path. If a bulk request fails as a whole,
/// a store may return fewer results.
async fn delete(store: Arc<dyn ObjectStore>, paths: Vec<Path>) -> Vec<Result<Path>> {
    if paths.is_empty() {
        return Vec::new();
    }
    let inputs = stream::iter(paths.clone()).map(Ok).boxed();
    let mut results: Vec<_> = store.delete_stream(inputs).collect().await;
    let missing = paths.get(results.len()..).unwrap_or_default();
    results.extend(missing.iter().map(|path| Err(unknown(path))));
    results
}

/// Returns what a batch has done. It is over only if every delete of the batch is.
fn outcome(results: &[Result<Path>]) -> Outcome {
    let failures = || results.iter().filter_map(|result| result.as_ref().err());
    if failures().any(|error| failed(error) == Outcome::Unknown) {
        Outcome::Unknown
    } else if failures().count() == results.len() {
        Outcome::Nothing
    } else {
        Outcome::Over
    }
}

fn unknown(path: &Path) -> object_store::Error {
    object_store::Error::Generic {
        store: "CachedStore",
        source: format!("it is not known whether {path} was deleted: its bulk request failed")
            .into(),
    }
}
