//! Chooses the function that answers a request.

use crate::app::App;
use crate::error::Error;
use crate::headers::API_VERSION;
use crate::parameters::Parameters;
use crate::route::{Reference, Route};
use crate::{admin, blobs, manifests, process, referrers, tags, uploads};
use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderValue, Method};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use std::sync::Arc;

/// Returns the router of all endpoints. It has the endpoint for operators only if `is_admin` is
/// set.
pub(crate) fn router(app: Arc<App>, is_admin: bool) -> Router {
    let api = Router::new()
        .route("/v2", any(base))
        .route("/v2/", any(base))
        .route("/v2/{*rest}", any(dispatch))
        .fallback(|| async { Error::NoSuchEndpoint })
        .layer(map_response(with_api_version));
    let mut router = Router::new().route("/metrics", get(metrics));
    if is_admin {
        router = router.route("/admin/purge", any(admin::purge));
    }
    router.merge(api).with_state(app)
}

async fn base(method: Method) -> Result<Response, Error> {
    match method {
        Method::GET | Method::HEAD => {
            Ok(([("content-type", "application/json")], "{}").into_response())
        }
        _ => Err(Error::Unsupported { allow: "GET, HEAD" }),
    }
}

async fn metrics(State(app): State<Arc<App>>) -> String {
    process::observe();
    app.metrics.render()
}

async fn dispatch(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Error> {
    let Path(path) = path.map_err(|_| Error::NoSuchEndpoint)?;
    let (parts, body) = request.into_parts();
    let Query(parameters) = Query::<Parameters>::try_from_uri(&parts.uri)
        .map_err(|_| Error::QueryInvalid("it cannot be parsed"))?;
    let (app, headers) = (&app, &parts.headers);

    match (path.parse()?, &parts.method) {
        (Route::Blob(name, digest), method @ (&Method::GET | &Method::HEAD)) => {
            blobs::read(app, &name, &digest, method, headers).await
        }
        (Route::Blob(name, digest), &Method::DELETE) => blobs::delete(app, &name, &digest).await,
        (Route::Blob(..), _) => unsupported("GET, HEAD, DELETE"),

        (Route::Uploads(name), &Method::POST) => {
            uploads::start(app, &name, &parameters, headers, body).await
        }
        (Route::Uploads(_), _) => unsupported("POST"),

        (Route::Upload(name, id), &Method::GET) => uploads::status(app, &name, id),
        (Route::Upload(name, id), &Method::PATCH) => {
            uploads::append(app, &name, id, headers, body).await
        }
        (Route::Upload(name, id), &Method::PUT) => {
            uploads::finish(app, &name, id, &parameters, headers, body).await
        }
        (Route::Upload(name, id), &Method::DELETE) => uploads::cancel(app, &name, id).await,
        (Route::Upload(..), _) => unsupported("GET, PATCH, PUT, DELETE"),

        (Route::Manifest(name, reference), &Method::GET | &Method::HEAD) => {
            manifests::read(app, &name, &reference, headers).await
        }
        (Route::Manifest(name, reference), &Method::PUT) => {
            manifests::write(app, &name, &reference, headers, body).await
        }
        (Route::Manifest(name, Reference::Tag(tag)), &Method::DELETE) => {
            tags::delete(app, &name, &tag).await
        }
        (Route::Manifest(name, Reference::Digest(digest)), &Method::DELETE) => {
            manifests::delete(app, &name, &digest).await
        }
        (Route::Manifest(..), _) => unsupported("GET, HEAD, PUT, DELETE"),

        (Route::Tags(name), &Method::GET) => tags::list(app, &name, &parameters).await,
        (Route::Referrers(name, digest), &Method::GET) => {
            referrers::list(app, &name, &digest, &parameters).await
        }
        (Route::Tags(_) | Route::Referrers(..), _) => unsupported("GET"),
    }
}

const fn unsupported(allow: &'static str) -> Result<Response, Error> {
    Err(Error::Unsupported { allow })
}

async fn with_api_version(mut response: Response) -> Response {
    let version = HeaderValue::from_static("registry/2.0");
    response.headers_mut().insert(API_VERSION, version);
    response
}
