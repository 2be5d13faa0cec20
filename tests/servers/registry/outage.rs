//! Tests that the registry refuses changes with 503 while Redis is down, and that the client can
//! repeat each refused request unchanged.

use test_support as support;

use support::http::{
    Answer, Http, Image, Node, answer, blob, location, manifest_path, over, until,
};
use support::image::{content, sha256};
use support::redis::Redis;

/// Returns two nodes on one folder and one Redis, with a short change timeout.
async fn nodes(redis: &Redis) -> (Node, Http, support::registry::Registry) {
    let args = format!(
        "--redis {} --redis-timeout 1s --redis-change-timeout 500ms --redis-trust 600ms \
         --change-policy strict",
        redis.url()
    );
    let args: Vec<_> = args.split(' ').collect();
    let node = Node::start_with(&args).await;
    let other = over(node.folder(), &args).await;
    let http = Http::new(&other);
    for http in [&node.http, &http] {
        let pushed = |answer: &Answer| answer.status == 201;
        until(|| http.try_push_blob("a/b", b"warm"), pushed).await;
    }
    (node, http, other)
}

#[track_caller]
fn is_unavailable(answer: Answer) {
    let answer = answer.refused(503, "UNAVAILABLE");
    let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=10).contains(&after));
}

/// Repeats a request until its answer is no longer 503.
async fn repeated<F: Future<Output = Answer>>(ask: impl Fn() -> F) -> Answer {
    until(ask, |answer| answer.status != 503).await
}

#[tokio::test]
async fn every_refused_request_can_be_repeated_unchanged() {
    let mut redis = Redis::start().await;
    let (node, other, _process) = nodes(&redis).await;
    let http = &node.http;
    let (image, gone) = (Image::new(1), Image::new(2));
    http.push("a/b", "gone", &gone).await;
    http.push_blob("a/b", &image.layer).await;
    let layer = |seed| content(seed, 10_000);
    let [empty_put, last_put, ranged_put] = [layer(10), layer(11), layer(12)];
    let begin = async |content: &[u8]| {
        let upload = http.begin_upload("a/b").await;
        http.patch(&upload, content).await.expect(202);
        upload
    };
    let (first, last) = last_put.split_at(6_000);
    let (first_ranged, last_ranged) = ranged_put.split_at(6_000);
    let uploads = [
        begin(&empty_put).await,
        begin(first).await,
        begin(first_ranged).await,
    ];
    let put_range = async || {
        let path = format!("{}?digest={}", uploads[2], sha256(&ranged_put));
        let request = http.ask("PUT", &path);
        let request = request.header("content-range", "6000-9999");
        answer(request.body(last_ranged.to_vec())).await
    };
    let mount = format!(
        "/v2/c/d/blobs/uploads/?mount={}&from=a/b",
        image.layer_digest()
    );
    let one_post = layer(13);

    redis.kill();
    for _ in 0..2 {
        is_unavailable(http.finish(&uploads[0], &sha256(&empty_put), b"").await);
        is_unavailable(http.finish(&uploads[1], &sha256(&last_put), last).await);
        is_unavailable(put_range().await);
        is_unavailable(http.try_push_blob("a/b", &one_post).await);
        is_unavailable(http.post(&mount).await);
        is_unavailable(http.put_manifest("a/b", "new", &image.manifest).await);
        is_unavailable(http.delete(&blob("a/b", &gone.layer_digest())).await);
        is_unavailable(http.delete(&manifest_path("a/b", &gone.digest())).await);
    }
    // The status of an upload can still be read, and the refused requests have changed nothing.
    let status = http.get(&uploads[1]).await.expect(204);
    assert_eq!(status.header("range"), Some("0-9999"));
    http.pulls("a/b", "gone", &gone).await;
    redis.restart_on_same_port().await;

    let finish = |i: usize, content: &[u8], last: &[u8]| {
        let (http, upload) = (http.clone(), uploads[i].clone());
        let (digest, last) = (sha256(content), last.to_vec());
        async move { http.finish(&upload, &digest, &last).await }
    };
    repeated(|| finish(0, &empty_put, b"")).await.expect(201);
    repeated(|| finish(1, &last_put, last)).await.expect(201);
    repeated(put_range).await.expect(201);
    let post = || http.try_push_blob("a/b", &one_post);
    repeated(post).await.expect(201);
    repeated(|| http.post(&mount)).await.expect(201);
    http.push_blob("a/b", support::http::CONFIG).await;
    let put = || http.put_manifest("a/b", "new", &image.manifest);
    repeated(put).await.expect(201);
    let (layer_path, manifest) = (
        blob("a/b", &gone.layer_digest()),
        manifest_path("a/b", &gone.digest()),
    );
    repeated(|| http.delete(&layer_path)).await.expect(202);
    repeated(|| http.delete(&manifest)).await.expect(202);
    for http in [http, &other] {
        for content in [&empty_put, &last_put, &ranged_put, &one_post] {
            let pulled = http.get(&blob("a/b", &sha256(content))).await.expect(200);
            assert!(pulled.body == **content, "the content differs");
        }
        http.pulls("a/b", "new", &image).await;
        http.head(&blob("c/d", &image.layer_digest()))
            .await
            .expect(200);
        http.head(&layer_path).await.expect(404);
        http.head(&manifest).await.expect(404);
    }
    assert_eq!(node.upload_objects(), [""; 0]);
}

/// A client that got no answer to a chunk sends it once more.
#[tokio::test]
async fn the_last_chunk_can_be_sent_again() {
    let Node { http, .. } = &Node::start().await;
    let begun = http.post("/v2/a/b/blobs/uploads/").await.expect(202);
    let upload = location(&begun);
    let content = content(1, 9_000);
    for (start, end) in [(0, 4_000), (4_000, 9_000)] {
        let chunk = &content[start..end];
        let send = async |chunk: &[u8]| {
            let range = format!("{start}-{}", end - 1);
            let request = http.ask("PATCH", &upload).header("content-range", range);
            answer(request.body(chunk.to_vec())).await
        };
        let received = format!("0-{}", end - 1);
        for _ in 0..3 {
            let accepted = send(chunk).await.expect(202);
            assert_eq!(accepted.header("range"), Some(&*received));
        }
        let mut another = chunk.to_vec();
        another[17] ^= 1;
        let refused = send(&another).await.refused(416, "BLOB_UPLOAD_INVALID");
        assert_eq!(refused.header("range"), Some(&*received));
    }
    let finished = http.finish(&upload, &sha256(&content), b"").await;
    finished.expect(201);
}
