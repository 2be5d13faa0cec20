//! Tests the cache of the example registry: the tier that answers, the metrics, and the removals.

use test_support as support;

use futures::TryStreamExt;
use object_store::ObjectStore;
use std::collections::BTreeMap;
use support::http::{Answer, CONFIG, Http, Image, Node, answer, blob, manifest_path, over, until};
use support::image::{content, sha256};
use support::minio::Minio;
use support::redis::Redis;
use support::registry::Registry;

const MEMORY: &str = "layercache; hit; detail=memory";
const REDIS: &str = "layercache; hit; detail=redis";
const MISS: &str = "layercache; fwd=miss";

fn status(answer: &Answer) -> &str {
    answer.header("cache-status").expect("a Cache-Status")
}

/// Starts a registry with a long Redis timeout, for a slow machine.
async fn with_redis(redis: &Redis) -> Node {
    Node::start_with(&["--redis", &redis.url(), "--redis-timeout", "5s"]).await
}

/// Starts another registry on the same folder and Redis.
async fn beside(node: &Node, redis: &Redis) -> Registry {
    let args = ["--redis", &redis.url(), "--redis-timeout", "5s"];
    over(node.folder(), &args).await
}

/// Repeats a request until memory answers, because the fill runs after the miss.
async fn warm(http: &Http, path: &str) {
    until(|| http.head(path), |answer| status(answer) == MEMORY).await;
}

#[tokio::test]
async fn the_cache_status_names_the_tier_that_answered() {
    let (node, image) = Node::with_image().await;
    // A process with an empty cache.
    let cold = over(node.folder(), &[]).await;
    let http = Http::new(&cold);
    for path in [
        blob("a/b", &image.layer_digest()),
        manifest_path("a/b", &image.digest()),
    ] {
        assert_eq!(status(&http.head(&path).await.expect(200)), MISS);
        warm(&http, &path).await;
        for (header, value, code) in [("accept", "*/*", 200), ("if-none-match", "*", 304)] {
            let warm = answer(http.ask("GET", &path).header(header, value)).await;
            assert_eq!(status(&warm.expect(code)), MEMORY);
        }
        let unknown = path.replace("a/b", "c/d");
        assert_eq!(status(&http.head(&unknown).await.expect(404)), MISS);
    }
    for (range, code) in [("bytes=0-1", 206), ("bytes=9999-", 416)] {
        let path = blob("a/b", &image.layer_digest());
        let part = answer(http.ask("GET", &path).header("range", range)).await;
        assert_eq!(status(&part.expect(code)), MEMORY);
    }
    // Memory answers for the tag, and for the manifest that it points at.
    let tag = http.get(&manifest_path("a/b", "latest")).await;
    assert_eq!(status(&tag), MEMORY);
}

#[tokio::test]
async fn look_ups_without_the_cache_give_the_same_answers_from_the_storage() {
    for how in ["verified", "plain"] {
        let Node { http, registry, .. } = &Node::start_with(&["--look-ups", how]).await;
        let image = Image::new(1);
        http.push("a/b", "latest", &image).await;
        http.pulls("a/b", "latest", &image).await;
        let layer = blob("a/b", &image.layer_digest());
        for _ in 0..2 {
            let answer = http.head(&layer).await.expect(200);
            assert_eq!(answer.header("content-length"), Some("5000"));
            assert!(status(&answer).starts_with("layercache; fwd="), "{how}");
        }
        // The content is there, but in another repository or as another kind.
        let elsewhere = blob("c/d", &image.layer_digest());
        let other_kind = blob("a/b", &image.digest());
        for path in [elsewhere, other_kind] {
            http.get(&path).await.refused(404, "BLOB_UNKNOWN");
        }
        http.delete(&layer).await.expect(202);
        http.get(&layer).await.refused(404, "BLOB_UNKNOWN");
        assert!(!registry.has_logged("a request has failed"));
    }
}

#[tokio::test]
async fn a_node_gets_the_facts_of_another_node_from_redis() {
    let (redis, image) = (Redis::start().await, Image::new(1));
    let node = with_redis(&redis).await;
    node.http.push("a/b", "latest", &image).await;
    let other = beside(&node, &redis).await;
    let other = Http::new(&other);
    for path in [
        blob("a/b", &image.layer_digest()),
        manifest_path("a/b", "latest"),
    ] {
        warm(&node.http, &path).await;
        assert_eq!(status(&other.get(&path).await.expect(200)), REDIS);
        assert_eq!(status(&other.get(&path).await.expect(200)), MEMORY);
    }
}

