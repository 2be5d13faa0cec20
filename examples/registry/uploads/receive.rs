//! From a request's body into an upload, piece by piece.

use super::session::Session;
use crate::error::Error;
use crate::headers::text;
use crate::range;
use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use futures::StreamExt;
use tokio::time::timeout;

/// Appends a request's body. Whatever ends it early, the session has what it says it has.
pub(super) async fn receive(
    session: &mut Session,
    headers: &HeaderMap,
    body: Body,
) -> Result<(), Error> {
    let announced = announced(headers, session.received())?;
    let end = announced.map(|length| session.received().saturating_add(length));
    let limits = session.limits();
    // What says that it is too big need not come first.
    if end.is_some_and(|end| end > limits.max_upload) {
        return Err(Error::UploadTooBig);
    }
    let mut body = body.into_data_stream();
    let mut closing = session.closing();
    loop {
        let piece = tokio::select! {
            // A connection that is gone does not always say so.
            piece = timeout(limits.client_timeout, body.next()) => piece,
            _ = closing.changed() => return Err(Error::UploadInvalid("the registry stops")),
        };
        let piece = piece.map_err(|_| Error::UploadInvalid("nothing more came"))?;
        let Some(piece) = piece else { break };
        let piece = piece.map_err(|_| Error::UploadInvalid("the request was cut off"))?;
        if end.is_some_and(|end| session.received() + piece.len() as u64 > end) {
            return Err(Error::UploadInvalid("the chunk is longer than it says"));
        }
        if session.received() + piece.len() as u64 > limits.max_upload {
            return Err(Error::UploadTooBig);
        }
        session.append(&piece).await?;
    }
    if end.is_some_and(|end| session.received() != end) {
        return Err(Error::UploadInvalid("the chunk is shorter than it says"));
    }
    Ok(())
}

/// How long the body says it is, if it does. A chunk has to begin where the last one ended.
fn announced(headers: &HeaderMap, received: u64) -> Result<Option<u64>, Error> {
    let length: Option<u64> = text(headers, CONTENT_LENGTH).and_then(|length| length.parse().ok());
    let Some(range) = headers.get(CONTENT_RANGE) else {
        return Ok(length);
    };
    let range = range.to_str().ok().and_then(range::of_chunk);
    let range = range.ok_or(Error::UploadInvalid("its Content-Range cannot be read"))?;
    if *range.start() != received {
        return Err(Error::UploadOutOfOrder { received });
    }
    let in_range = (range.end() - range.start()).saturating_add(1);
    if length.is_some_and(|length| length != in_range) {
        return Err(Error::UploadInvalid(
            "Content-Range and Content-Length differ",
        ));
    }
    Ok(Some(in_range))
}
