//! The state that all requests share.

use crate::error::Error;
use crate::limits::Limits;
use crate::options::{LookUps, Options};
use crate::paths::Paths;
use crate::sessions::Sessions;
use crate::storage::Store;
use layercache::{Registry, Repository, RepositoryName, StoreBackend};
use metrics_exporter_prometheus::PrometheusHandle;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use std::sync::Arc;

pub(crate) struct App {
    pub(crate) store: Store,
    pub(crate) registry: Registry<StoreBackend>,
    pub(crate) look_ups: LookUps,
    pub(crate) paths: Paths,
    pub(crate) uploads: Sessions,
    pub(crate) metrics: PrometheusHandle,
    pub(crate) limits: Limits,
}

impl App {
    pub(crate) fn new(store: Store, metrics: PrometheusHandle, options: &Options) -> Self {
        let limits = options.limits;
        Self {
            look_ups: options.look_ups,
            registry: store.registry(),
            paths: Paths::default(),
            uploads: Sessions::new(Arc::new(store.clone()), limits),
            store,
            metrics,
            limits,
        }
    }

    /// Returns a repository, for its layers.
    pub(crate) fn repository(&self, name: &RepositoryName) -> Repository<StoreBackend> {
        self.registry.repository(name.clone())
    }

    /// Deletes an object. It is no error if the object does not exist.
    pub(crate) async fn delete(&self, path: &Path) -> Result<(), Error> {
        match self.store.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
