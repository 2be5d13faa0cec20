//! Serves blobs: `HEAD`, `GET` and `DELETE` of `/v2/<name>/blobs/<digest>`.

use crate::app::App;
use crate::error::Error;
use crate::headers::{CONTENT_DIGEST, e_tag, is_known, text, with_cache_status};
use crate::lookup::look_up;
use crate::range;
use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_RANGE,
    RANGE,
};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use layercache::{Digest, Freshness, Link, RepositoryName};
use object_store::{GetOptions, ObjectStore};
use std::ops::Range;

pub(crate) async fn read(
    app: &App,
    name: &RepositoryName,
    digest: &Digest,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, Error> {
    // The access check: the answer says nothing about a blob that is not in this repository.
    let answer = look_up(app, Link::layer(name.clone(), *digest)).await?;
    let response = match answer.value {
        Some(meta) => serve(app, digest, meta.length(), method, headers).await,
        None => Err(Error::BlobUnknown(*digest)),
    };
    Ok(with_cache_status(response, answer.status))
}

async fn serve(
    app: &App,
    digest: &Digest,
    length: u64,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, Error> {
    let e_tag = e_tag(digest);
    let common = [
        (CONTENT_DIGEST, digest.to_string()),
        (CACHE_CONTROL, "max-age=31536000".to_owned()),
        (ETAG, e_tag.clone()),
    ];
    if is_known(headers, &e_tag) {
        return Ok((StatusCode::NOT_MODIFIED, common).into_response());
    }
    let range = match text(headers, RANGE) {
        Some(header) if method == Method::GET && applies(headers, &e_tag) => {
            range::requested(header, length)?
        }
        _ => None,
    };
    let body = match (method, length) {
        (&Method::HEAD, _) | (_, 0) => Body::empty(),
        _ => content(app, digest, range.clone()).await?,
    };
    let sent = range
        .as_ref()
        .map_or(length, |range| range.end - range.start);
    let entity = [
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (CONTENT_LENGTH, sent.to_string()),
        (ACCEPT_RANGES, "bytes".to_owned()),
    ];
    Ok(match range {
        Some(Range { start, end }) => {
            let range = format!("bytes {start}-{}/{length}", end - 1);
            let range = [(CONTENT_RANGE, range)];
            (StatusCode::PARTIAL_CONTENT, common, entity, range, body).into_response()
        }
        None => (common, entity, body).into_response(),
    })
}

/// Returns whether the range applies. With `If-Range` it applies only if the client has the same
/// content.
fn applies(headers: &HeaderMap, e_tag: &str) -> bool {
    !headers.contains_key(IF_RANGE) || text(headers, IF_RANGE) == Some(e_tag)
}

async fn content(app: &App, digest: &Digest, range: Option<Range<u64>>) -> Result<Body, Error> {
    let options = GetOptions::new().with_range(range);
    match app.store.get_opts(&app.paths.blob(digest), options).await {
        Ok(result) => Ok(Body::from_stream(result.into_stream())),
        // A garbage collection has deleted the blob without the cache. The store has just removed
        // the blob from the cache.
        Err(object_store::Error::NotFound { .. }) => Err(Error::BlobUnknown(*digest)),
        Err(error) => Err(error.into()),
    }
}

/// Removes the membership. The content stays for a garbage collection, as in the Go registry.
pub(crate) async fn delete(
    app: &App,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<Response, Error> {
    let repository = app.repository(name);
    if !repository
        .contains(digest, Freshness::Verified)
        .await?
        .value
    {
        return Err(Error::BlobUnknown(*digest));
    }
    repository.unlink(digest).await?;
    Ok((StatusCode::ACCEPTED, [(CONTENT_LENGTH, "0")]).into_response())
}
