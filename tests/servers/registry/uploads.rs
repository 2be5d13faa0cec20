//! Tests uploads of blobs: in one request, in two, in chunks, cut off, cancelled, mounted.

use test_support as support;

use futures::StreamExt;
use support::http::{Answer, Http, Node, answer, blob, location, read_answer, until};
use support::image::{content, sha256};
use tokio::io::AsyncWriteExt;

/// More than the registry keeps of a blob in memory, so the blob is stored in parts.
const LARGE: usize = 20 << 20;

const DEFAULT_MAX_UPLOADS: usize = 1024;

fn sha512(content: &[u8]) -> String {
    use sha2::Digest;
    let hash = sha2::Sha512::digest(content);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha512:{hex}")
}

async fn in_one_request(http: &Http, content: &[u8], digest: &str) -> Answer {
    let path = format!("/v2/a/b/blobs/uploads/?digest={digest}");
    answer(http.ask("POST", &path).body(content.to_vec())).await
}

async fn in_two_requests(http: &Http, content: &[u8], digest: &str) -> Answer {
    let upload = http.begin_upload("a/b").await;
    http.finish(&upload, digest, content).await
}

async fn in_chunks(http: &Http, content: &[u8], digest: &str) -> Answer {
    let upload = http.begin_upload("a/b").await;
    let mut sent = 0;
    for chunk in content.chunks((content.len() / 3).max(1)) {
        let end = sent + chunk.len();
        let range = format!("{sent}-{}", end - 1);
        let request = http.ask("PATCH", &upload).header("content-range", range);
        let accepted = answer(request.body(chunk.to_vec())).await.expect(202);
        let range = format!("0-{}", end - 1);
        assert_eq!(accepted.header("range"), Some(&*range));
        assert_eq!(location(&accepted), upload);
        sent = end;
    }
    http.finish(&upload, digest, b"").await
}

async fn with_a_last_chunk(http: &Http, content: &[u8], digest: &str) -> Answer {
    let upload = http.begin_upload("a/b").await;
    let (first, last) = content.split_at(content.len() / 2);
    http.patch(&upload, first).await.expect(202);
    http.finish(&upload, digest, last).await
}

/// Uploads without a `Content-Length`, as Docker sends layers.
async fn in_a_stream(http: &Http, content: &[u8], digest: &str) -> Answer {
    let upload = http.begin_upload("a/b").await;
    let pieces: Vec<_> = content.chunks(65_536).map(<[u8]>::to_vec).collect();
    let pieces = futures::stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>));
    let request = http.ask("PATCH", &upload);
    let accepted = answer(request.body(reqwest::Body::wrap_stream(pieces))).await;
    accepted.expect(202);
    http.finish(&upload, digest, b"").await
}

/// Checks that an upload has created the blob, and nothing else.
async fn arrived(node: &Node, sent: Answer, content: &[u8], digest: &str) {
    let sent = sent.expect(201);
    assert_eq!(location(&sent), blob("a/b", digest));
    assert_eq!(sent.header("docker-content-digest"), Some(digest));
    let pulled = node.http.get(&blob("a/b", digest)).await.expect(200);
    assert!(pulled.body == content, "the content differs");
    assert_eq!(node.upload_objects(), [""; 0]);
}

async fn arrives(way: impl AsyncFn(&Http, &[u8], &str) -> Answer) {
    let node = Node::start().await;
    for (seed, length) in [0, 1, 10_000, LARGE].into_iter().enumerate() {
        let content = content(seed as u64, length);
        for digest in [sha256(&content), sha512(&content)] {
            // The registry accepts a known blob again.
            for _ in 0..2 {
                let sent = way(&node.http, &content, &digest).await;
                arrived(&node, sent, &content, &digest).await;
            }
        }
    }
}

#[tokio::test]
async fn a_blob_arrives_in_one_request() {
    arrives(in_one_request).await;
}

#[tokio::test]
async fn a_blob_arrives_in_two_requests() {
    arrives(in_two_requests).await;
}

#[tokio::test]
async fn a_blob_arrives_in_chunks() {
    arrives(in_chunks).await;
}

#[tokio::test]
async fn a_blob_arrives_with_a_last_chunk() {
    arrives(with_a_last_chunk).await;
}

