//! Tests the limits for clients: in size, number and time. A client that passes a limit is refused,
//! and holds no resource for ever.

use test_support as support;

use std::time::{Duration, Instant};
use support::guarded::head;
use support::http::{CONFIG, Image, Node, answer, blob, read_answer, until};
use support::image::{content, sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// How long the registries in these tests wait for a client.
const CLIENT_TIMEOUT: Duration = Duration::from_millis(500);

/// The longest time that a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// More than the registry keeps of a blob in memory, so the blob is stored in parts.
const LARGE: usize = 20 << 20;

async fn with_short_timeout() -> Node {
    Node::start_with(&["--client-timeout", "500ms"]).await
}

/// Returns an incomplete request: its head, and some of its body.
fn begun(method: &str, target: &str, body: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{body}")
}

/// Reads until the server ends the connection.
async fn is_closed(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let end = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    let _ = end.expect("the connection stays open");
    bytes
}

#[tokio::test]
async fn a_connection_without_a_complete_head_is_closed() {
    let node = with_short_timeout().await;
    for start in ["", "GET", "GET /v2/ HTTP/1.1\r\nHost: x\r\n"] {
        let begin = Instant::now();
        assert_eq!(is_closed(node.http.begin(start).await).await, b"");
        assert!(begin.elapsed() >= CLIENT_TIMEOUT, "{:?}", begin.elapsed());
    }
    // A client that sends a little now and then does not get more time.
    let mut stream = node.http.begin("GET /v2/ HTTP/1.1\r\n").await;
    let drips = async {
        while stream.write_all(b"X: y\r\n").await.is_ok() {
            sleep(CLIENT_TIMEOUT / 5).await;
        }
    };
    timeout(PATIENCE, drips)
        .await
        .expect("the server does not close the connection");
    node.http.get("/v2/").await.expect(200);
}

#[tokio::test]
async fn a_body_without_new_data_is_refused_and_the_upload_can_continue() {
    let (node, image) = (with_short_timeout().await, Image::new(1));
    let http = &node.http;
    http.push("a/b", "latest", &image).await;
    let upload = http.begin_upload("a/b").await;
    let patch = http.begin(begun("PATCH", &upload, "hello")).await;
    let refused = read_answer(patch).await.expect("an answer");
    refused.refused(400, "BLOB_UPLOAD_INVALID");
    let status = http.get(&upload).await.expect(204);
    assert_eq!(status.header("range"), Some("0-4"));
    let digest = sha256(b"hello");
    http.finish(&upload, &digest, b"").await.expect(201);

    let put = http
        .begin(begun("PUT", "/v2/a/b/manifests/latest", "{"))
        .await;
    let refused = read_answer(put).await.expect("an answer");
    refused.refused(400, "MANIFEST_INVALID");
    http.pulls("a/b", "latest", &image).await;
}

/// A client that sends each piece in time can take longer in all.
#[tokio::test]
async fn a_slow_body_is_accepted() {
    const PIECES: usize = 8;
    let node = with_short_timeout().await;
    let digest = sha256(&b"x".repeat(PIECES));
    let target = format!("/v2/a/b/blobs/uploads/?digest={digest}");
    let request = head("POST", &target, &format!("Content-Length: {PIECES}\r\n"));
    let mut stream = node.http.begin(request).await;
    let begin = Instant::now();
    for _ in 0..PIECES {
        sleep(CLIENT_TIMEOUT / 4).await;
        stream.write_all(b"x").await.unwrap();
    }
    assert!(begin.elapsed() > CLIENT_TIMEOUT);
    read_answer(stream).await.unwrap().expect(201);
}

async fn open_files(node: &Node) -> u64 {
    let metrics = node.http.get("/metrics").await.expect(200).text();
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("process_open_fds "));
    line.expect("a gauge").parse().unwrap()
}

#[tokio::test]
async fn a_connection_with_an_unread_answer_is_closed() {
    const CLIENTS: u64 = 10;
    let node = with_short_timeout().await;
    // More than all buffers between the server and the client can hold.
    let content = content(1, 32 << 20);
    let digest = node.http.push_blob("a/b", &content).await;
    let before = open_files(&node).await;
    let mut streams = Vec::new();
    for _ in 0..CLIENTS {
        let request = head("GET", &blob("a/b", &digest), "");
        let mut stream = node.http.begin(request).await;
        stream.read_exact(&mut [0; 100]).await.unwrap();
        streams.push(stream);
    }
    assert!(
        open_files(&node).await >= before + CLIENTS,
        "the server holds no connection for some clients"
    );
    let end = Instant::now() + PATIENCE;
    while open_files(&node).await > before + 2 {
        assert!(
            Instant::now() < end,
            "the server still holds the connections"
        );
        sleep(CLIENT_TIMEOUT / 10).await;
    }
    for stream in streams {
        assert!(
            is_closed(stream).await.len() < content.len(),
            "the server sent the whole answer"
        );
    }
}

