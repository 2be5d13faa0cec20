//! Serves the part of S3 that a registry needs to read blobs and delete links. It can hold deletes
//! back.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A bucket on loopback. It accepts reads and writes without credentials.
#[derive(Debug)]
pub struct Bucket {
    port: u16,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    objects: Mutex<HashMap<String, Bytes>>,
    deletes: watch::Sender<Deletes>,
}

/// How the bucket treats deletes.
#[derive(Debug, Clone, Copy, Default)]
struct Deletes {
    are_held: bool,
    /// The number of deletes that have arrived.
    arrived: usize,
}

impl Bucket {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a free loopback port");
        let shared = Arc::new(Shared {
            objects: Mutex::default(),
            deletes: watch::Sender::default(),
        });
        let port = listener.local_addr().expect("its address").port();
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&shared));
        let serving = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("a server");
        });
        Self {
            port,
            shared,
            serving,
        }
    }

    /// Returns the environment variables that make the example registry use this bucket.
    pub fn env(&self) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT", format!("http://127.0.0.1:{}", self.port)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", "any".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "any".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    pub const STORAGE: &str = "s3://bucket";

    pub fn put(&self, key: &str, content: impl Into<Bytes>) {
        let mut objects = self.shared.objects.lock().unwrap();
        objects.insert(key.to_owned(), content.into());
    }

    pub fn remove(&self, key: &str) {
        self.shared.objects.lock().unwrap().remove(key);
    }

    /// With `true`, deletes that arrive from now on wait and delete nothing. With `false`, the
    /// waiting deletes are carried out.
    pub fn hold_deletes(&self, are_held: bool) {
        let deletes = &self.shared.deletes;
        deletes.send_modify(|deletes| deletes.are_held = are_held);
    }

    /// Waits until `count` deletes have arrived.
    pub async fn deletes(&self, count: usize) {
        let mut deletes = self.shared.deletes.subscribe();
        let arrived = deletes.wait_for(|deletes| deletes.arrived >= count);
        arrived.await.expect("a bucket");
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let path = request.uri().path();
    let key = path.strip_prefix("/bucket/").unwrap_or_default().to_owned();
    match *request.method() {
        Method::GET | Method::HEAD => {
            let found = shared.objects.lock().unwrap().get(&key).cloned();
            match found {
                Some(content) => (description(), content).into_response(),
                None => StatusCode::NOT_FOUND.into_response(),
            }
        }
        Method::PUT => {
            let content = body(request).await;
            shared.objects.lock().unwrap().insert(key, content);
            description().into_response()
        }
        // The tests send only one kind of `POST`: a delete of many objects.
        Method::POST => {
            let text = String::from_utf8(body(request).await.into()).expect("a list of keys");
            let mut deletes = shared.deletes.subscribe();
            shared.deletes.send_modify(|deletes| deletes.arrived += 1);
            let held = deletes.wait_for(|deletes| !deletes.are_held).await;
            drop(held);
            let mut result = String::from("<DeleteResult>");
            for key in keys(&text) {
                shared.objects.lock().unwrap().remove(key);
                result += &format!("<Deleted><Key>{key}</Key></Deleted>");
            }
            (result + "</DeleteResult>").into_response()
        }
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

async fn body(request: Request) -> Bytes {
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await;
    body.expect("a small body")
}

fn description() -> [(header::HeaderName, &'static str); 2] {
    [
        (header::ETAG, "\"1\""),
        (header::LAST_MODIFIED, "Tue, 24 Nov 2026 00:00:00 GMT"),
    ]
}

fn keys(text: &str) -> impl Iterator<Item = &str> {
    let after = text.split("<Key>").skip(1);
    after.filter_map(|rest| rest.split_once("</Key>").map(|(key, _)| key))
}
