//! Tests the command with a Redis behind Sentinels, and with a Redis Cluster.

use super::{name, run, settle};
use layercache::CachedStore;
use layercache::layout::{Distribution, Layout};
use object_store::ObjectStoreExt;
use object_store::local::LocalFileSystem;
use std::path::Path;
use test_support::cluster::{self, RedisCluster};
use test_support::nodes::{config_at, digest};
use test_support::sentinel::{self, Watched};

/// Puts blobs and links through a node and reads them, so that Redis knows all of them.
async fn push(folder: &Path, url: &str) {
    let store = LocalFileSystem::new_with_prefix(folder).unwrap();
    let node = CachedStore::builder(store)
        .redis(config_at(url))
        .build()
        .unwrap();
    for i in 0..8 {
        let path = Distribution::default().blob_path(&digest(i)).unwrap();
        node.put(&path, "content".into()).await.unwrap();
        for repository in ["a/b", "c"] {
            let repository = node.registry().repository(name(repository));
            repository.link(&digest(i)).await.unwrap();
            settle(&repository, &digest(i)).await;
        }
    }
}

/// Runs every command against this Redis.
async fn all_commands(url: &str, secret: &str, words: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    push(folder.path(), url).await;
    let storage = folder.path().to_str().unwrap();
    let common = [
        "--redis",
        url,
        "--storage",
        storage,
        "--redis-timeout",
        "5s",
    ];
    for i in 0..8 {
        let subject = format!("a/b@{}", digest(i));
        let output = run(&[&["stat", &subject], &common[..]].concat())
            .await
            .expect(0);
        assert_eq!(&output.row("as a layer")[2..4], ["yes", "yes"]);
        output
            .has(&["verdict: Redis and the storage agree"])
            .keeps(secret);
    }
    let check = [&["check"], &common[..]].concat();
    run(&check).await.expect(0).has(words).keeps(secret);

    let purge = [
        "purge",
        "--yes",
        "--repository",
        "a/*",
        "--redis",
        url,
        "--redis-timeout",
        "5s",
    ];
    let output = run(&purge).await.expect(0);
    output
        .has(&["removed 8 memberships of 1 repositories"])
        .keeps(secret);
    let subject = |repository| format!("{repository}@{}", digest(0));
    let stat = |subject: String| async move {
        run(&[&["stat", &subject], &common[..]].concat())
            .await
            .expect(0)
    };
    assert_eq!(
        stat(subject("a/b")).await.row("as a layer")[2..4],
        ["no", "yes"]
    );
    assert_eq!(
        stat(subject("c")).await.row("as a layer")[2..4],
        ["yes", "yes"]
    );

    let output = run(&[&["warm"], &common[..]].concat()).await.expect(0);
    output
        .has(&["24 objects: 8 filled, 16 known"])
        .keeps(secret);
    run(&["purge", "--yes", "--redis", url, "--redis-timeout", "5s"])
        .await
        .expect(0);
    stat(subject("c"))
        .await
        .has(&["Redis has no fact about the blob"]);
}

#[tokio::test]
async fn all_commands_work_with_sentinels() {
    let watched = Watched::start().await;
    all_commands(
        &watched.url(),
        sentinel::PASSWORD,
        &["sentinels: the primary of registry is"],
    )
    .await;
}

#[tokio::test]
async fn all_commands_work_with_a_cluster() {
    let redis = RedisCluster::start().await;
    let primaries = redis.primaries().len();
    let words = format!("cluster: {primaries} primaries serve all slots");
    all_commands(&redis.url(), cluster::PASSWORD, &[&words]).await;

    let one = format!(
        "redis://:{}@{}",
        cluster::PASSWORD,
        redis.servers[0].address()
    );
    let output = run(&["check", "--redis", &one]).await.expect(1);
    output.has(&["is one of a cluster; name it as redis+cluster://"]);
}
