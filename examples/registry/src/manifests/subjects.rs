//! Which manifests name another manifest as their subject: the record of it in the storage.

use crate::app::App;
use crate::error::Error;
use crate::paths::digest_of_link;
use futures::TryStreamExt;
use layercache::{Digest, RepositoryName};
use object_store::{ObjectStore, ObjectStoreExt};

/// Returns the digests of all manifests that name `subject`, in order.
pub(crate) async fn referrers(
    app: &App,
    name: &RepositoryName,
    subject: &Digest,
) -> Result<Vec<Digest>, Error> {
    let links = app.store.list(Some(&app.paths.referrers(name, subject)));
    let links: Vec<_> = links.try_collect().await?;
    let digests = links
        .iter()
        .filter_map(|link| digest_of_link(&link.location));
    let mut digests: Vec<_> = digests.collect();
    digests.sort_unstable();
    Ok(digests)
}

/// Records that `manifest` names `subject`.
pub(super) async fn add(
    app: &App,
    name: &RepositoryName,
    subject: &Digest,
    manifest: &Digest,
) -> Result<(), Error> {
    let path = app.paths.referrer(name, subject, manifest);
    app.store.put(&path, manifest.to_string().into()).await?;
    Ok(())
}

/// Removes the record that `manifest` names `subject`.
pub(super) async fn remove(
    app: &App,
    name: &RepositoryName,
    subject: &Digest,
    manifest: &Digest,
) -> Result<(), Error> {
    app.delete(&app.paths.referrer(name, subject, manifest))
        .await
}