/// Returns the number of look-ups so far, by fact, tier and result.
async fn lookups(http: &Http) -> BTreeMap<String, u64> {
    let metrics = http.get("/metrics").await.expect(200).text();
    let lookups = metrics.lines().filter_map(|line| {
        let (labels, count) = line
            .strip_prefix("layercache_lookups_total{")?
            .split_once("} ")?;
        let labels: BTreeMap<_, _> = labels
            .split(',')
            .map(|label| label.split_once('=').unwrap())
            .collect();
        let key = format!("{} {} {}", labels["fact"], labels["tier"], labels["result"]);
        Some((key.replace('"', ""), count.parse().unwrap()))
    });
    lookups.collect()
}

/// Returns what was counted since `before`.
async fn counted(http: &Http, before: &BTreeMap<String, u64>) -> Vec<(String, u64)> {
    let after = lookups(http).await.into_iter();
    let news = after.map(|(key, count)| (key.clone(), count - before.get(&key).unwrap_or(&0)));
    news.filter(|(_, count)| *count > 0).collect()
}

fn counts(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    expected
        .iter()
        .map(|&(key, count)| (key.to_owned(), count))
        .collect()
}

#[tokio::test]
async fn the_metrics_count_lookups_by_fact_tier_and_result() {
    let (mut redis, image) = (Redis::start().await, Image::new(1));
    let node = with_redis(&redis).await;
    let http = &node.http;
    http.push("a/b", "latest", &image).await;
    let path = blob("a/b", &image.layer_digest());
    warm(http, &path).await;

    let before = lookups(http).await;
    for _ in 0..5 {
        http.head(&path).await.expect(200);
    }
    let warm_ones = counts(&[("membership memory hit", 5), ("meta memory hit", 5)]);
    assert_eq!(counted(http, &before).await, warm_ones);

    let other = beside(&node, &redis).await;
    let other = &Http::new(&other);
    let before = lookups(other).await;
    other.head(&path).await.expect(200);
    let told_by_redis = counts(&[
        ("membership memory miss", 1),
        ("membership redis hit", 1),
        ("meta memory miss", 1),
        ("meta redis hit", 1),
    ]);
    assert_eq!(counted(other, &before).await, told_by_redis);

    let before = lookups(other).await;
    other
        .head(&blob("a/b", &sha256(b"unknown")))
        .await
        .expect(404);
    let unknown = counted(other, &before).await;
    for tier in ["memory", "redis", "backend"] {
        let miss = (format!("membership {tier} miss"), 1);
        assert!(unknown.contains(&miss), "{unknown:?}");
    }

    redis.kill();
    let before = lookups(other).await;
    other
        .head(&blob("c/d", &sha256(b"unknown")))
        .await
        .expect(404);
    let without_redis = counted(other, &before).await;
    for key in ["membership redis error", "membership backend miss"] {
        assert!(
            without_redis.contains(&(key.to_owned(), 1)),
            "{without_redis:?}"
        );
    }
}

#[tokio::test]
async fn without_redis_reads_go_on_and_a_strict_node_refuses_changes() {
    let (mut redis, image) = (Redis::start().await, Image::new(1));
    let args = format!(
        "--redis {} --redis-timeout 5s --redis-change-timeout 1s --change-policy strict",
        redis.url()
    );
    let node = Node::start_with(&args.split(' ').collect::<Vec<_>>()).await;
    let http = &node.http;
    http.push("a/b", "latest", &image).await;
    let upload = http.begin_upload("a/b").await;
    http.patch(&upload, b"content").await.expect(202);
    let before = node.stored();
    let cold = over(node.folder(), &["--redis", &redis.url()]).await;
    redis.kill();

    let layer = blob("a/b", &image.layer_digest());
    for http in [http, &Http::new(&cold)] {
        http.pulls("a/b", "latest", &image).await;
        http.head(&layer).await.expect(200);
        answer(http.ask("GET", &layer).header("range", "bytes=0-1"))
            .await
            .expect(206);
        http.get("/v2/a/b/tags/list").await.expect(200);
        http.get(&format!("/v2/a/b/referrers/{}", image.digest()))
            .await
            .expect(200);
    }
    let digest = sha256(b"content");
    let mount = format!(
        "/v2/c/d/blobs/uploads/?mount={}&from=a/b",
        image.layer_digest()
    );
    for refused in [
        http.try_push_blob("a/b", b"new").await,
        http.finish(&upload, &digest, b"").await,
        http.post(&mount).await,
        http.delete(&layer).await,
        http.put_manifest("a/b", "new", &image.manifest).await,
        http.delete(&manifest_path("a/b", &image.digest())).await,
    ] {
        let refused = refused.refused(503, "UNAVAILABLE");
        assert!(refused.header("retry-after").is_some());
        refused.hides(&[&redis.url(), &redis.address(), "127.0.0.1"]);
    }
    // Only the upload that the client knows is left, and it can still be finished.
    let id = upload.rsplit('/').next().unwrap();
    let mut after = node.stored();
    after.retain(|path| !path.contains(id));
    assert_eq!(after, before);
    http.pulls("a/b", "latest", &image).await;

    redis.restart_on_same_port().await;
    let is_taken = |answer: &Answer| answer.status != 503;
    let finished = until(|| http.finish(&upload, &digest, b""), is_taken).await;
    finished.expect(201);
    http.push("a/b", "latest", &Image::new(2)).await;
    assert_eq!(http.get(&blob("a/b", &digest)).await.body, b"content");
}

