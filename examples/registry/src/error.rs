//! [`Error`]: how a request can fail, with the codes of the distribution specification.

use axum::body::Body;
use axum::http::header::{ALLOW, CONTENT_RANGE, CONTENT_TYPE, RANGE, RETRY_AFTER};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use layercache::{Digest, DigestError, RepositoryNameError};
use serde_json::{Value, json};

/// Why a request was refused or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error(transparent)]
    NameInvalid(#[from] RepositoryNameError),
    #[error("repository name not known to registry")]
    NameUnknown,
    #[error("invalid tag")]
    TagInvalid,
    #[error(transparent)]
    DigestInvalid(#[from] DigestError),
    #[error("a digest is missing")]
    DigestMissing,
    #[error("provided digest did not match uploaded content")]
    DigestMismatch,
    #[error("blob unknown to registry")]
    BlobUnknown(Digest),
    #[error("range not satisfiable")]
    RangeUnsatisfiable { length: u64 },
    #[error("blob upload unknown to registry")]
    UploadUnknown,
    #[error("blob upload invalid: {0}")]
    UploadInvalid(&'static str),
    #[error("blob upload invalid: another request uses this upload")]
    UploadBusy,
    #[error("blob upload invalid: the chunk does not continue the received bytes")]
    UploadOutOfOrder { received: u64 },
    #[error("the blob is too large")]
    UploadTooBig,
    #[error("too many uploads")]
    TooManyUploads,
    #[error("manifest unknown to registry")]
    ManifestUnknown,
    #[error("manifest invalid: {0}")]
    ManifestInvalid(String),
    #[error("manifest too large")]
    ManifestTooBig,
    #[error("manifest blob unknown to registry")]
    ManifestBlobsUnknown(Vec<Digest>),
    #[error("{digest} has {actual} bytes, but the manifest says {stated}")]
    SizeInvalid {
        digest: Digest,
        stated: u64,
        actual: u64,
    },
    #[error("invalid query: {0}")]
    QueryInvalid(&'static str),
    #[error("no such endpoint")]
    NoSuchEndpoint,
    #[error("the operation is unsupported")]
    Unsupported { allow: &'static str },
    #[error("the cache was not purged: {0}")]
    NotPurged(#[source] layercache::Error),
    #[error(transparent)]
    Cache(#[from] layercache::Error),
    #[error(transparent)]
    Store(#[from] object_store::Error),
    #[error(transparent)]
    Write(#[from] std::io::Error),
    #[error("the stored content is damaged: {0}")]
    Damaged(Digest),
    #[error("the task of the request has failed")]
    TaskFailed,
}

impl Error {
    fn status(&self) -> StatusCode {
        match self {
            Self::NameUnknown
            | Self::BlobUnknown(_)
            | Self::UploadUnknown
            | Self::ManifestUnknown
            | Self::ManifestBlobsUnknown(_)
            | Self::NoSuchEndpoint => StatusCode::NOT_FOUND,
            Self::NameInvalid(_)
            | Self::TagInvalid
            | Self::DigestInvalid(_)
            | Self::DigestMissing
            | Self::DigestMismatch
            | Self::UploadInvalid(_)
            | Self::ManifestInvalid(_)
            | Self::SizeInvalid { .. }
            | Self::QueryInvalid(_) => StatusCode::BAD_REQUEST,
            Self::Unsupported { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::UploadBusy => StatusCode::CONFLICT,
            Self::ManifestTooBig | Self::UploadTooBig => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RangeUnsatisfiable { .. } | Self::UploadOutOfOrder { .. } => {
                StatusCode::RANGE_NOT_SATISFIABLE
            }
            Self::TooManyUploads => StatusCode::TOO_MANY_REQUESTS,
            Self::NotPurged(_) => StatusCode::SERVICE_UNAVAILABLE,
            _ if self.is_retryable() => StatusCode::SERVICE_UNAVAILABLE,
            Self::Cache(_)
            | Self::Store(_)
            | Self::Write(_)
            | Self::Damaged(_)
            | Self::TaskFailed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::NameInvalid(_) => "NAME_INVALID",
            Self::NameUnknown | Self::NoSuchEndpoint => "NAME_UNKNOWN",
            Self::DigestInvalid(_) | Self::DigestMissing | Self::DigestMismatch => "DIGEST_INVALID",
            Self::BlobUnknown(_) => "BLOB_UNKNOWN",
            Self::RangeUnsatisfiable { .. } => "RANGE_INVALID",
            Self::UploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::UploadInvalid(_) | Self::UploadBusy | Self::UploadOutOfOrder { .. } => {
                "BLOB_UPLOAD_INVALID"
            }
            Self::TooManyUploads => "TOOMANYREQUESTS",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::ManifestInvalid(_) | Self::TagInvalid => "MANIFEST_INVALID",
            Self::ManifestBlobsUnknown(_) => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestTooBig | Self::UploadTooBig | Self::SizeInvalid { .. } => "SIZE_INVALID",
            Self::QueryInvalid(_) | Self::Unsupported { .. } => "UNSUPPORTED",
            Self::NotPurged(_) => "UNAVAILABLE",
            _ if self.is_retryable() => "UNAVAILABLE",
            Self::Cache(_)
            | Self::Store(_)
            | Self::Write(_)
            | Self::Damaged(_)
            | Self::TaskFailed => "UNKNOWN",
        }
    }

    /// Returns whether the client should repeat the request. The cache refused a change, or could
    /// not confirm it, because it could not reach Redis.
    fn is_retryable(&self) -> bool {
        let error = match self {
            Self::Cache(error) => Some(error),
            Self::Store(error) => layercache::Error::from_store(error),
            _ => None,
        };
        error.is_some_and(layercache::Error::is_retryable)
    }

    fn header(&self) -> Option<(HeaderName, String)> {
        match self {
            Self::RangeUnsatisfiable { length } => {
                Some((CONTENT_RANGE, format!("bytes */{length}")))
            }
            Self::UploadOutOfOrder { received } => {
                Some((RANGE, format!("0-{}", received.saturating_sub(1))))
            }
            Self::Unsupported { allow } => Some((ALLOW, (*allow).to_owned())),
            Self::TooManyUploads => Some((RETRY_AFTER, "10".to_owned())),
            Self::NotPurged(_) => Some((RETRY_AFTER, "1".to_owned())),
            _ if self.is_retryable() => Some((RETRY_AFTER, "1".to_owned())),
            _ => None,
        }
    }

    fn body(&self) -> Value {
        let code = self.code();
        // The log has the details of an error in the server. The client does not get them.
        let message = match (self, code) {
            (_, "UNKNOWN") => "unknown error".to_owned(),
            (Self::NotPurged(_), _) => {
                "only this node has removed its cached facts; it could not tell the other nodes; try again".to_owned()
            }
            (_, "UNAVAILABLE") => {
                "this node could not tell the other nodes of the change; try again".to_owned()
            }
            _ => self.to_string(),
        };
        let error = |detail| json!({ "code": code, "message": message, "detail": detail });
        let errors = match self {
            Self::ManifestBlobsUnknown(digests) => {
                let digests = digests.iter();
                digests
                    .map(|digest| error(json!({ "digest": digest.to_string() })))
                    .collect()
            }
            Self::BlobUnknown(digest) => vec![error(json!({ "digest": digest.to_string() }))],
            _ => vec![error(Value::Null)],
        };
        json!({ "errors": errors })
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = self.status();
        if status.is_server_error() {
            tracing::warn!(error = %self, "a request has failed");
        }
        let mut response = Response::new(Body::from(self.body().to_string()));
        *response.status_mut() = status;
        let json = (CONTENT_TYPE, "application/json".to_owned());
        for (name, value) in [Some(json), self.header()].into_iter().flatten() {
            if let Ok(value) = value.try_into() {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}
