//! Changes: what the tiers hold is taken away before the backend is touched, and kept away until it
//! is known to be over.

use super::{Backend, ReadThrough, WritableBackend};
use crate::link::Key;
use crate::{Digest, Error, Link};
use futures::future::join;
use std::future::Future;
use std::sync::Arc;

impl<B: Backend> ReadThrough<B> {
    /// Brackets `call`, a change in the backend, with the two ends of a change of `keys`. Runs in a
    /// task of its own: a caller that goes away changes nothing of it, so `call` is never left
    /// half way with its keys free.
    ///
    /// # Errors
    /// [`Error::ChangeRefused`] if Redis could not be told; `call` was not run then.
    /// [`Error::ChangeUnconfirmed`] if it was run, and Redis could not be told of that.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        keys: Vec<Key>,
        call: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Error> {
        self.bracket(keys, None, async move { (call.await, false) })
            .await
    }

    /// Brackets `call`, which writes a link, and remembers the membership if it did: `call` says so.
    pub(crate) async fn change_link<T: Send + 'static>(
        &self,
        link: Link,
        call: impl Future<Output = (T, bool)> + Send + 'static,
    ) -> Result<T, Error> {
        let keys = vec![Key::Link(link.clone())];
        self.bracket(keys, Some(link), call).await
    }

    async fn bracket<T: Send + 'static>(
        &self,
        keys: Vec<Key>,
        link: Option<Link>,
        call: impl Future<Output = (T, bool)> + Send + 'static,
    ) -> Result<T, Error> {
        let core = self.clone();
        let bracket = tokio::spawn(async move {
            let cache = core.cache();
            let change = cache.begin(keys, link.is_some()).await?;
            // The others are told beside the call; both have to be over before the end.
            let over = join(call, cache.announce(&change));
            let ((outcome, is_written), announced) = tokio::select! {
                over = over => over,
                never = cache.keep(&change) => match never {},
            };
            let written = link.as_ref().filter(|_| is_written);
            let ended = cache.end(change, written).await;
            if let Err(source) = announced.and(ended) {
                cache.work().changes_unconfirmed.increment(1);
                tracing::warn!(error = %source, "a change is done, but not confirmed");
                let source = Arc::new(source);
                return Err(Error::ChangeUnconfirmed { source });
            }
            cache.work().changes_done.increment(1);
            Ok(outcome)
        });
        bracket.await.unwrap_or(Err(Error::LoadLost))
    }
}

impl<B: WritableBackend> ReadThrough<B> {
    pub(crate) async fn create_link(&self, link: &Link) -> Result<(), Error> {
        let core = self.clone();
        let new = link.clone();
        let call = async move {
            let created = core.backend().create_link(&new).await;
            let linked = created.is_ok();
            (created, linked)
        };
        let created = self.change_link(link.clone(), call).await?;
        created.map_err(Error::backend)
    }

    pub(crate) async fn remove_link(&self, link: &Link) -> Result<(), Error> {
        let core = self.clone();
        let old = link.clone();
        let call = async move { core.backend().remove_link(&old).await };
        let removed = self.change(vec![Key::Link(link.clone())], call).await?;
        removed.map_err(Error::backend)
    }

    pub(crate) async fn delete_blob(&self, digest: &Digest) -> Result<(), Error> {
        let core = self.clone();
        let digest = *digest;
        let call = async move { core.backend().delete_blob(&digest).await };
        let deleted = self.change(vec![Key::Meta(digest)], call).await?;
        deleted.map_err(Error::backend)
    }
}