/// While Redis is down only a removal may be refused. Once Redis is back, another node answers
/// correctly for what was pushed meanwhile, and a refused removal can be repeated.
#[tokio::test]
async fn without_redis_pushes_go_on_and_removals_are_refused() {
    let (mut redis, image) = (Redis::start().await, Image::new(1));
    let args = format!(
        "--redis {} --redis-timeout 1s --redis-change-timeout 1s",
        redis.url()
    );
    let args: Vec<_> = args.split(' ').collect();
    let node = Node::start_with(&args).await;
    let other = over(node.folder(), &args).await;
    let (http, other) = (&node.http, Http::new(&other));
    http.push("a/b", "latest", &image).await;
    redis.kill();

    let new = Image::new(2);
    http.push("a/b", "new", &new).await;
    http.pulls("a/b", "new", &new).await;
    other.pulls("a/b", "new", &new).await;
    let layer = blob("a/b", &image.layer_digest());
    let manifest = manifest_path("a/b", &image.digest());
    for path in [&layer, &manifest] {
        let refused = http.delete(path).await.refused(503, "UNAVAILABLE");
        assert!(refused.header("retry-after").is_some());
    }
    http.pulls("a/b", "latest", &image).await;

    redis.restart_on_same_port().await;
    let is_taken = |answer: &Answer| answer.status != 503;
    for path in [&layer, &manifest] {
        until(|| http.delete(path), is_taken).await.expect(202);
        other.get(path).await.expect(404);
    }
    other.pulls("a/b", "new", &new).await;
    http.push("a/b", "newer", &Image::new(3)).await;
}

/// A garbage collection deletes layers that the cache still has. The registry then tells a client
/// to skip these layers, and the manifest of the client names absent layers. See
/// distribution/distribution#4269.
#[tokio::test]
async fn distribution_4269_a_push_without_its_collected_layers_is_refused_and_a_complete_push_succeeds()
 {
    let redis = Redis::start().await;
    for node in [Node::start().await, with_redis(&redis).await] {
        let (http, image) = (&node.http, Image::new(1));
        http.push("a/b", "latest", &image).await;
        let (config, layer) = (sha256(CONFIG), image.layer_digest());
        for digest in [&config, &layer] {
            warm(http, &blob("a/b", digest)).await;
            node.collect(digest);
            // A push asks this first.
            http.head(&blob("a/b", digest)).await.expect(200);
        }
        for reference in ["latest", "new", &image.digest()] {
            let put = http.put_manifest("a/b", reference, &image.manifest).await;
            let put = put.refused(404, "MANIFEST_BLOB_UNKNOWN").text();
            assert!(put.contains(&config) && put.contains(&layer), "{put}");
        }
        for digest in [&config, &layer] {
            http.head(&blob("a/b", digest)).await.expect(404);
        }
        http.push("a/b", "new", &image).await;
        http.pulls("a/b", "new", &image).await;
    }
}

/// A download notices that the blob is missing, and removes it from the cache.
#[tokio::test]
async fn a_download_of_a_collected_blob_removes_it_from_the_cache() {
    let (node, image) = Node::with_image().await;
    let http = &node.http;
    for (path, digest, code) in [
        (
            blob("a/b", &image.layer_digest()),
            image.layer_digest(),
            "BLOB_UNKNOWN",
        ),
        (
            manifest_path("a/b", "latest"),
            image.digest(),
            "MANIFEST_UNKNOWN",
        ),
    ] {
        warm(http, &path).await;
        node.collect(&digest);
        http.get(&path).await.refused(404, code);
        http.head(&path).await.expect(404);
    }
    http.push("a/b", "latest", &image).await;
    http.pulls("a/b", "latest", &image).await;
}

