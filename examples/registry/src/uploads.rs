//! How uploads are received: `/v2/<name>/blobs/uploads/`, in one request, in two or in chunks.

use crate::app::App;
use crate::error::Error;
use crate::headers::{CONTENT_DIGEST, UPLOAD_ID};
use crate::parameters::Parameters;
use crate::sessions::{Guard, Session, receive, skip};
use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, LOCATION, RANGE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use layercache::{Digest, Freshness, RepositoryName};
use object_store::ObjectStoreExt;
use std::sync::Arc;
use uuid::Uuid;

/// Answers `POST`: mounts a blob from another repository, receives a whole blob, or opens a
/// session.
pub(crate) async fn start(
    app: &Arc<App>,
    name: &RepositoryName,
    parameters: &Parameters,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Error> {
    if let (Some(mount), Some(from)) = (&parameters.mount, &parameters.from) {
        let (digest, from) = (mount.parse()?, from.parse()?);
        if app.repository(name).mount(&from, &digest).await?.is_some() {
            return Ok(created(name, &digest));
        }
    }
    let digest: Option<Digest> = parameters.digest.as_deref().map(str::parse).transpose()?;
    let id = Uuid::new_v4();
    let mut session = app.uploads.open(name, id, app.paths.upload(name, id))?;
    let Some(digest) = digest else {
        return Ok(accepted(StatusCode::ACCEPTED, &session));
    };
    let result = match receive(&mut session, headers, body).await {
        Ok(()) => commit(app, session, digest).await,
        Err(error) => {
            drop(session);
            Err(error)
        }
    };
    // No client knows the id of this session, so no client can continue it.
    if result.is_err()
        && let Ok(session) = app.uploads.lock(name, id)
    {
        app.uploads.discard(session).await;
    }
    result
}

/// Answers `GET`: says how many bytes were received.
pub(crate) fn status(app: &App, name: &RepositoryName, id: Uuid) -> Result<Response, Error> {
    let answer = |session: &Session| accepted(StatusCode::NO_CONTENT, session);
    app.uploads.look(name, id, answer)
}

/// Answers `PATCH`: appends a chunk to the received bytes.
pub(crate) async fn append(
    app: &App,
    name: &RepositoryName,
    id: Uuid,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Error> {
    let session = app.uploads.lock(name, id)?;
    let session = append_to(app, session, headers, body).await?;
    Ok(accepted(StatusCode::ACCEPTED, &session))
}

async fn append_to(
    app: &App,
    mut session: Guard,
    headers: &HeaderMap,
    body: Body,
) -> Result<Guard, Error> {
    match receive(&mut session, headers, body).await {
        Ok(()) => Ok(session),
        // A client may continue after its connection broke. If the store failed, a part is lost,
        // and the session ends.
        Err(error) => {
            if session.has_failed() {
                app.uploads.discard(session).await;
            }
            Err(error)
        }
    }
}

/// Answers `PUT`: receives the last chunk, if there is one, and the digest of the whole blob.
pub(crate) async fn finish(
    app: &Arc<App>,
    name: &RepositoryName,
    id: Uuid,
    parameters: &Parameters,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Error> {
    let digest = parameters.digest.as_deref().ok_or(Error::DigestMissing)?;
    let digest = digest.parse()?;
    let mut session = app.uploads.lock(name, id)?;
    if session.is_complete() {
        // All bytes are stored, but an earlier request could not turn them into a blob. The client
        // repeats that request.
        skip(&mut session, body).await?;
    } else {
        session = append_to(app, session, headers, body).await?;
    }
    commit(app, session, digest).await
}

/// Answers `DELETE`: ends the session.
pub(crate) async fn cancel(app: &App, name: &RepositoryName, id: Uuid) -> Result<Response, Error> {
    app.uploads.discard(app.uploads.lock(name, id)?).await;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Turns the received bytes into a blob of the repository. Runs in a task of its own, so that it
/// finishes even if the client disconnects.
async fn commit(app: &Arc<App>, session: Guard, digest: Digest) -> Result<Response, Error> {
    let app = Arc::clone(app);
    let task = tokio::spawn(async move { app.commit(session, &digest).await });
    task.await.unwrap_or(Err(Error::TaskFailed))
}

impl App {
    async fn commit(&self, mut session: Guard, digest: &Digest) -> Result<Response, Error> {
        if !session.is_of(digest) {
            self.uploads.discard(session).await;
            return Err(Error::DigestMismatch);
        }
        if let Err(error) = session.complete().await {
            self.uploads.discard(session).await;
            return Err(error);
        }
        // The session stays until the blob is linked. So the client can repeat the request if the
        // cache refuses the change.
        let (name, path) = (session.repository().clone(), session.path().clone());
        let blobs = self.registry.blobs();
        if blobs
            .stat(digest, Freshness::Verified)
            .await?
            .value
            .is_none()
        {
            // A rename would leave an empty folder behind on a file system, where a copy is a hard
            // link. On S3 a rename is a copy, too.
            self.store.copy(&path, &self.paths.blob(digest)).await?;
        }
        self.repository(&name).link(digest).await?;
        self.uploads.discard(session).await;
        Ok(created(&name, digest))
    }
}

fn created(name: &RepositoryName, digest: &Digest) -> Response {
    let headers = [
        (LOCATION, format!("/v2/{name}/blobs/{digest}")),
        (CONTENT_DIGEST, digest.to_string()),
        (CONTENT_LENGTH, "0".to_owned()),
    ];
    (StatusCode::CREATED, headers).into_response()
}

fn accepted(status: StatusCode, session: &Session) -> Response {
    let (name, id) = (session.repository(), session.id());
    // `0-0` also stands for no bytes at all: the header cannot express an empty range.
    let last = session.received().saturating_sub(1);
    let headers = [
        (LOCATION, format!("/v2/{name}/blobs/uploads/{id}")),
        (RANGE, format!("0-{last}")),
        (UPLOAD_ID, id.to_string()),
    ];
    (status, headers).into_response()
}
