//! Tests `layercache purge`.

use super::{Node, Stage, name, run, settle};
use layercache::{CacheStatus, CachedStore, Freshness, MemoryConfig, RedisCache, TieredCache};
use object_store::local::LocalFileSystem;
use std::sync::Arc;
use test_support::nodes::{SETTLED, config, digest};
use tokio::time::sleep;

async fn status(node: &Node, repository: &str, i: u32) -> (bool, CacheStatus) {
    let repository = node.registry().repository(name(repository));
    let answer = repository
        .contains(&digest(i), Freshness::Cached)
        .await
        .unwrap();
    (answer.value, answer.status)
}

#[tokio::test]
async fn a_purge_removes_all_facts_on_all_nodes() {
    let stage = Stage::new().await;
    let node = stage.node();
    sleep(SETTLED).await;
    stage.push(&node, "a/b", 2).await;
    assert_eq!(status(&node, "a/b", 0).await, (true, CacheStatus::Memory));
    stage.unlink("a/b", &digest(0));

    let url = stage.redis.url();
    run(&["purge", "--redis", &url]).await.refused(&["--yes"]);
    assert_eq!(
        status(&node, "a/b", 0).await,
        (true, CacheStatus::Memory),
        "nothing was removed"
    );

    let output = run(&["purge", "--yes", "--redis", &url]).await.expect(0);
    output.has(&["removed all cached facts from redis://127.0.0.1:"]);
    assert!(
        !status(&node, "a/b", 0).await.0,
        "the node asks the storage, which has no link"
    );
    assert_eq!(status(&node, "a/b", 1).await, (true, CacheStatus::Miss));
}

#[tokio::test]
async fn a_purge_of_one_repository_keeps_the_others() {
    let stage = Stage::new().await;
    let node = stage.node();
    sleep(SETTLED).await;
    for repository in ["a/b", "a/c", "d"] {
        stage.push(&node, repository, 3).await;
    }
    let redis = &stage.redis;
    let go = format!("repository::a/b::blobs::{}", digest(0));
    redis.cli(&["HSET", &go, "mediatype", "x"]);
    redis.cli(&["SADD", "repository::a/b::manifests", &digest(7).to_string()]);
    // Another node has a lease and is about to fill an old answer.
    let lease = |repository| format!("lease::{{repository::{repository}::blobs}}::{}", digest(9));
    redis.cli(&["SET", &lease("a/b"), "1", "PX", "60000"]);
    redis.cli(&["SET", &lease("d"), "1", "PX", "60000"]);
    // Redis has evicted this fact, so that only memory has it.
    redis.cli(&["SREM", "repository::a/b::blobs", &digest(2).to_string()]);
    for i in 0..3 {
        assert_eq!(status(&node, "a/b", i).await, (true, CacheStatus::Memory));
        stage.unlink("a/b", &digest(i));
    }

    let url = redis.url();
    let args = [
        "purge",
        "--yes",
        "--json",
        "--repository",
        "a/b",
        "--redis",
        &url,
    ];
    let json = run(&args).await.expect(0).json();
    assert_eq!(json["purged"], "repositories");
    assert_eq!(
        (&json["repositories"], &json["memberships"]),
        (&1.into(), &3.into())
    );
    for i in 0..3 {
        assert!(!status(&node, "a/b", i).await.0, "{i}");
    }
    assert_eq!(
        redis
            .cli(&["EXISTS", &go, &lease("a/b"), "repository::a/b::manifests"])
            .trim(),
        "0"
    );
    assert_eq!(redis.cli(&["EXISTS", &lease("d")]).trim(), "1");
    assert_eq!(status(&node, "d", 0).await, (true, CacheStatus::Redis));
    assert_eq!(
        redis
            .cli(&["EXISTS", &format!("blobs::{}", digest(0))])
            .trim(),
        "1"
    );

    let args = [
        "purge",
        "--yes",
        "--repository",
        "a/*",
        "--repository",
        "x",
        "--redis",
        &url,
    ];
    run(&args)
        .await
        .expect(0)
        .has(&["removed 3 memberships of 1 repositories"]);
    assert_eq!(redis.cli(&["EXISTS", "repository::a/c::blobs"]).trim(), "0");
    assert_eq!(redis.cli(&["SCARD", "repository::d::blobs"]).trim(), "3");
}

