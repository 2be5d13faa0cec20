//! How manifests are written and deleted: `PUT` and `DELETE`.

use super::MAX_SIZE;
use super::model::{Descriptor, Manifest};
use super::read::{content, is_of};
use super::subjects;
use crate::app::App;
use crate::error::Error;
use crate::headers::{CONTENT_DIGEST, SUBJECT, text};
use crate::route::Reference;
use crate::tags;
use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{AppendHeaders, IntoResponse, Response};
use futures::StreamExt;
use layercache::{Digest, Error as CacheError, Freshness, LayerMeta, RepositoryName};
use object_store::ObjectStoreExt;
use sha2::{Digest as _, Sha256};
use std::time::Duration;
use tokio::time::timeout;

/// Answers `PUT`. Writes the content first, then the link, the tag and the referrer. So each of
/// them names only objects that exist.
pub(crate) async fn write(
    app: &App,
    name: &RepositoryName,
    reference: &Reference,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Error> {
    let content = receive(body, app.limits.client_timeout).await?;
    let digest = match reference {
        Reference::Digest(digest) if is_of(digest, &content) => *digest,
        Reference::Digest(_) => return Err(Error::DigestMismatch),
        Reference::Tag(_) => Digest::Sha256(Sha256::digest(&content).into()),
    };
    let manifest = Manifest::parse(&content, text(headers, CONTENT_TYPE))?;
    verify(app, name, &manifest).await?;

    app.store
        .put(&app.paths.blob(&digest), content.into())
        .await?;
    app.repository(name).manifests().link(&digest).await?;
    if let Reference::Tag(tag) = reference {
        tags::point(app, name, tag, &digest).await?;
    }
    let mut answer = vec![
        (LOCATION, format!("/v2/{name}/manifests/{digest}")),
        (CONTENT_DIGEST, digest.to_string()),
    ];
    if let Some(subject) = &manifest.subject {
        subjects::add(app, name, &subject.digest, &digest).await?;
        answer.push((SUBJECT, subject.digest.to_string()));
    }
    Ok((StatusCode::CREATED, AppendHeaders(answer)).into_response())
}

/// Receives a whole body. The client may take up to `patience` for each piece.
async fn receive(body: Body, patience: Duration) -> Result<Vec<u8>, Error> {
    let invalid = |why: &str| Error::ManifestInvalid(why.to_owned());
    let mut content = Vec::new();
    let mut body = body.into_data_stream();
    loop {
        let chunk = timeout(patience, body.next()).await;
        let Some(chunk) = chunk.map_err(|_| invalid("the client sent no data for too long"))?
        else {
            return Ok(content);
        };
        let chunk = chunk.map_err(|_| invalid("the request ended too early"))?;
        if (content.len() + chunk.len()) as u64 > MAX_SIZE {
            return Err(Error::ManifestTooBig);
        }
        content.extend_from_slice(&chunk);
    }
}

/// Checks that the repository has all parts of a manifest, in the sizes that the manifest states.
/// Asks the storage, because a garbage collection may have deleted a blob that the cache still has.
async fn verify(app: &App, name: &RepositoryName, manifest: &Manifest) -> Result<(), Error> {
    let layers = app.repository(name);
    let manifests = layers.manifests();
    let (blobs, blob_digests) = unique(manifest.blobs());
    let (children, child_digests) = unique(manifest.children());
    let (blob_answers, child_answers) = futures::future::try_join(
        layers.stat_many(&blob_digests, Freshness::Verified),
        manifests.stat_many(&child_digests, Freshness::Verified),
    )
    .await?;
    let answers = blob_answers.into_iter().chain(child_answers);
    let metas = answers.map(|answer| answer.value);
    let found: Vec<_> = blobs.into_iter().chain(children).zip(metas).collect();
    let is_missing = |(part, meta): &(&Descriptor, Option<LayerMeta>)| {
        (meta.is_none() && !part.is_foreign()).then_some(part.digest)
    };
    let missing: Vec<_> = found.iter().filter_map(is_missing).collect();
    if !missing.is_empty() {
        return Err(Error::ManifestBlobsUnknown(missing));
    }
    for (part, meta) in found {
        if let Some(actual) = meta.map(|meta| meta.length())
            && actual != part.size
        {
            let (digest, stated) = (part.digest, part.size);
            return Err(Error::SizeInvalid {
                digest,
                stated,
                actual,
            });
        }
    }
    Ok(())
}

/// Returns each part once, and the parts' digests. A digest with two sizes makes two parts.
fn unique<'a>(parts: impl Iterator<Item = &'a Descriptor>) -> (Vec<&'a Descriptor>, Vec<Digest>) {
    let mut parts: Vec<_> = parts.collect();
    let key = |part: &&Descriptor| (part.digest, part.size, part.is_foreign());
    parts.sort_unstable_by_key(key);
    parts.dedup_by_key(|part| key(part));
    let digests = parts.iter().map(|part| part.digest).collect();
    (parts, digests)
}

/// Answers `DELETE` by digest. Removes the link, the tags that point at the manifest, and its entry
/// among the referrers. The content stays for a garbage collection.
pub(crate) async fn delete(
    app: &App,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<Response, Error> {
    let repository = app.repository(name).manifests();
    if !repository
        .contains(digest, Freshness::Verified)
        .await?
        .value
    {
        return Err(Error::ManifestUnknown);
    }
    let subject = subject(app, digest).await;
    let unconfirmed = match repository.unlink(digest).await {
        Ok(()) => None,
        // The link is gone. A repeated request would find no link and stop there, so this request
        // removes the rest.
        Err(error @ CacheError::ChangeUnconfirmed { .. }) => Some(error),
        Err(error) => return Err(error.into()),
    };
    tags::remove_all(app, name, digest).await?;
    if let Some(subject) = subject {
        subjects::remove(app, name, &subject, digest).await?;
    }
    match unconfirmed {
        Some(error) => Err(error.into()),
        None => Ok(StatusCode::ACCEPTED.into_response()),
    }
}

/// Returns the subject that a manifest names. Returns `None` if the manifest cannot be read: then
/// it can be deleted nevertheless.
async fn subject(app: &App, digest: &Digest) -> Option<Digest> {
    let content = content(app, digest, 0).await.ok()?;
    let manifest: Manifest = serde_json::from_slice(&content).ok()?;
    manifest.subject.map(|subject| subject.digest)
}
