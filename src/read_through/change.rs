//! Changes: each around the backend's own call, in a task of its own, and so many at a time.

use super::{Backend, ReadThrough, WritableBackend};
use crate::coherence::change::{ChangeKind, Outcome};
use crate::error::BoxError;
use crate::link::Key;
use crate::spans;
use crate::{Digest, Error, Link};
use std::future::Future;
use tracing::Instrument;

impl<B: Backend> ReadThrough<B> {
    /// Brackets `call`, a change of `keys` in the backend; see
    /// [`TieredCache::change`](crate::TieredCache). Runs in a task of its own: a caller that goes
    /// away changes nothing of it, so `call` is never left half way with its keys free.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        kind: ChangeKind,
        keys: Vec<Key>,
        call: impl Future<Output = (T, Outcome)> + Send + 'static,
    ) -> Result<T, Error> {
        self.bracket(kind, keys, None, call).await
    }

    /// Brackets `call`, which writes a link, and remembers the membership if it did.
    pub(crate) async fn change_link<T: Send + 'static>(
        &self,
        link: Link,
        call: impl Future<Output = (T, Outcome)> + Send + 'static,
    ) -> Result<T, Error> {
        let keys = self.keys_of(&link);
        self.bracket(ChangeKind::Creation, keys, Some(link), call)
            .await
    }

    /// The keys that go with a membership: where repositories share no content, its object too.
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
        link: Option<Link>,
        call: impl Future<Output = (T, Outcome)> + Send + 'static,
    ) -> Result<T, Error> {
        // Who goes away while it waits has changed nothing.
        let turn = self.inner.changes.take().await;
        let core = self.clone();
        let span = spans::change(&keys);
        let change = async move {
            let _turn = turn;
            // Its span begins when it does.
            let call = async { call.instrument(spans::backend("change")).await };
            core.cache().change(kind, keys, link.as_ref(), call).await
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
        self.audit_deleted([Key::Link(link.clone())]);
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
        self.audit_deleted([Key::Meta(digest)]);
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
