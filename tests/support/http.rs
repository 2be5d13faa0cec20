//! A client of the registry's API, small images to push, and a registry over a folder of its own.

use super::image::{content, sha256};
use super::registry::Registry;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fmt, fs};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// The longest time that a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What no answer may contain: words of Rust's own messages and of libraries' internals.
const INTERNALS: &[&str] = &[
    ".rs",
    "panicked",
    "struct ",
    "enum ",
    "Error {",
    "Error(",
    "Some(",
    "None",
    "Os {",
    "os error",
    "unwrap",
    "object_store",
    "Generic",
    "docker/registry/v2",
];

/// A complete answer of a registry.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = &self.body[..self.body.len().min(1_000)];
        let text = String::from_utf8_lossy(start);
        write!(f, "{} {:?} {text:?}", self.status, self.headers)
    }
}

impl Answer {
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    /// Checks that the answer is this error, in the form that the specification asks for, and
    /// nothing else.
    #[track_caller]
    pub fn refused(self, status: u16, code: &str) -> Self {
        let answer = self.expect(status);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let body = answer.json();
        let errors = body["errors"].as_array().expect("a list of errors");
        assert!(!errors.is_empty(), "{body}");
        for error in errors {
            assert_eq!(error["code"], code, "{body}");
            let message = error["message"].as_str().expect("a message");
            assert!(!message.is_empty() && !is_debug_text(message), "{body}");
        }
        answer.hides(INTERNALS);
        answer
    }

    #[track_caller]
    pub fn hides(&self, secrets: &[&str]) {
        let text = format!("{:?}{}", self.headers, self.text());
        for secret in secrets {
            assert!(!text.contains(secret), "{secret} in: {text}");
        }
    }
}

/// Returns whether a text contains what Rust's `Debug` prints: `Name(…)` or `Name { … }`.
fn is_debug_text(text: &str) -> bool {
    let mut pairs = text.as_bytes().windows(2);
    text.contains(" { ") || pairs.any(|pair| pair[0].is_ascii_alphabetic() && pair[1] == b'(')
}

/// A client of one registry.
#[derive(Debug, Clone)]
pub struct Http {
    address: String,
    client: Client,
}

impl Http {
    pub fn new(registry: &Registry) -> Self {
        Self {
            address: registry.address(),
            client: Client::builder().no_proxy().build().unwrap(),
        }
    }

    /// Builds a request for [`answer`], to which the caller may add headers and a body.
    pub fn ask(&self, method: &str, path: &str) -> RequestBuilder {
        let url = format!("http://{}{path}", self.address);
        self.client.request(method.parse().unwrap(), url)
    }

    pub async fn get(&self, path: &str) -> Answer {
        answer(self.ask("GET", path)).await
    }

    pub async fn head(&self, path: &str) -> Answer {
        answer(self.ask("HEAD", path)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        answer(self.ask("DELETE", path)).await
    }

    pub async fn post(&self, path: &str) -> Answer {
        answer(self.ask("POST", path)).await
    }

    /// Opens a connection and sends these bytes: a request, or the beginning of one.
    pub async fn begin(&self, bytes: impl AsRef<[u8]>) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        stream.write_all(bytes.as_ref()).await.unwrap();
        stream
    }

    /// Sends these bytes and reads until the server closes the connection, so the request has to
    /// ask for that. Returns `None` if the server closes the connection without an answer.
    pub async fn raw(&self, bytes: impl AsRef<[u8]>) -> Option<Answer> {
        let stream = TcpStream::connect(&self.address).await.unwrap();
        let (read, mut write) = stream.into_split();
        // The server may answer and close before it has read everything.
        let sent = async { write.write_all(bytes.as_ref()).await };
        let (_, answer) = futures::future::join(sent, read_answer(read)).await;
        answer
    }

    /// Sends these bytes and closes the sending side. Returns `None` if the server closes without
    /// an answer.
    pub async fn cut_off(&self, bytes: impl AsRef<[u8]>) -> Option<Answer> {
        let mut stream = self.begin(bytes).await;
        // If the server has closed already, the shutdown fails, which does not matter.
        let _ = stream.shutdown().await;
        read_answer(stream).await
    }

    /// Begins to upload a blob and returns the path of the upload.
    pub async fn begin_upload(&self, name: &str) -> String {
        let answer = self.post(&format!("/v2/{name}/blobs/uploads/")).await;
        location(&answer.expect(202))
    }

    pub async fn patch(&self, location: &str, content: &[u8]) -> Answer {
        answer(self.ask("PATCH", location).body(content.to_vec())).await
    }

    /// Completes an upload with its last chunk.
    pub async fn finish(&self, location: &str, digest: &str, content: &[u8]) -> Answer {
        let path = format!("{location}?digest={digest}");
        answer(self.ask("PUT", &path).body(content.to_vec())).await
    }

    pub async fn try_push_blob(&self, name: &str, content: &[u8]) -> Answer {
        let path = format!("/v2/{name}/blobs/uploads/?digest={}", sha256(content));
        answer(self.ask("POST", &path).body(content.to_vec())).await
    }

    /// Pushes a blob in one request and returns its digest.
    pub async fn push_blob(&self, name: &str, content: &[u8]) -> String {
        self.try_push_blob(name, content).await.expect(201);
        sha256(content)
    }

    pub async fn put_manifest(
        &self,
        name: &str,
        reference: &str,
        content: impl AsRef<[u8]>,
    ) -> Answer {
        let path = manifest_path(name, reference);
        answer(self.ask("PUT", &path).body(content.as_ref().to_vec())).await
    }

