//! How the body of a request is written into an upload, piece by piece.

use super::session::Session;
use crate::error::Error;
use crate::headers::text;
use crate::range;
use axum::body::{Body, BodyDataStream};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use bytes::Bytes;
use futures::StreamExt;
use sha2::{Digest as _, Sha256};
use std::ops::RangeInclusive;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// The pieces of a body. They end with an error if the client sends nothing for too long, or if the
/// registry stops.
struct Pieces {
    body: BodyDataStream,
    closing: watch::Receiver<()>,
    patience: Duration,
}

impl Pieces {
    fn of(body: Body, session: &Session) -> Self {
        Self {
            body: body.into_data_stream(),
            closing: session.closing(),
            patience: session.limits().client_timeout,
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let piece = tokio::select! {
            // A broken connection is not always reported, so the wait has a limit.
            piece = timeout(self.patience, self.body.next()) => piece,
            _ = self.closing.changed() => return Err(Error::UploadInvalid("the registry is stopping")),
        };
        let piece =
            piece.map_err(|_| Error::UploadInvalid("the client sent no data for too long"))?;
        let piece = piece.transpose();
        piece.map_err(|_| Error::UploadInvalid("the request ended too early"))
    }
}

/// Appends the body of a request. If the body ends early, the session keeps the bytes that it has
/// counted. If the client sends the last chunk a second time, nothing changes.
pub(crate) async fn receive(
    session: &mut Session,
    headers: &HeaderMap,
    body: Body,
) -> Result<(), Error> {
    let range = chunk(headers)?;
    let pieces = Pieces::of(body, session);
    if let Some(range) = &range
        && *range.start() != session.received()
    {
        let received = session.received();
        let before = session.before_last(range);
        let before = before.ok_or(Error::UploadOutOfOrder { received })?;
        return repeat(session, before, range, pieces).await;
    }
    append(session, stated(headers, range)?, pieces).await
}

async fn append(
    session: &mut Session,
    stated: Option<u64>,
    mut pieces: Pieces,
) -> Result<(), Error> {
    let end = stated.map(|length| session.received().saturating_add(length));
    let limits = session.limits();
    // If the stated length is too large, the request is refused before its body is read.
    if end.is_some_and(|end| end > limits.max_upload) {
        return Err(Error::UploadTooBig);
    }
    let mut begins = true;
    while let Some(piece) = pieces.next().await? {
        if end.is_some_and(|end| session.received() + piece.len() as u64 > end) {
            return Err(Error::UploadInvalid(
                "the chunk is longer than its stated length",
            ));
        }
        if session.received() + piece.len() as u64 > limits.max_upload {
            return Err(Error::UploadTooBig);
        }
        if begins && !piece.is_empty() {
            session.begin_chunk();
            begins = false;
        }
        session.append(&piece).await?;
    }
    if end.is_some_and(|end| session.received() != end) {
        return Err(Error::UploadInvalid(
            "the chunk is shorter than its stated length",
        ));
    }
    Ok(())
}

/// Checks that a body is the same as the last chunk.
async fn repeat(
    session: &mut Session,
    mut hash: Sha256,
    range: &RangeInclusive<u64>,
    mut pieces: Pieces,
) -> Result<(), Error> {
    let received = session.received();
    let mut left = received - range.start();
    while let Some(piece) = pieces.next().await? {
        left = left
            .checked_sub(piece.len() as u64)
            .ok_or(Error::UploadOutOfOrder { received })?;
        hash.update(&piece);
    }
    match left == 0 && session.is_all(hash) {
        true => Ok(()),
        false => Err(Error::UploadOutOfOrder { received }),
    }
}

/// Reads and drops a body that an earlier request has sent already. The caller checks the digest of
/// the whole blob afterwards.
pub(crate) async fn skip(session: &mut Session, body: Body) -> Result<(), Error> {
    let mut pieces = Pieces::of(body, session);
    let mut left = session.received();
    while let Some(piece) = pieces.next().await? {
        left = left
            .checked_sub(piece.len() as u64)
            .ok_or(Error::UploadInvalid("the upload has ended"))?;
    }
    Ok(())
}

/// Returns which bytes of the blob the body holds, if `Content-Range` says it.
fn chunk(headers: &HeaderMap) -> Result<Option<RangeInclusive<u64>>, Error> {
    let Some(range) = headers.get(CONTENT_RANGE) else {
        return Ok(None);
    };
    let range = range.to_str().ok().and_then(range::of_chunk);
    let range = range.ok_or(Error::UploadInvalid("the Content-Range cannot be parsed"))?;
    Ok(Some(range))
}

/// Returns how long the body is, if the headers say it.
fn stated(headers: &HeaderMap, range: Option<RangeInclusive<u64>>) -> Result<Option<u64>, Error> {
    let length: Option<u64> = text(headers, CONTENT_LENGTH).and_then(|length| length.parse().ok());
    let Some(range) = range else {
        return Ok(length);
    };
    let in_range = (range.end() - range.start()).saturating_add(1);
    if length.is_some_and(|length| length != in_range) {
        return Err(Error::UploadInvalid(
            "Content-Range and Content-Length differ",
        ));
    }
    Ok(Some(in_range))
}