#[tokio::test]
async fn a_purge_removes_only_keys_with_the_prefix() {
    let stage = Stage::new().await;
    let redis = &stage.redis;
    for prefix in ["", "eu:", "e?:"] {
        redis.cli(&[
            "SADD",
            &format!("{prefix}repository::a::blobs"),
            &digest(0).to_string(),
        ]);
    }
    let url = redis.url();
    let args = [
        "purge",
        "--yes",
        "--redis-prefix",
        "e?:",
        "--repository",
        "**",
        "--redis",
        &url,
    ];
    run(&args)
        .await
        .expect(0)
        .has(&["removed 1 memberships of 1 repositories"]);
    let left = [
        "EXISTS",
        "repository::a::blobs",
        "eu:repository::a::blobs",
        "e?:repository::a::blobs",
    ];
    assert_eq!(redis.cli(&left).trim(), "2");
}

/// The other commands reach the facts of one store over a shared cache with the same option.
#[tokio::test]
async fn a_purge_of_one_store_over_a_shared_cache_leaves_the_others() {
    let stage = Stage::new().await;
    let redis = RedisCache::new(config(&stage.redis).with_namespace("cache")).unwrap();
    let cache = Arc::new(TieredCache::with_redis(MemoryConfig::default(), redis));
    let nodes = ["one", "other"].map(|namespace| {
        let store = LocalFileSystem::new_with_prefix(stage.folder.path()).unwrap();
        let builder = CachedStore::builder(store);
        builder
            .cache(Arc::clone(&cache), namespace)
            .build()
            .unwrap()
    });
    sleep(SETTLED).await;
    let [one, other] = &nodes;
    stage.push(one, "a/b", 2).await;
    for i in 0..2 {
        settle(&other.registry().repository(name("a/b")), &digest(i)).await;
    }
    stage.unlink("a/b", &digest(0));
    let of = |args: &[&str], namespace: &str| {
        let options = ["--redis-namespace", "cache", "--store-namespace", namespace];
        [args, &options]
            .concat()
            .iter()
            .map(|arg| (*arg).to_owned())
            .collect::<Vec<_>>()
    };
    let stage = &stage;
    let run_of = async |args: &[&str], namespace: &str| {
        let args = of(args, namespace);
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        stage.run(&args).await
    };
    let subject = format!("a/b@{}", digest(0));
    for namespace in ["one", "other"] {
        let said = run_of(&["stat", &subject, "--json"], namespace)
            .await
            .expect(1);
        let key = format!("cache:{namespace}/repository::a/b::blobs");
        assert_eq!(said.json()["redis"]["layer"]["key"], *key);
        assert_eq!(said.json()["redis"]["layer"]["value"], "found");
    }
    let said = run_of(&["audit"], "one").await.expect(1);
    said.has(&["stale-membership", "cache:one/repository::a/b::blobs"]);

    let url = stage.redis.url();
    let purge = of(&["purge", "--yes", "--redis", &url], "one");
    let purge: Vec<_> = purge.iter().map(String::as_str).collect();
    run(&purge)
        .await
        .expect(0)
        .has(&["removed all cached facts"]);
    assert!(!status(one, "a/b", 0).await.0, "the node asks the storage");
    assert_eq!(status(one, "a/b", 1).await, (true, CacheStatus::Miss));
    assert_eq!(status(other, "a/b", 0).await, (true, CacheStatus::Redis));

    // The command fills a name space too.
    let said = run_of(&["warm"], "one").await.expect(0);
    assert!(!said.out.is_empty());
    assert_eq!(status(one, "a/b", 1).await, (true, CacheStatus::Memory));
    run_of(&["stat", &subject], "a:b")
        .await
        .refused(&["1 to 64 letters"]);
}
