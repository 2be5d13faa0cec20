//! What an operator may ask for, where `--admin` allows it.

use crate::app::App;
use crate::error::Error;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use std::sync::Arc;

/// `POST /admin/purge` forgets all that is cached, on all nodes. For use after a garbage collection
/// of the storage, which the cache does not hear of.
pub(crate) async fn purge(
    State(app): State<Arc<App>>,
    method: Method,
) -> Result<StatusCode, Error> {
    if method != Method::POST {
        return Err(Error::Unsupported { allow: "POST" });
    }
    // In a task of its own: a client that goes away leaves no purge half done.
    let purge = tokio::spawn(async move { app.store.purge().await });
    purge
        .await
        .map_err(|_| Error::TaskFailed)?
        .map_err(Error::NotPurged)?;
    Ok(StatusCode::NO_CONTENT)
}
