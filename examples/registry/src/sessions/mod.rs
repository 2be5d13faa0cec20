//! The uploads that run on this node. They end with the process. Clients then start them again.

mod receive;
mod session;

pub(crate) use receive::{receive, skip};
pub(crate) use session::Session;

use crate::error::Error;
use crate::limits::Limits;
use layercache::RepositoryName;
use object_store::ObjectStore;
use object_store::path::Path;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::{Mutex as Lock, OwnedMutexGuard, watch};
use uuid::Uuid;

/// A session, locked for one request.
pub(crate) type Guard = OwnedMutexGuard<Session>;

pub(crate) struct Sessions {
    store: Arc<dyn ObjectStore>,
    limits: Limits,
    /// A request locks a session while it holds the lock of this map. It fails if another request
    /// has locked the session, so no request waits for a session. A session is removed from the map
    /// only while its lock is held, so no request locks a removed session.
    open: Mutex<HashMap<Uuid, Arc<Lock<Session>>>>,
    /// Tells requests that wait for their client that the registry stops.
    closing: watch::Sender<()>,
}

impl Sessions {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, limits: Limits) -> Self {
        Self {
            store,
            limits,
            open: Mutex::default(),
            closing: watch::Sender::default(),
        }
    }

    fn map(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<Lock<Session>>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn open(&self, name: &RepositoryName, id: Uuid, path: Path) -> Result<Guard, Error> {
        let (store, closing) = (Arc::clone(&self.store), self.closing.subscribe());
        let session = Session::new(id, name.clone(), store, path, self.limits, closing);
        let session = Arc::new(Lock::new(session));
        let mut open = self.map();
        if open.len() >= self.limits.max_uploads {
            return Err(Error::TooManyUploads);
        }
        let guard = Arc::clone(&session).try_lock_owned();
        open.insert(id, session);
        guard.map_err(|_| Error::UploadBusy)
    }

    pub(crate) fn lock(&self, name: &RepositoryName, id: Uuid) -> Result<Guard, Error> {
        let open = self.map();
        let session = open.get(&id).ok_or(Error::UploadUnknown)?;
        let session = Arc::clone(session).try_lock_owned();
        let session = session.map_err(|_| Error::UploadBusy)?;
        match session.repository() == name {
            true => Ok(session),
            false => Err(Error::UploadUnknown),
        }
    }

    /// Calls `look` with a session. The map stays locked during the call, so no other request finds
    /// the session locked because of it.
    pub(crate) fn look<T>(
        &self,
        name: &RepositoryName,
        id: Uuid,
        look: impl FnOnce(&Session) -> T,
    ) -> Result<T, Error> {
        let open = self.map();
        let session = open.get(&id).ok_or(Error::UploadUnknown)?;
        let session = session.try_lock().map_err(|_| Error::UploadBusy)?;
        match session.repository() == name {
            true => Ok(look(&session)),
            false => Err(Error::UploadUnknown),
        }
    }

    /// Ends a session, and removes its content from the store, even if the caller is dropped.
    pub(crate) async fn discard(&self, mut session: Guard) {
        self.map().remove(&session.id());
        let task = tokio::spawn(async move { session.discard().await });
        let _ = task.await;
    }

    /// Ends the sessions that got no new data for `upload_timeout`.
    pub(crate) async fn discard_idle(&self) {
        let now = Instant::now();
        let is_idle =
            |session: &Guard| now.duration_since(session.last_used()) > self.limits.upload_timeout;
        let free = |session: &Arc<Lock<Session>>| Arc::clone(session).try_lock_owned().ok();
        let idle: Vec<_> = {
            let open = self.map();
            open.values().filter_map(free).filter(is_idle).collect()
        };
        futures::future::join_all(idle.into_iter().map(|session| self.discard(session))).await;
    }

    /// Ends all sessions, and the requests that still use one.
    pub(crate) async fn discard_all(&self) {
        self.closing.send_replace(());
        let all: Vec<_> = self.map().values().map(Arc::clone).collect();
        let discard =
            async |session: Arc<Lock<Session>>| self.discard(session.lock_owned().await).await;
        futures::future::join_all(all.into_iter().map(discard)).await;
    }
}
