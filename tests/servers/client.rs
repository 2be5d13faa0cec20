//! A real client, `skopeo`, pushes and pulls through the example registry: on files and on S3, with
//! and without Redis, and alternately with the Go registry on one tree.

use test_support as support;

use std::path::Path;
use support::go_registry::GoRegistry;
use support::image::{Image, write_oci_layout};
use support::minio::Minio;
use support::redis::Redis;
use support::registry::Registry;
use support::skopeo::{copy, pull, push};

const LAYERS: usize = 4;
const LAYER_BYTES: usize = 100_000;

fn image(folder: &Path) -> Image {
    write_oci_layout(&folder.join("image"), LAYERS, LAYER_BYTES)
}

/// Returns the content of all blobs of an OCI image layout, by name.
fn blobs(layout: &Path) -> Vec<(String, Vec<u8>)> {
    let folder = layout.join("blobs/sha256");
    let mut blobs: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect();
    blobs.sort();
    blobs
}

/// Returns the status of a `HEAD` of a blob, and its `Cache-Status`, which names the tier that
/// answered.
async fn head(registry: &Registry, repository: &str, digest: &str) -> (u16, String) {
    let url = format!("{}/v2/{repository}/blobs/{digest}", registry.url());
    let answer = reqwest::Client::new().head(url).send().await.unwrap();
    let status = answer
        .headers()
        .get("cache-status")
        .unwrap()
        .to_str()
        .unwrap();
    (answer.status().as_u16(), status.to_owned())
}

/// Pushes an image, pulls it, copies it to another repository and pulls the copy. Checks that the
/// bytes are the same each time, and that the second pull needs no look-up in the store.
async fn round_trip(args: &[&str], env: &[(String, String)]) -> (Registry, Image) {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path());
    let pushed = blobs(&folder.path().join("image"));
    let registry = Registry::start(args, env).await;
    let address = registry.address();

    push(
        &folder.path().join("image"),
        &format!("{address}/team/app:1"),
    );
    for pull_number in 0..2 {
        let target = folder.path().join(format!("pulled{pull_number}"));
        pull(&format!("{address}/team/app:1"), &target);
        assert_eq!(blobs(&target), pushed);
    }
    for layer in &image.layers {
        let (status, by) = head(&registry, "team/app", layer).await;
        assert_eq!(
            (status, by.as_str()),
            (200, "layercache; hit; detail=memory")
        );
    }

    let docker = |repository: &str| format!("docker://{address}/{repository}:1");
    copy(&docker("team/app"), &docker("other/place"));
    let target = folder.path().join("copied");
    pull(
        &format!("{address}/other/place@{}", image.manifest),
        &target,
    );
    assert_eq!(blobs(&target), pushed);
    (registry, image)
}

#[tokio::test]
async fn files() {
    let data = tempfile::tempdir().unwrap();
    let storage = data.path().to_str().unwrap();
    round_trip(&["--storage", storage], &[]).await;
}

#[tokio::test]
async fn files_and_redis_with_a_second_node() {
    let (data, redis) = (tempfile::tempdir().unwrap(), Redis::start().await);
    let (storage, url) = (data.path().to_str().unwrap(), redis.url());
    let args = [
        "--storage",
        storage,
        "--redis",
        &url,
        "--redis-timeout",
        "5s",
    ];
    let (_first, image) = round_trip(&args, &[]).await;
    in_redis(&redis, &image, "docker/registry/v2");

    let second = Registry::start(&args, &[]).await;
    for layer in &image.layers {
        let (status, by) = head(&second, "team/app", layer).await;
        assert_eq!(
            (status, by.as_str()),
            (200, "layercache; hit; detail=redis")
        );
        let (status, by) = head(&second, "team/app", layer).await;
        assert_eq!(
            (status, by.as_str()),
            (200, "layercache; hit; detail=memory")
        );
    }
}

