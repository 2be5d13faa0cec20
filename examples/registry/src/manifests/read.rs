//! How manifests are read: `GET` and `HEAD`.

use super::MAX_SIZE;
use super::model::media_type_of;
use crate::app::App;
use crate::error::Error;
use crate::headers::{CONTENT_DIGEST, e_tag, is_known, with_cache_status};
use crate::lookup::look_up;
use crate::route::Reference;
use crate::tags;
use axum::body::Bytes;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use layercache::{Digest, Link, RepositoryName};
use object_store::ObjectStoreExt;
use sha2::{Digest as _, Sha256, Sha512};

/// Answers `GET` and `HEAD`. The server leaves out the body of the answer to `HEAD`.
pub(crate) async fn read(
    app: &App,
    name: &RepositoryName,
    reference: &Reference,
    headers: &HeaderMap,
) -> Result<Response, Error> {
    let digest = match reference {
        Reference::Digest(digest) => *digest,
        Reference::Tag(tag) => {
            let digest = tags::resolve(app, name, tag).await?;
            digest.ok_or(Error::ManifestUnknown)?
        }
    };
    let answer = look_up(app, Link::manifest(name.clone(), digest)).await?;
    let response = match answer.value {
        Some(meta) => serve(app, &digest, meta.length(), headers).await,
        None => Err(Error::ManifestUnknown),
    };
    Ok(with_cache_status(response, answer.status))
}

async fn serve(
    app: &App,
    digest: &Digest,
    length: u64,
    headers: &HeaderMap,
) -> Result<Response, Error> {
    let e_tag = e_tag(digest);
    let known = is_known(headers, &e_tag);
    let common = [(CONTENT_DIGEST, digest.to_string()), (ETAG, e_tag)];
    if known {
        return Ok((StatusCode::NOT_MODIFIED, common).into_response());
    }
    let content = content(app, digest, length).await?;
    let entity = [
        (CONTENT_TYPE, media_type_of(&content)),
        (CONTENT_LENGTH, content.len().to_string()),
    ];
    Ok((common, entity, content).into_response())
}

/// Returns the whole content of a manifest, verified by its digest.
pub(crate) async fn content(app: &App, digest: &Digest, length: u64) -> Result<Bytes, Error> {
    let result = match app.store.get(&app.paths.blob(digest)).await {
        Err(object_store::Error::NotFound { .. }) => return Err(Error::ManifestUnknown),
        result => result?,
    };
    if length.max(result.meta.size) > MAX_SIZE {
        return Err(Error::Damaged(*digest));
    }
    let content = result.bytes().await?;
    if !is_of(digest, &content) {
        return Err(Error::Damaged(*digest));
    }
    Ok(content)
}

/// Returns whether `content` has this `digest`. Returns `false` for another algorithm.
pub(super) fn is_of(digest: &Digest, content: &[u8]) -> bool {
    match digest {
        Digest::Sha256(hash) => Sha256::digest(content)[..] == hash[..],
        Digest::Sha512(hash) => Sha512::digest(content)[..] == hash[..],
        _ => false,
    }
}