#[tokio::test]
async fn a_blob_arrives_in_a_stream() {
    arrives(in_a_stream).await;
}

#[tokio::test]
async fn an_upload_reports_its_location_and_its_progress() {
    let Node { http, .. } = &Node::start().await;
    let begun = http.post("/v2/a/b/blobs/uploads/").await.expect(202);
    let id = begun.header("docker-upload-uuid").unwrap();
    let upload = format!("/v2/a/b/blobs/uploads/{id}");
    assert_eq!(location(&begun), upload);
    assert_eq!(begun.header("range"), Some("0-0"));

    for (chunk, range) in [("hello", "0-4"), (" world", "0-10"), ("", "0-10")] {
        http.patch(&upload, chunk.as_bytes()).await.expect(202);
        let status = http.get(&upload).await.expect(204);
        assert_eq!(status.header("range"), Some(range));
        assert_eq!(location(&status), upload);
        assert_eq!(status.header("docker-upload-uuid"), Some(id));
    }
    let digest = sha256(b"hello world");
    http.finish(&upload, &digest, b"").await.expect(201);
    let over = http.get(&upload).await;
    over.refused(404, "BLOB_UPLOAD_UNKNOWN");
}

/// The refusal says how many bytes the registry has received, so the client can continue there.
#[tokio::test]
async fn a_chunk_out_of_order_is_refused_and_changes_nothing() {
    let Node { http, .. } = &Node::start().await;
    let upload = http.begin_upload("a/b").await;
    http.patch(&upload, b"0123456789").await.expect(202);
    let with_digest = format!("{upload}?digest={}", sha256(b"0123456789"));
    for (method, path) in [("PATCH", &upload), ("PUT", &with_digest)] {
        for range in ["0-9", "9-18", "11-20", "100-109"] {
            let request = http.ask(method, path).header("content-range", range);
            let refused = answer(request.body("abcdefghij")).await;
            let refused = refused.refused(416, "BLOB_UPLOAD_INVALID");
            assert_eq!(refused.header("range"), Some("0-9"), "{range}");
        }
    }
    http.finish(&upload, &sha256(b"0123456789"), b"")
        .await
        .expect(201);
}

fn head_of(method: &str, path: &str, length: usize) -> String {
    let headers = format!("Host: x\r\nConnection: close\r\nContent-Length: {length}");
    format!("{method} {path} HTTP/1.1\r\n{headers}\r\n\r\n")
}

async fn received(http: &Http, upload: &str, range: &str) {
    let is_there = |answer: &Answer| answer.status == 204 && answer.header("range") == Some(range);
    until(|| http.get(upload), is_there).await;
}

#[tokio::test]
async fn an_upload_continues_after_a_dropped_connection() {
    let Node { http, .. } = &Node::start().await;
    for length in [9_000, LARGE] {
        let content = content(3, length);
        let (first, rest) = content.split_at(length / 3);
        let (second, third) = rest.split_at(length / 3);
        let upload = http.begin_upload("a/b").await;
        for (chunk, range) in [
            (first, format!("0-{}", length / 3 - 1)),
            (second, format!("0-{}", length / 3 * 2 - 1)),
        ] {
            let mut request = http.begin(head_of("PATCH", &upload, length)).await;
            request.write_all(chunk).await.unwrap();
            drop(request);
            received(http, &upload, &range).await;
        }
        let finished = http.finish(&upload, &sha256(&content), third).await;
        finished.expect(201);
        let pulled = http.get(&blob("a/b", &sha256(&content))).await;
        assert!(pulled.body == content, "the content differs");
    }
}

/// No client knows the id of this upload, so no client can continue it.
#[tokio::test]
async fn an_upload_in_one_request_that_is_cut_off_leaves_nothing() {
    let node = Node::start().await;
    let before = node.stored();
    for length in [1_000, LARGE] {
        let path = format!("/v2/a/b/blobs/uploads/?digest={}", sha256(b"x"));
        let head = head_of("POST", &path, length * 2);
        let request = [head.as_bytes(), &content(1, length)].concat();
        if let Some(refused) = node.http.cut_off(request).await {
            refused.refused(400, "BLOB_UPLOAD_INVALID");
        }
        let ask = async || node.http.get("/v2/").await;
        until(ask, |_| node.stored() == before).await;
    }
}