/// Checks that Redis has the fields that the seed wrote, and more fields.
fn in_redis(redis: &Redis, image: &Image, root: &str) {
    for layer in &image.layers {
        for repository in ["team/app", "other/place"] {
            let set = format!("repository::{repository}::blobs");
            assert_eq!(redis.cli(&["SISMEMBER", &set, layer]), "1", "{set} {layer}");
        }
        let hex = layer.strip_prefix("sha256:").unwrap();
        let field = |field: &str| redis.cli(&["HGET", &format!("blobs::{layer}"), field]);
        let path = format!("{root}/blobs/sha256/{}/{hex}/data", &hex[..2]);
        assert_eq!(field("path"), path);
        assert!(field("length").parse::<usize>().unwrap() >= LAYER_BYTES);
        assert!(!field("last_modified").is_empty());
    }
    let manifests = "repository::team/app::manifests";
    assert_eq!(redis.cli(&["SISMEMBER", manifests, &image.manifest]), "1");
    let mixed = redis.cli(&["SISMEMBER", "repository::team/app::blobs", &image.manifest]);
    assert_eq!(mixed, "0", "a manifest is no layer");
}

#[tokio::test]
async fn s3() {
    let minio = Minio::shared().await;
    let bucket = minio.bucket().await;
    let storage = format!("s3://{bucket}/some/prefix");
    round_trip(&["--storage", &storage], &minio.env(&bucket)).await;
}

#[tokio::test]
async fn s3_and_redis_with_a_second_node() {
    let (minio, redis) = (Minio::shared().await, Redis::start().await);
    let (bucket, url) = (minio.bucket().await, redis.url());
    let storage = format!("s3://{bucket}");
    let args = [
        "--storage",
        &storage,
        "--redis",
        &url,
        "--redis-timeout",
        "5s",
    ];
    let (_first, image) = round_trip(&args, &minio.env(&bucket)).await;
    in_redis(&redis, &image, "docker/registry/v2");
    let second = Registry::start(&args, &minio.env(&bucket)).await;
    let (status, by) = head(&second, "team/app", &image.layers[0]).await;
    assert_eq!(
        (status, by.as_str()),
        (200, "layercache; hit; detail=redis")
    );
}

#[tokio::test]
async fn memory_alone() {
    round_trip(&["--storage", "memory://"], &[]).await;
}

/// The Go registry and the example write to one tree alternately, and both read all of it.
#[tokio::test]
async fn the_go_registry_and_the_example_serve_each_others_trees() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let image = image(folder.path());
    let layout = folder.path().join("image");
    let pushed = blobs(&layout);
    let go = GoRegistry::start(&data, None, true).await;
    let ours = Registry::start(&["--storage", data.to_str().unwrap()], &[]).await;

    push(&layout, &format!("{}/by/go:1", go.address()));
    push(&layout, &format!("{}/by/ours:1", ours.address()));
    for (i, server) in [go.address(), ours.address()].into_iter().enumerate() {
        for repository in ["by/go", "by/ours"] {
            for reference in [":1".to_owned(), format!("@{}", image.manifest)] {
                let name = format!(
                    "pulled{i}{}{}",
                    repository.replace('/', "-"),
                    reference.len()
                );
                let target = folder.path().join(name);
                pull(&format!("{server}/{repository}{reference}"), &target);
                assert_eq!(blobs(&target), pushed, "{repository}{reference}");
            }
        }
    }
    let (status, _) = head(&ours, "by/go", &image.layers[0]).await;
    assert_eq!(status, 200);
}

/// A Go registry has filled Redis. The example answers from it, and no look-up reaches the store.
#[tokio::test]
async fn facts_cached_by_the_go_registry_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let redis = Redis::start().await;
    let image = image(folder.path());
    let go = GoRegistry::start(&data, Some(&redis), true).await;
    push(
        &folder.path().join("image"),
        &format!("{}/by/go:1", go.address()),
    );

    let url = redis.url();
    let args = [
        "--storage",
        data.to_str().unwrap(),
        "--redis",
        &url,
        "--redis-timeout",
        "5s",
    ];
    let ours = Registry::start(&args, &[]).await;
    for layer in &image.layers {
        let (status, by) = head(&ours, "by/go", layer).await;
        assert_eq!(
            (status, by.as_str()),
            (200, "layercache; hit; detail=redis")
        );
    }
    pull(
        &format!("{}/by/go:1", ours.address()),
        &folder.path().join("pulled"),
    );
    let pushed = blobs(&folder.path().join("image"));
    assert_eq!(blobs(&folder.path().join("pulled")), pushed);
}
