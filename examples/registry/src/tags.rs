//! Reads and changes tags. A tag is a name that points at a manifest, and can be moved.

use crate::app::App;
use crate::error::Error;
use crate::headers::next_page;
use crate::parameters::Parameters;
use crate::route::Tag;
use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{AppendHeaders, IntoResponse, Response};
use futures::{StreamExt, TryStreamExt};
use layercache::{Digest, RepositoryName};
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::json;

/// How many tags are read at the same time.
const PARALLEL: usize = 16;

/// The longest link that is read, in bytes. A SHA-512 digest and a line end fit into it.
const MAX_LINK: u64 = 256;

/// Answers `GET /v2/<name>/tags/list`.
pub(crate) async fn list(
    app: &App,
    name: &RepositoryName,
    parameters: &Parameters,
) -> Result<Response, Error> {
    let limit = match parameters.n.as_deref() {
        Some(n) => n
            .parse()
            .map_err(|_| Error::QueryInvalid("n is not a number"))?,
        None => usize::MAX,
    };
    let mut tags = all(app, name).await?;
    if tags.is_empty() && !exists(app, name).await? {
        return Err(Error::NameUnknown);
    }
    if let Some(last) = &parameters.last {
        tags.retain(|tag| tag.to_string() > *last);
    }
    let more = tags.len() > limit;
    tags.truncate(limit);
    let link = tags.last().filter(|_| more).map(|last| {
        let path = format!("/v2/{name}/tags/list");
        next_page(&path, &format!("last={last}&n={limit}"))
    });
    let tags: Vec<_> = tags.iter().map(Tag::to_string).collect();
    let body = json!({ "name": name.as_str(), "tags": tags }).to_string();
    let kind = (CONTENT_TYPE, "application/json".to_owned());
    let headers: Vec<_> = link.into_iter().chain([kind]).collect();
    Ok((AppendHeaders(headers), Body::from(body)).into_response())
}

/// Returns all tags of a repository, in lexical order.
async fn all(app: &App, name: &RepositoryName) -> Result<Vec<Tag>, Error> {
    let list = app
        .store
        .list_with_delimiter(Some(&app.paths.tags(name)))
        .await?;
    let names = list
        .common_prefixes
        .iter()
        .filter_map(|path| path.filename());
    let mut tags: Vec<Tag> = names.filter_map(|name| name.parse().ok()).collect();
    tags.sort_unstable();
    Ok(tags)
}

async fn exists(app: &App, name: &RepositoryName) -> Result<bool, Error> {
    let path = app.paths.repository(name);
    Ok(app.store.list(Some(&path)).try_next().await?.is_some())
}

/// Returns the manifest that a tag points at.
pub(crate) async fn resolve(
    app: &App,
    name: &RepositoryName,
    tag: &Tag,
) -> Result<Option<Digest>, Error> {
    let link = match app.store.get(&app.paths.tag_current(name, tag)).await {
        Ok(link) if link.meta.size <= MAX_LINK => link.bytes().await?,
        Ok(_) => return Ok(None),
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let text = std::str::from_utf8(&link).ok();
    Ok(text.and_then(|text| text.trim_end().parse().ok()))
}

/// Makes a tag point at a manifest. Writes the tag's index first, as the Go registry does.
pub(crate) async fn point(
    app: &App,
    name: &RepositoryName,
    tag: &Tag,
    digest: &Digest,
) -> Result<(), Error> {
    let content = digest.to_string();
    let index = app.paths.tag_index(name, tag, digest);
    app.store.put(&index, content.clone().into()).await?;
    let current = app.paths.tag_current(name, tag);
    app.store.put(&current, content.into()).await?;
    Ok(())
}

/// Answers `DELETE /v2/<name>/manifests/<tag>`: removes the tag. The manifest stays.
pub(crate) async fn delete(app: &App, name: &RepositoryName, tag: &Tag) -> Result<Response, Error> {
    if resolve(app, name, tag).await?.is_none() {
        return Err(Error::ManifestUnknown);
    }
    remove(app, name, tag).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

/// Removes all tags that point at a manifest.
pub(crate) async fn remove_all(
    app: &App,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<(), Error> {
    let tags = futures::stream::iter(all(app, name).await?);
    let work = tags
        .map(Ok)
        .try_for_each_concurrent(PARALLEL, |tag| async move {
            if resolve(app, name, &tag).await?.as_ref() == Some(digest) {
                remove(app, name, &tag).await?;
            }
            Ok::<_, Error>(())
        });
    work.await
}

/// Removes a tag. Removes the link to its manifest first: if a later step fails, readers find no
/// tag.
async fn remove(app: &App, name: &RepositoryName, tag: &Tag) -> Result<(), Error> {
    app.delete(&app.paths.tag_current(name, tag)).await?;
    let rest = app.store.list(Some(&app.paths.tag(name, tag)));
    let rest: Vec<_> = rest.try_collect().await?;
    for object in rest {
        app.delete(&object.location).await?;
    }
    Ok(())
}
