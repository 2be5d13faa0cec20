//! The endpoint for operators, which `--admin` switches on.

use crate::app::App;
use crate::error::Error;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use std::sync::Arc;

/// Answers `POST /admin/purge`: removes all cached facts on all nodes. Operators use it after a
/// garbage collection of the storage, because the cache does not notice one.
pub(crate) async fn purge(
    State(app): State<Arc<App>>,
    method: Method,
) -> Result<StatusCode, Error> {
    if method != Method::POST {
        return Err(Error::Unsupported { allow: "POST" });
    }
    // The purge runs in a task of its own, so that it finishes even if the client disconnects.
    let purge = tokio::spawn(async move { app.store.purge().await });
    purge
        .await
        .map_err(|_| Error::TaskFailed)?
        .map_err(Error::NotPurged)?;
    Ok(StatusCode::NO_CONTENT)
}
