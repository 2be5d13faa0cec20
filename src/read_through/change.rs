//! How does a change surround the backend's own call? Each change runs in a task of its own, and a
//! limiter bounds how many run at a time.

use super::{Backend, ReadThrough, WritableBackend};
use crate::cache::shared::Fact;
use crate::coherence::change::{ChangeKind, Outcome};
use crate::telemetry::spans;
use crate::types::error::BoxError;
use crate::types::link::Key;
use crate::types::{Digest, Error, Link};
use std::future::Future;
use tracing::Instrument;

impl<B: Backend> ReadThrough<B> {
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
        // A caller that is dropped while it waits here has changed nothing.
        let permit = self.inner.changes.take().await;
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

impl<B: WritableBackend> ReadThrough<B> {
    pub(crate) async fn create_link(&self, link: &Link) -> Result<(), Error> {
        let core = self.clone();
        let new = link.clone();
        let call = async move {
            let created = core.backend().create_link(&new).await;
            let outcome = match outcome(core.backend(), &created) {
                Outcome::Over if created.is_ok() => Outcome::Written,
                other => other,
            };
            (created, outcome)
        };
        let created = self.change_link(link.clone(), call).await?;
        created.map_err(Error::backend)
    }

    pub(crate) async fn remove_link(&self, link: &Link) -> Result<(), Error> {
        let core = self.clone();
        let old = link.clone();
        let call = async move {
            let removed = core.backend().remove_link(&old).await;
            let outcome = outcome(core.backend(), &removed);
            (removed, outcome)
        };
        let keys = self.keys_of(link);
        let removed = self.change(ChangeKind::Removal, keys, call).await?;
        removed.map_err(Error::backend)?;
        self.verify_deleted([Key::Link(link.clone())]);
        Ok(())
    }

    pub(crate) async fn delete_blob(&self, digest: &Digest) -> Result<(), Error> {
        let core = self.clone();
        let digest = *digest;
        let call = async move {
            let deleted = core.backend().delete_blob(&digest).await;
            let outcome = outcome(core.backend(), &deleted);
            (deleted, outcome)
        };
        let keys = vec![Key::Meta(digest)];
        let deleted = self.change(ChangeKind::Removal, keys, call).await?;
        deleted.map_err(Error::backend)?;
        self.verify_deleted([Key::Meta(digest)]);
        Ok(())
    }
}

fn outcome(backend: &impl WritableBackend, result: &Result<(), BoxError>) -> Outcome {
    match result {
        Ok(()) => Outcome::Over,
        Err(error) if backend.has_changed_nothing(error) => Outcome::Nothing,
        Err(_) => Outcome::Unknown,
    }
}
