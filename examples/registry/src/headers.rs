//! The headers of the registry API, and the helpers for headers of HTTP.

use axum::http::header::{IF_NONE_MATCH, LINK};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use layercache::{CacheStatus, Digest};

pub(crate) const API_VERSION: HeaderName =
    HeaderName::from_static("docker-distribution-api-version");
pub(crate) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
pub(crate) const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
pub(crate) const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
pub(crate) const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// Adds the header that names the tier that answered the access check ([RFC 9211]). An error gets
/// it too.
///
/// [RFC 9211]: https://www.rfc-editor.org/rfc/rfc9211
pub(crate) fn with_cache_status(response: impl IntoResponse, status: CacheStatus) -> Response {
    let value = match status {
        CacheStatus::Memory => "layercache; hit; detail=memory",
        CacheStatus::Redis => "layercache; hit; detail=redis",
        CacheStatus::Miss => "layercache; fwd=miss",
        _ => "layercache; fwd=bypass",
    };
    let mut response = response.into_response();
    let value = HeaderValue::from_static(value);
    response.headers_mut().insert(CACHE_STATUS, value);
    response
}

/// Returns the entity tag of the content with this digest.
pub(crate) fn e_tag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// Returns whether the client already has the content that `e_tag` names.
pub(crate) fn is_known(headers: &HeaderMap, e_tag: &str) -> bool {
    let lines = headers.get_all(IF_NONE_MATCH).iter();
    let mut tags = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','));
    tags.any(|tag| {
        let tag = tag.trim();
        tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == e_tag
    })
}

/// Returns the header that names the next page. The caller must encode `query`.
pub(crate) fn next_page(path: &str, query: &str) -> (HeaderName, String) {
    (LINK, format!("<{path}?{query}>; rel=\"next\""))
}

/// Returns the value of a header, if it is text.
pub(crate) fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}
