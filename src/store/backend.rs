//! How does an `object_store` serve as a [`Backend`]?

use super::error::failed;
use super::meta::describe;
use crate::coherence::change::Outcome;
use crate::layout::{Layout, Meaning};
use crate::read_through::{Backend, LinkState, Stat, WritableBackend};
use crate::types::error::BoxError;
use crate::types::{Digest, Error, LayerMeta, Link};
use async_trait::async_trait;
use object_store::path::Path;
use object_store::{GetOptions, ObjectStore, ObjectStoreExt};
use std::sync::Arc;

/// Answers a [`Backend`]'s questions from an `object_store`, whose paths a layout interprets.
///
/// ```
/// use layercache::{CachedStore, Repository, StoreBackend};
/// use object_store::memory::InMemory;
///
/// // A type that holds a repository has to name its backend.
/// struct App {
///     repository: Repository<StoreBackend>,
/// }
///
/// let store = CachedStore::new(InMemory::new());
/// let app = App { repository: store.registry().repository("library/alpine".parse()?) };
/// # Ok::<(), layercache::RepositoryNameError>(())
/// ```
#[derive(Debug)]
pub struct StoreBackend {
    store: Arc<dyn ObjectStore>,
    layout: Arc<dyn Layout>,
    shares_blobs: bool,
}

impl StoreBackend {
    /// Creates the backend of a store whose paths have this layout, for a
    /// [`Registry`](crate::Registry) whose cache is not a [`CachedStore`](crate::CachedStore)'s.
    ///
    /// ```
    /// use layercache::layout::OciImages;
    /// use layercache::{Backend, StoreBackend};
    /// use object_store::memory::InMemory;
    /// use std::sync::Arc;
    ///
    /// let backend = StoreBackend::new(Arc::new(InMemory::new()), Arc::new(OciImages::default()));
    /// assert!(!backend.shares_blobs());
    /// ```
    pub fn new(store: Arc<dyn ObjectStore>, layout: Arc<dyn Layout>) -> Self {
        let any = Digest::Sha256([0; 32]);
        let shares_blobs = layout.blob_path(&any).is_some();
        Self {
            store,
            layout,
            shares_blobs,
        }
    }

    pub(super) const fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    pub(super) fn layout(&self) -> &dyn Layout {
        self.layout.as_ref()
    }

    fn link_path(&self, link: &Link) -> Result<Path, BoxError> {
        let path = self.layout.link_path(link);
        path.ok_or_else(|| no_path(format!("links of kind {:?}", link.kind)))
    }

    fn blob_path(&self, digest: &Digest) -> Result<Path, BoxError> {
        let path = self.layout.blob_path(digest);
        path.ok_or_else(|| no_path("a blob that is in no repository".to_owned()))
    }

    async fn head(&self, path: &Path) -> Result<Option<LayerMeta>, BoxError> {
        let options = GetOptions::new().with_head(true);
        match self.store.get_opts(path, options).await {
            Ok(result) => describe(path, &result.meta, &result.attributes).map(Some),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads a link. It is a membership only if its content is its own digest.
    async fn read_link(&self, path: &Path, digest: &Digest) -> Result<LinkState, BoxError> {
        let result = match self.store.get(path).await {
            Ok(result) => result,
            Err(object_store::Error::NotFound { .. }) => return Ok(LinkState::Absent),
            Err(error) => return Err(error.into()),
        };
        if result.meta.size != digest.text_len() as u64 {
            return Ok(LinkState::Broken);
        }
        let meta = describe(path, &result.meta, &result.attributes)?;
        let content = result.bytes().await?;
        if content != digest.to_string() {
            return Ok(LinkState::Broken);
        }
        Ok(LinkState::Linked(Some(meta)))
    }
}

fn no_path(what: String) -> BoxError {
    Box::new(Error::NoPath { what })
}

#[async_trait]
impl Backend for StoreBackend {
    async fn link_state(&self, link: &Link) -> Result<LinkState, BoxError> {
        let path = self.link_path(link)?;
        if !self.shares_blobs {
            return Ok(match self.head(&path).await? {
                Some(meta) => LinkState::Linked(Some(meta)),
                None => LinkState::Absent,
            });
        }
        self.read_link(&path, &link.digest).await
    }

    async fn describe(&self, digest: &Digest) -> Result<Option<LayerMeta>, BoxError> {
        self.head(&self.blob_path(digest)?).await
    }

    async fn stat(&self, link: &Link) -> Stat {
        if self.shares_blobs {
            let (link, meta) =
                futures::future::join(self.link_state(link), self.describe(&link.digest)).await;
            return Stat { link, meta };
        }
        let link = self.link_state(link).await;
        let meta = match &link {
            Ok(LinkState::Linked(object)) => object.clone(),
            _ => None,
        };
        Stat {
            link,
            meta: Ok(meta),
        }
    }

    fn shares_blobs(&self) -> bool {
        self.shares_blobs
    }
}

#[async_trait]
impl WritableBackend for StoreBackend {
    async fn create_link(&self, link: &Link) -> Result<(), BoxError> {
        let path = self.link_path(link)?;
        if !matches!(self.layout.meaning(&path), Some(Meaning::Link(_))) {
            return Err(no_path(
                "a link: here the blob's own presence is the membership".to_owned(),
            ));
        }
        self.store
            .put(&path, link.digest.to_string().into())
            .await?;
        Ok(())
    }

    async fn remove_link(&self, link: &Link) -> Result<(), BoxError> {
        delete(self.store.as_ref(), self.link_path(link)?).await
    }

    async fn delete_blob(&self, digest: &Digest) -> Result<(), BoxError> {
        delete(self.store.as_ref(), self.blob_path(digest)?).await
    }

    fn has_changed_nothing(&self, error: &BoxError) -> bool {
        match error.downcast_ref::<object_store::Error>() {
            Some(error) => failed(error) == Outcome::Nothing,
            // The call was refused before the store was asked.
            None => matches!(error.downcast_ref(), Some(Error::NoPath { .. })),
        }
    }
}

async fn delete(store: &dyn ObjectStore, path: Path) -> Result<(), BoxError> {
    match store.delete(&path).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
