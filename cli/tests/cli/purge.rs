//! Tests `layercache purge`.

use crate::support::nodes::{SETTLED, digest};
use crate::{Node, Stage, name, run};
use layercache::{CacheStatus, Freshness};
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
