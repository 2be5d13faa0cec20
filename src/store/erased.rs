//! [`ErasedStore`]: what does a [`CachedStore`](super::CachedStore) do that does not depend on the
//! type of the wrapped store?

use super::backend::StoreBackend;
use super::unknown_paths::UnknownPaths;
use crate::cache::storage::Storage;
use crate::layout::Meaning;
use crate::read_through::ReadThrough;
use crate::settings::CoreBuilder;
use crate::types::Error;
use object_store::ObjectStore;
use object_store::path::Path;
#[cfg(feature = "signer")]
use object_store::signer::Signer;
use std::fmt;
use std::sync::Arc;

/// A [`CachedStore`](super::CachedStore) without the type of its store.
///
/// Generic code is compiled in each application that uses it. This type is not generic, so the
/// cache is compiled once, in this crate. What an application calls of it returns a boxed future or
/// no future, because the body of an `async fn` is compiled where it is awaited.
#[derive(Clone)]
pub(crate) struct ErasedStore {
    pub(super) core: ReadThrough,
    pub(super) backend: Arc<StoreBackend>,
    pub(super) unknown_paths: Arc<UnknownPaths>,
    #[cfg(feature = "signer")]
    pub(super) signer: Option<Arc<dyn Signer>>,
}

impl ErasedStore {
    pub(super) fn build(inner: Arc<dyn ObjectStore>, core: CoreBuilder) -> Result<Self, Error> {
        let layout = core.settings.layout();
        let storage = Storage::new(&inner, Arc::clone(&layout));
        let backend = Arc::new(StoreBackend::new(inner, layout));
        let core = core.build(Arc::clone(&backend) as _, Some(&storage))?;
        Ok(Self::over(core, backend))
    }

    pub(super) fn build_in_memory(inner: Arc<dyn ObjectStore>, core: CoreBuilder) -> Self {
        let backend = Arc::new(StoreBackend::new(inner, core.settings.layout()));
        let core = core.build_in_memory(Arc::clone(&backend) as _);
        Self::over(core, backend)
    }

    pub(super) fn over(core: ReadThrough, backend: Arc<StoreBackend>) -> Self {
        Self {
            core,
            backend,
            unknown_paths: Arc::new(UnknownPaths::new()),
            #[cfg(feature = "signer")]
            signer: None,
        }
    }

    /// Returns the wrapped store.
    pub(super) fn inner(&self) -> &Arc<dyn ObjectStore> {
        self.backend.store()
    }

    pub(super) fn meaning(&self, location: &Path) -> Option<Meaning> {
        self.backend.layout().meaning(location)
    }

    /// Returns the meaning of a path that a caller has named, and counts it if it has none.
    pub(super) fn meaning_of_call(&self, location: &Path) -> Option<Meaning> {
        let meaning = self.meaning(location);
        match meaning {
            Some(_) => self.unknown_paths.known(),
            None => self.unknown_paths.count(location, self.backend.layout()),
        }
        meaning
    }
}

/// Not derived: an application compiles a derived implementation again, and with it that of every
/// part of the cache.
impl fmt::Debug for ErasedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ErasedStore")
            .field("layout", &self.backend.layout())
            .field("cache", self.core.cache())
            .finish_non_exhaustive()
    }
}