    pub async fn push(&self, name: &str, tag: &str, image: &Image) {
        self.push_blob(name, CONFIG).await;
        self.push_blob(name, &image.layer).await;
        let answer = self.put_manifest(name, tag, &image.manifest).await;
        answer.expect(201);
    }

    /// Returns all tags of a repository.
    pub async fn tags(&self, name: &str) -> Vec<String> {
        let list = self.get(&format!("/v2/{name}/tags/list")).await.expect(200);
        serde_json::from_value(list.json()["tags"].clone()).unwrap()
    }

    /// Checks that an image can be pulled, byte for byte.
    pub async fn pulls(&self, name: &str, tag: &str, image: &Image) {
        let manifest = self.get(&manifest_path(name, tag)).await;
        assert_eq!(manifest.expect(200).body, image.manifest);
        for content in [CONFIG, &image.layer] {
            let blob = self.get(&blob(name, &sha256(content))).await;
            assert!(blob.expect(200).body == content, "another content");
        }
    }
}

/// Sends a request and reads the whole answer.
pub async fn answer(request: RequestBuilder) -> Answer {
    let response = timeout(PATIENCE, request.send()).await.expect("an answer");
    let response = response.unwrap();
    Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.bytes().await.unwrap().into(),
    }
}

/// Reads an answer up to the end of its connection.
pub async fn read_answer(mut stream: impl AsyncReadExt + Unpin) -> Option<Answer> {
    let mut bytes = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    // If the server closes while the client still sends, an error follows the answer.
    let _ = read.expect("the end of the connection");
    let end = bytes.windows(4).position(|end| end == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).expect("a head of text");
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines.map(|line| {
        let (name, value) = line.split_once(": ").expect("a header");
        let name: HeaderName = name.parse().unwrap();
        (name, HeaderValue::from_str(value).unwrap())
    });
    Some(Answer {
        status,
        headers: headers.collect(),
        body: bytes[end + 4..].to_vec(),
    })
}

pub fn location(answer: &Answer) -> String {
    answer.header("location").expect("a location").to_owned()
}

/// Returns the path of a manifest.
pub fn manifest_path(name: &str, reference: &str) -> String {
    format!("/v2/{name}/manifests/{reference}")
}

/// Returns the path of a blob.
pub fn blob(name: &str, digest: &str) -> String {
    format!("/v2/{name}/blobs/{digest}")
}

/// The configuration of every image in these tests.
pub const CONFIG: &[u8] = b"{}";

/// An image of one layer, and its manifest as it is sent.
#[derive(Debug, Clone)]
pub struct Image {
    pub layer: Vec<u8>,
    pub manifest: Vec<u8>,
}

impl Image {
    pub fn new(seed: u64) -> Self {
        let layer = content(seed, 5_000);
        let manifest = manifest(&layer).to_string().into_bytes();
        Self { layer, manifest }
    }

    /// Returns the digest of its manifest.
    pub fn digest(&self) -> String {
        sha256(&self.manifest)
    }

    pub fn layer_digest(&self) -> String {
        sha256(&self.layer)
    }
}

/// Returns a manifest of this layer, for tests to change.
pub fn manifest(layer: &[u8]) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG, CONFIG),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
    })
}

pub fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": sha256(content), "size": content.len() })
}

/// A registry over a folder of its own.
#[derive(Debug)]
pub struct Node {
    pub registry: Registry,
    pub http: Http,
    folder: TempDir,
}

impl Node {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub async fn start_with(args: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let registry = over(folder.path(), args).await;
        Self {
            http: Http::new(&registry),
            registry,
            folder,
        }
    }

    /// Starts a node that has an image already, as `a/b:latest`.
    pub async fn with_image() -> (Self, Image) {
        let (node, image) = (Self::start().await, Image::new(1));
        node.http.push("a/b", "latest", &image).await;
        (node, image)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns every object in its folder.
    pub fn stored(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        collect(self.folder.path(), &mut found);
        found
    }

    /// Returns the objects that uploads have left in its folder.
    pub fn upload_objects(&self) -> Vec<String> {
        let is_upload = |path: &String| path.contains("_uploads");
        self.stored().into_iter().filter(is_upload).collect()
    }

    /// Deletes a blob's content without telling the registry, as garbage collection does.
    pub fn collect(&self, digest: &str) {
        let hex = digest.strip_prefix("sha256:").unwrap();
        let path = format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]);
        fs::remove_file(self.folder().join(path)).unwrap();
    }
}

/// Starts a registry over a folder, which other registries may share.
pub async fn over(folder: &Path, args: &[&str]) -> Registry {
    let storage = ["--storage", folder.to_str().unwrap()];
    Registry::start(&[&storage, args].concat(), &[]).await
}

/// Collects all files. Folders are no objects: `LocalFileSystem` leaves an empty folder after a
/// multipart upload.
fn collect(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else {
            found.insert(path.to_str().unwrap().to_owned());
        }
    }
}

/// Sends a request again and again until the answer is the expected one.
///
/// # Panics
/// If that takes too long.
pub async fn until<F: Future<Output = Answer>>(
    ask: impl Fn() -> F,
    is_wanted: impl Fn(&Answer) -> bool,
) -> Answer {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask().await;
        if is_wanted(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "still {answer:?}");
        sleep(Duration::from_millis(5)).await;
    }
}