/// The registry finds a digest only as the kind that the client asks for: a manifest is not a
/// layer, and a layer is not a manifest, with every state of the cache. See
/// distribution/distribution#4812.
#[tokio::test]
async fn distribution_4812_a_manifest_is_not_a_blob_and_a_layer_is_not_a_manifest() {
    let redis = Redis::start().await;
    for node in [Node::start().await, with_redis(&redis).await] {
        let (http, image) = (&node.http, Image::new(1));
        http.push("a/b", "latest", &image).await;
        let (digest, layer) = (image.digest(), image.layer_digest());
        let right = [manifest_path("a/b", &digest), blob("a/b", &layer)];
        let wrong = [blob("a/b", &digest), manifest_path("a/b", &layer)];
        let codes = ["BLOB_UNKNOWN", "MANIFEST_UNKNOWN"];
        for _ in ["cold", "warm"] {
            for (path, code) in wrong.iter().zip(codes) {
                http.head(path).await.expect(404);
                http.get(path).await.refused(404, code);
                http.delete(path).await.refused(404, code);
            }
            for path in &right {
                warm(http, path).await;
                http.get(path).await.expect(200);
            }
        }
    }
}

/// Pushes and pulls an image, and a layer that is stored in parts.
async fn push_and_pull(http: &Http) {
    let (image, large) = (Image::new(1), content(2, 20 << 20));
    let digest = sha256(&large);
    let upload = http.begin_upload("a/b").await;
    let (first, last) = large.split_at(12 << 20);
    http.patch(&upload, first).await.expect(202);
    http.finish(&upload, &digest, last).await.expect(201);
    let cancelled = http.begin_upload("a/b").await;
    http.patch(&cancelled, &large).await.expect(202);
    http.delete(&cancelled).await.expect(204);

    http.push("a/b", "latest", &image).await;
    http.pulls("a/b", "latest", &image).await;
    let pulled = http.get(&blob("a/b", &digest)).await.expect(200);
    assert!(pulled.body == large, "the content differs");
    let request = http.ask("GET", &blob("a/b", &digest));
    let part = answer(request.header("range", "bytes=8388600-8388700")).await;
    assert!(
        part.expect(206).body == large[8_388_600..=8_388_700],
        "the part differs"
    );

    let mount = format!("/v2/c/d/blobs/uploads/?mount={digest}&from=a/b");
    http.post(&mount).await.expect(201);
    http.delete(&blob("a/b", &digest)).await.expect(202);
    http.get(&blob("a/b", &digest))
        .await
        .refused(404, "BLOB_UNKNOWN");
    http.get(&blob("c/d", &digest)).await.expect(200);
    http.delete(&manifest_path("a/b", &image.digest()))
        .await
        .expect(202);
    let gone = http.get(&manifest_path("a/b", "latest")).await;
    gone.refused(404, "MANIFEST_UNKNOWN");
    http.push("a/b", "latest", &image).await;
    http.pulls("a/b", "latest", &image).await;
}

#[tokio::test]
async fn an_image_is_pushed_and_pulled_with_redis() {
    let redis = Redis::start().await;
    let node = with_redis(&redis).await;
    push_and_pull(&node.http).await;
    assert_eq!(node.upload_objects(), [""; 0]);
}

#[tokio::test]
async fn an_image_is_pushed_and_pulled_with_s3() {
    let minio = Minio::shared().await;
    let bucket = minio.bucket().await;
    let prefix = format!("below/{}", uuid::Uuid::new_v4());
    let storage = format!("s3://{bucket}/{prefix}");
    let registry = Registry::start(&["--storage", &storage], &minio.env(&bucket)).await;
    push_and_pull(&Http::new(&registry)).await;

    let objects: Vec<_> = minio.store(&bucket).list(None).try_collect().await.unwrap();
    let paths = objects.iter().map(|object| object.location.as_ref());
    let ours: Vec<_> = paths.filter(|path| path.starts_with(&prefix)).collect();
    assert!(!ours.is_empty());
    assert!(
        !ours.iter().any(|path| path.contains("_uploads")),
        "{ours:?}"
    );
}
