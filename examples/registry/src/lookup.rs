//! Answers the two questions of every read: is this blob in this repository, and how long is it?

use crate::app::App;
use crate::error::Error;
use crate::options::LookUps;
use layercache::{Answer, CacheStatus, Freshness, LayerMeta, Link};
use object_store::ObjectStoreExt;

/// Returns the metadata of the blob that a link leads to. Returns `None` if there is no such link,
/// or no such blob.
pub(crate) async fn look_up(app: &App, link: Link) -> Result<Answer<Option<LayerMeta>>, Error> {
    let freshness = match app.look_ups {
        LookUps::Cached => Freshness::Cached,
        LookUps::Verified => Freshness::Verified,
        LookUps::Plain => return uncached(app, &link).await,
    };
    let repository = app.registry.repository(link.repository).of_kind(link.kind);
    Ok(repository.stat(&link.digest, freshness).await?)
}

async fn uncached(app: &App, link: &Link) -> Result<Answer<Option<LayerMeta>>, Error> {
    let value = match link_then_blob(app, link).await {
        Ok(meta) => meta,
        Err(object_store::Error::NotFound { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let status = CacheStatus::Bypass;
    Ok(Answer { value, status })
}

async fn link_then_blob(app: &App, link: &Link) -> object_store::Result<Option<LayerMeta>> {
    let (store, digest) = (app.store.get_ref(), link.digest.to_string());
    let content = store.get(&app.paths.link(link)).await?;
    if content.meta.size != digest.len() as u64 || content.bytes().await? != digest {
        return Ok(None);
    }
    let path = app.paths.blob(&link.digest);
    let meta = store.head(&path).await?;
    Ok(LayerMeta::new(path.as_ref(), meta.size).ok())
}
