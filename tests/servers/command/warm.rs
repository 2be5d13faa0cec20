//! Tests `layercache warm`.

use super::{Stage, name, run_with};
use layercache::layout::{Distribution, Layout};
use layercache::{CacheStatus, CachedStore, Freshness, Link};
use object_store::local::LocalFileSystem;
use object_store::{ObjectStore, ObjectStoreExt};
use test_support::minio::Minio;
use test_support::nodes::{config, digest};
use test_support::redis::Redis;

/// Puts this many blobs and their links, without telling any node.
async fn fill(store: &impl ObjectStore, count: u32) {
    let layout = Distribution::default();
    for digest in (0..count).map(digest) {
        let link = Link::layer(name("a/b"), digest);
        store
            .put(&layout.blob_path(&digest).unwrap(), "content".into())
            .await
            .unwrap();
        store
            .put(&layout.link_path(&link).unwrap(), digest.to_string().into())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_folder_is_warmed() {
    let stage = Stage::new().await;
    fill(
        &LocalFileSystem::new_with_prefix(stage.folder.path()).unwrap(),
        3,
    )
    .await;
    std::fs::write(stage.folder.path().join("readme"), "x").unwrap();

    let output = stage.run(&["warm"]).await.expect(0);
    assert_eq!(
        output.out,
        "7 objects: 6 filled, 0 known, 1 not in the layout, 0 left to other nodes\n"
    );
    assert_eq!(output.err, "", "no progress without a terminal");
    let repository = stage.node().registry().repository(name("a/b"));
    let answer = repository
        .stat(&digest(2), Freshness::Cached)
        .await
        .unwrap();
    assert_eq!(
        (answer.value.map(|meta| meta.length()), answer.status),
        (Some(7), CacheStatus::Redis)
    );

    let json = stage
        .run(&["warm", "--json", "--prefix", "docker/registry/v2/blobs"])
        .await
        .expect(0)
        .json();
    assert_eq!(
        (&json["seen"], &json["known"], &json["complete"]),
        (&3.into(), &3.into(), &true.into())
    );
}

#[tokio::test]
async fn a_warm_of_a_bucket_is_resumed() {
    let (minio, redis) = (Minio::shared().await, Redis::start().await);
    let bucket = minio.bucket().await;
    fill(&minio.store(&bucket), 4).await;
    let mut env = minio.env(&bucket);
    env.push(("LAYERCACHE_REDIS_URL".into(), redis.url()));
    env.push(("LAYERCACHE_STORAGE".into(), format!("s3://{bucket}")));
    let mut blobs: Vec<_> = (0..4)
        .map(|i| Distribution::default().blob_path(&digest(i)).unwrap())
        .collect();
    blobs.sort();

    let after = blobs[1].to_string();
    let args = [
        "warm",
        "--json",
        "--prefix",
        "docker/registry/v2/blobs",
        "--resume-after",
        &after,
    ];
    let json = run_with(&args, &env).await.expect(0).json();
    assert_eq!((&json["seen"], &json["filled"]), (&2.into(), &2.into()));
    assert_eq!(json["position"], blobs[3].as_ref());
    assert_eq!(redis.cli(&["KEYS", "blobs::*"]).lines().count(), 2);

    // A node then sees the entries.
    let node = CachedStore::builder(minio.store(&bucket))
        .redis(config(&redis))
        .build()
        .unwrap();
    run_with(&["warm"], &env).await.expect(0);
    let repository = node.registry().repository(name("a/b"));
    let answer = repository
        .stat(&digest(0), Freshness::Cached)
        .await
        .unwrap();
    assert_eq!(answer.status, CacheStatus::Redis);
}