#[tokio::test]
async fn headers_are_limited_in_number_and_size() {
    let node = Node::start().await;
    let get = async |headers: &str| node.http.raw(head("GET", "/v2/", headers)).await.unwrap();
    // The request has two headers already.
    let headers =
        |count: usize| -> String { (0..count - 2).map(|i| format!("X-{i}: y\r\n")).collect() };
    get(&headers(100)).await.expect(200);
    get(&headers(101)).await.expect(431);
    let long = |length: usize| format!("X: {}\r\n", "y".repeat(length));
    get(&long(79 << 10)).await.expect(200);
    get(&long(80 << 10)).await.expect(431);
}

#[tokio::test]
async fn max_upload_limits_the_size_of_a_blob() {
    const MOST: usize = 10 << 10;
    let node = Node::start_with(&["--max-upload", "10KiB"]).await;
    let http = &node.http;
    http.push_blob("a/b", CONFIG).await;
    let before = node.stored();
    let big = content(1, MOST + 1);
    let digest = sha256(&big);

    let refused = http.try_push_blob("a/b", &big).await;
    refused.refused(413, "SIZE_INVALID");
    // A body without a stated length is refused too.
    let path = format!("/v2/a/b/blobs/uploads/?digest={digest}");
    let pieces = big
        .chunks(1000)
        .map(|piece| Ok::<_, std::io::Error>(piece.to_vec()));
    let pieces = futures::stream::iter(pieces.collect::<Vec<_>>());
    let request = http
        .ask("POST", &path)
        .body(reqwest::Body::wrap_stream(pieces));
    answer(request).await.refused(413, "SIZE_INVALID");
    let refused = http
        .begin(head("POST", &path, "Content-Length: 99999999999\r\n"))
        .await;
    let refused = read_answer(refused)
        .await
        .expect("an answer before the body");
    refused.refused(413, "SIZE_INVALID");
    let ask = async || http.get("/v2/").await;
    until(ask, |_| node.stored() == before).await;

    // A chunk that makes the upload too long is refused. A chunk that fits is accepted.
    let upload = http.begin_upload("a/b").await;
    http.patch(&upload, &big[..6_000]).await.expect(202);
    let refused = http.patch(&upload, &big[6_000..]).await;
    refused.refused(413, "SIZE_INVALID");
    let refused = http.finish(&upload, &digest, &big[6_000..]).await;
    refused.refused(413, "SIZE_INVALID");
    let status = http.get(&upload).await.expect(204);
    assert_eq!(status.header("range"), Some("0-5999"));
    let most = &big[..MOST];
    let finished = http.finish(&upload, &sha256(most), &most[6_000..]).await;
    finished.expect(201);
    let pulled = http.get(&blob("a/b", &sha256(most))).await.expect(200);
    assert!(pulled.body == most, "the content differs");
}

#[tokio::test]
async fn max_uploads_limits_the_number_of_uploads() {
    let node = Node::start_with(&["--max-uploads", "2"]).await;
    let http = &node.http;
    let (first, _second) = (http.begin_upload("a/b").await, http.begin_upload("c").await);
    for refused in [
        http.post("/v2/a/b/blobs/uploads/").await,
        http.try_push_blob("a/b", b"x").await,
    ] {
        let refused = refused.refused(429, "TOOMANYREQUESTS");
        assert!(refused.header("retry-after").is_some());
    }
    http.patch(&first, b"x").await.expect(202);
    http.finish(&first, &sha256(b"x"), b"").await.expect(201);
    http.push_blob("a/b", b"y").await;
}

#[tokio::test]
async fn an_upload_without_new_data_ends() {
    let args = ["--upload-timeout", "5s", "--max-uploads", "2"];
    let node = Node::start_with(&args).await;
    let http = &node.http;
    let before = node.stored();
    let (idle, busy) = (
        http.begin_upload("a/b").await,
        http.begin_upload("a/b").await,
    );
    http.patch(&idle, &content(1, LARGE)).await.expect(202);
    assert_ne!(node.stored(), before, "no part is stored yet");
    let mut sent = Vec::new();
    let end = Instant::now() + PATIENCE;
    // A request for the status does not keep an upload alive.
    while http.get(&idle).await.status != 404 {
        assert!(Instant::now() < end, "the upload still exists");
        http.patch(&busy, b"x").await.expect(202);
        sent.push(b'x');
        sleep(Duration::from_millis(50)).await;
    }
    http.patch(&idle, b"x")
        .await
        .refused(404, "BLOB_UPLOAD_UNKNOWN");
    http.finish(&busy, &sha256(&sent), b"").await.expect(201);
    assert_eq!(node.upload_objects(), [""; 0]);
    for _ in 0..2 {
        http.begin_upload("a/b").await;
    }
}