#[tokio::test]
async fn one_request_at_a_time_may_use_an_upload() {
    let Node { http, .. } = &Node::start().await;
    let upload = http.begin_upload("a/b").await;
    let mut request = http.begin(head_of("PATCH", &upload, 10)).await;
    request.write_all(b"hello").await.unwrap();
    until(|| http.get(&upload), |answer| answer.status == 409).await;

    let digest = sha256(b"hello");
    for refused in [
        http.get(&upload).await,
        http.patch(&upload, b"x").await,
        http.finish(&upload, &digest, b"").await,
        http.delete(&upload).await,
    ] {
        refused.refused(409, "BLOB_UPLOAD_INVALID");
    }
    request.write_all(b"world").await.unwrap();
    let accepted = read_answer(request).await.unwrap().expect(202);
    assert_eq!(accepted.header("range"), Some("0-9"));
    let digest = sha256(b"helloworld");
    http.finish(&upload, &digest, b"").await.expect(201);
}

/// A request for the status must not make a chunk fail.
#[tokio::test]
async fn status_requests_do_not_disturb_chunks() {
    const CHUNKS: usize = 300;
    let Node { http, .. } = &Node::start().await;
    let upload = &http.begin_upload("a/b").await;
    let looking = futures::future::join_all((0..8).map(async |_| {
        loop {
            http.get(upload).await;
        }
    }));
    let uploading = async {
        for _ in 0..CHUNKS {
            http.patch(upload, b"x").await.expect(202);
        }
    };
    tokio::select! {
        _ = looking => unreachable!("the status requests never end"),
        () = uploading => {}
    }
    let digest = sha256(&b"x".repeat(CHUNKS));
    let is_free = |answer: &Answer| answer.status != 409;
    until(|| http.finish(upload, &digest, b""), is_free)
        .await
        .expect(201);
}

#[tokio::test]
async fn a_cancelled_upload_and_a_wrong_digest_leave_nothing() {
    let node = Node::start().await;
    let http = &node.http;
    let before = node.stored();
    for length in [0, 100, LARGE] {
        let content = content(5, length);
        let cancelled = http.begin_upload("a/b").await;
        http.patch(&cancelled, &content).await.expect(202);
        http.delete(&cancelled).await.expect(204);

        let mistaken = http.begin_upload("a/b").await;
        http.patch(&mistaken, &content).await.expect(202);
        let refused = http.finish(&mistaken, &sha256(b"other"), b"").await;
        refused.refused(400, "DIGEST_INVALID");

        for upload in [cancelled, mistaken] {
            let (status, cancel) = (http.get(&upload).await, http.delete(&upload).await);
            status.refused(404, "BLOB_UPLOAD_UNKNOWN");
            cancel.refused(404, "BLOB_UPLOAD_UNKNOWN");
            let (patch, finish) = (
                http.patch(&upload, b"x").await,
                http.finish(&upload, &sha256(&content), b"").await,
            );
            patch.refused(404, "BLOB_UPLOAD_UNKNOWN");
            finish.refused(404, "BLOB_UPLOAD_UNKNOWN");
        }
        assert_eq!(node.stored(), before);
    }
}

/// The id of an upload gives no access through another repository.
#[tokio::test]
async fn an_upload_belongs_to_its_repository() {
    let Node { http, .. } = &Node::start().await;
    let upload = http.begin_upload("a/b").await;
    let elsewhere = upload.replace("a/b", "a/c");
    let digest = sha256(b"x");
    for refused in [
        http.get(&elsewhere).await,
        http.patch(&elsewhere, b"x").await,
        http.finish(&elsewhere, &digest, b"x").await,
        http.delete(&elsewhere).await,
    ] {
        refused.refused(404, "BLOB_UPLOAD_UNKNOWN");
    }
    http.finish(&upload, &digest, b"x").await.expect(201);
}

#[tokio::test]
async fn a_blob_is_mounted_from_a_repository_that_has_it() {
    let Node { http, .. } = &Node::start().await;
    let digest = http.push_blob("a/b", b"layer").await;
    let path = format!("/v2/c/d/blobs/uploads/?mount={digest}&from=a/b");
    let mounted = http.post(&path).await.expect(201);
    assert_eq!(location(&mounted), blob("c/d", &digest));
    assert_eq!(mounted.header("docker-content-digest"), Some(&*digest));
    let pulled = http.get(&blob("c/d", &digest)).await.expect(200);
    assert_eq!(pulled.body, b"layer");
}

