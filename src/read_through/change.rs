//! How does a change surround the backend's own call? Each change runs in a task of its own, and a
//! limiter bounds how many run at a time.

use super::{ReadThrough, WritableBackend};
use crate::cache::shared::Fact;
use crate::coherence::change::{ChangeKind, Outcome};
use crate::telemetry::spans;
use crate::types::error::BoxError;
use crate::types::link::Key;
use crate::types::{Digest, Error, Link, runtime};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::future::Future;
use std::sync::Arc;
use tracing::Instrument;

impl ReadThrough {
    /// Surrounds `call`, which changes `keys` in the backend, with the change protocol; see
    /// [`TieredCache::change`](crate::TieredCache). Runs in a task of its own, so that a dropped
    /// caller never leaves `call` half way with its keys unfenced.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        kind: ChangeKind,
        keys: Vec<Key>,
        call: impl Future<Output = (T, Outcome)> + Send + 'static,
    ) -> Result<T, Error> {
        self.bracket(kind, keys, None, call).await
    }

    /// Surrounds `call`, which writes a link, with the change protocol. Caches the membership if
    /// the call reports that it wrote the link.
    pub(crate) async fn change_link<T: Send + 'static>(
        &self,
        link: Link,
        call: impl Future<Output = (T, Outcome)> + Send + 'static,
    ) -> Result<T, Error> {
        let (keys, written) = (self.keys_of(&link), Fact::member(link));
        self.bracket(ChangeKind::Creation, keys, Some(written), call)
            .await
    }

    /// Returns the keys of a membership. If repositories share no content, that includes the key of
    /// the repository's own copy.
    fn keys_of(&self, link: &Link) -> Vec<Key> {
        let key = Key::Link(link.clone());
        match self.backend().shares_blobs() {
            true => vec![key],
            false => vec![Key::Own(link.clone()), key],
        }
    }

    async fn bracket<T: Send + 'static>(
        &self,
        kind: ChangeKind,
        keys: Vec<Key>,
        written: Option<Fact>,
        call: impl Future<Output = (T, Outcome)> + Send + 'static,
    ) -> Result<T, Error> {
        runtime::check()?;
        // A caller that is dropped while it waits here has changed nothing.
        let permit = self.inner().changes.take().await;
        let core = self.clone();
        let span = spans::change(&keys);
        let change = async move {
            let _permit = permit;
            // The span starts when the call starts.
            let call = async { call.instrument(spans::backend("change")).await };
            let written = written.as_ref();
            core.cache().change(kind, keys, written, call).await
        };
        let change = tokio::spawn(change.instrument(span));
        change.await.unwrap_or(Err(Error::LoadLost))
    }
}

/// The changes of the typed API. Boxed here, so that an application does not compile them again.
impl ReadThrough {
    pub(crate) fn create_link(
        &self,
        backend: Arc<dyn WritableBackend>,
        link: Link,
    ) -> BoxFuture<'_, Result<(), Error>> {
        let new = link.clone();
        let call = async move {
            let created = backend.create_link(&new).await;
            let outcome = match outcome(backend.as_ref(), &created) {
                Outcome::Over if created.is_ok() => Outcome::Written,
                other => other,
            };
            (created, outcome)
        };
        let change = async move {
            let created = self.change_link(link, call).await?;
            created.map_err(Error::backend)
        };
        change.boxed()
    }

    pub(crate) fn remove_link(
        &self,
        backend: Arc<dyn WritableBackend>,
        link: Link,
    ) -> BoxFuture<'_, Result<(), Error>> {
        let keys = self.keys_of(&link);
        let old = link.clone();
        let call = async move {
            let removed = backend.remove_link(&old).await;
            let outcome = outcome(backend.as_ref(), &removed);
            (removed, outcome)
        };
        self.remove(keys, Key::Link(link), call).boxed()
    }

    pub(crate) fn delete_blob(
        &self,
        backend: Arc<dyn WritableBackend>,
        digest: Digest,
    ) -> BoxFuture<'_, Result<(), Error>> {
        let call = async move {
            let deleted = backend.delete_blob(&digest).await;
            let outcome = outcome(backend.as_ref(), &deleted);
            (deleted, outcome)
        };
        let key = Key::Meta(digest);
        self.remove(vec![key.clone()], key, call).boxed()
    }

    async fn remove(
        &self,
        keys: Vec<Key>,
        removed: Key,
        call: impl Future<Output = (Result<(), BoxError>, Outcome)> + Send + 'static,
    ) -> Result<(), Error> {
        let result = self.change(ChangeKind::Removal, keys, call).await?;
        result.map_err(Error::backend)?;
        self.verify_deleted([removed]);
        Ok(())
    }
}

fn outcome(backend: &dyn WritableBackend, result: &Result<(), BoxError>) -> Outcome {
    match result {
        Ok(()) => Outcome::Over,
        Err(error) if backend.has_changed_nothing(error) => Outcome::Nothing,
        Err(_) => Outcome::Unknown,
    }
}