/// If a blob cannot be mounted, the client must upload it. So a client gets no access to a blob
/// only because it knows the digest.
#[tokio::test]
async fn a_mount_of_an_absent_blob_begins_an_upload() {
    let node = Node::start().await;
    let http = &node.http;
    let digest = http.push_blob("secret/place", b"layer").await;
    let unknown = sha256(b"unknown");
    let before = node.stored();
    for query in [
        format!("mount={digest}&from=a/b"),
        format!("mount={digest}&from=c/d"),
        format!("mount={unknown}&from=secret/place"),
        format!("mount={digest}"),
    ] {
        let path = format!("/v2/c/d/blobs/uploads/?{query}");
        let begun = http.post(&path).await.expect(202);
        http.delete(&location(&begun)).await.expect(204);
        http.head(&blob("c/d", &digest)).await.expect(404);
    }
    assert_eq!(node.stored(), before);
}

/// Uploads use memory, so their number is limited.
#[tokio::test]
async fn the_number_of_uploads_is_limited_by_default() {
    let Node { http, .. } = &Node::start().await;
    let begun = futures::stream::iter(0..DEFAULT_MAX_UPLOADS).map(|_| http.begin_upload("a/b"));
    let begun: Vec<_> = begun.buffer_unordered(16).collect().await;
    let refused = http.post("/v2/a/b/blobs/uploads/").await;
    let refused = refused.refused(429, "TOOMANYREQUESTS");
    assert!(refused.header("retry-after").is_some());
    let refused = http.try_push_blob("a/b", b"x").await;
    refused.refused(429, "TOOMANYREQUESTS");

    http.delete(&begun[0]).await.expect(204);
    http.begin_upload("a/b").await;
}

#[tokio::test]
async fn a_graceful_shutdown_ends_all_uploads() {
    let mut node = Node::start().await;
    let before = node.stored();
    for length in [0, 100, LARGE] {
        let upload = node.http.begin_upload("a/b").await;
        let accepted = node.http.patch(&upload, &content(1, length)).await;
        accepted.expect(202);
    }
    assert_ne!(node.stored(), before, "no part is stored yet");
    assert!(node.registry.terminate().await.success());
    assert_eq!(node.stored(), before);
}

#[tokio::test]
async fn a_graceful_shutdown_waits_for_running_requests() {
    let mut node = Node::start().await;
    let digest = sha256(b"helloworld");
    let path = format!("/v2/a/b/blobs/uploads/?digest={digest}");
    let mut request = node.http.begin(head_of("POST", &path, 10)).await;
    request.write_all(b"hello").await.unwrap();
    let head = node.http.begin_upload("a/b").await;
    let mut other = node.http.begin(head_of("PATCH", &head, LARGE)).await;
    let part = content(1, LARGE);
    other.write_all(&part[..LARGE / 2]).await.unwrap();
    until(|| node.http.get(&head), |answer| answer.status == 409).await;

    node.registry.server().signal(support::server::Signal::Term);
    request.write_all(b"world").await.unwrap();
    other.write_all(&part[LARGE / 2..]).await.unwrap();
    read_answer(request).await.unwrap().expect(201);
    read_answer(other).await.unwrap().expect(202);
    assert!(node.registry.terminate().await.success());
    assert_eq!(node.upload_objects(), [""; 0]);
    let again = support::http::over(node.folder(), &[]).await;
    let pulled = Http::new(&again).get(&blob("a/b", &digest)).await;
    assert_eq!(pulled.expect(200).body, b"helloworld");
}

/// The shutdown does not wait for ever for a client that sends nothing.
#[tokio::test]
async fn a_graceful_shutdown_ends_the_upload_of_a_silent_client() {
    let mut node = Node::start().await;
    let before = node.stored();
    let upload = node.http.begin_upload("a/b").await;
    let mut request = node.http.begin(head_of("PATCH", &upload, LARGE)).await;
    let part = &content(1, LARGE)[1..];
    request.write_all(part).await.unwrap();
    let ask = async || node.http.get("/v2/").await;
    until(ask, |_| node.stored() != before).await;
    assert!(node.registry.terminate().await.success());
    assert_eq!(node.stored(), before);
}
