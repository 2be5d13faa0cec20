//! Tests layouts in which each repository has its own copy of a blob: the cache never answers for
//! one copy with facts of another.

use test_support as support;

use layercache::{CacheStatus, Freshness};
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use std::time::Duration;
use support::nodes::{config, digest};
use support::own_blobs::{ask, hash, name, node, path, warm};
use support::recording::Recording;
use support::redis::Redis;

#[tokio::test]
async fn a_copy_has_its_own_entity_tag_and_time() {
    for omit_path in [false, true] {
        let redis = Redis::start().await;
        let config = || config(&redis).with_omit_path(omit_path);
        let (bare, digest) = (Recording::new(InMemory::new()), digest(1));
        for i in 0..2 {
            bare.put(&path(i, &digest), "content".into()).await.unwrap();
        }
        let [first, second] = [node(&bare, config()), node(&bare, config())];
        for i in [0, 1, 0] {
            warm(&first, &path(i, &digest)).await;
        }
        let reads = bare.reads();
        let mut tags = Vec::new();
        for i in 0..2 {
            let (meta, status) = ask(&second, &path(i, &digest)).await;
            assert_eq!(status, CacheStatus::Redis, "{i}, no paths: {omit_path}");
            assert_eq!(meta, bare.inner().head(&path(i, &digest)).await.unwrap());
            tags.push(meta.e_tag);
        }
        assert_ne!(tags[0], tags[1]);
        assert_eq!(bare.reads(), reads);
        assert_eq!(redis.cli(&["EXISTS", &format!("blobs::{digest}")]), "0");
    }
}

#[tokio::test]
async fn a_layer_of_many_repositories_is_answered_in_each() {
    const REPOSITORIES: usize = 20;
    let redis = Redis::start().await;
    let bare = Recording::new(InMemory::new());
    let all = || (0..10).flat_map(|i| (0..REPOSITORIES).map(move |of| path(of, &digest(i))));
    for path in all() {
        bare.put(&path, "content".into()).await.unwrap();
    }
    let first = node(&bare, config(&redis));
    for path in all() {
        warm(&first, &path).await;
    }
    let second = node(&bare, config(&redis));
    let mut by_redis = 0;
    for path in all() {
        by_redis += usize::from(ask(&second, &path).await.1 == CacheStatus::Redis);
    }
    assert_eq!(by_redis, 200);
}

#[tokio::test]
async fn stat_many_is_answered_from_redis() {
    let redis = Redis::start().await;
    let (bare, digests) = (Recording::new(InMemory::new()), [1, 2, 3].map(digest));
    for digest in &digests {
        bare.put(&path(0, digest), "content".into()).await.unwrap();
    }
    let first = node(&bare, config(&redis));
    for digest in &digests {
        warm(&first, &path(0, digest)).await;
    }
    let second = node(&bare, config(&redis));
    let repository = second.registry().repository(name(0));
    let answers = repository.stat_many(&digests, Freshness::Cached);
    for (answer, digest) in answers.await.unwrap().into_iter().zip(&digests) {
        assert_eq!(answer.status, CacheStatus::Redis);
        assert_eq!(answer.value.unwrap().path(), path(0, digest).as_ref());
    }
}

#[tokio::test]
async fn a_change_of_one_copy_keeps_the_other_copies() {
    let redis = Redis::start().await;
    let (bare, digest) = (Recording::new(InMemory::new()), digest(1));
    let [first, second] = [node(&bare, config(&redis)), node(&bare, config(&redis))];
    for i in 0..2 {
        bare.put(&path(i, &digest), "content".into()).await.unwrap();
        warm(&first, &path(i, &digest)).await;
        warm(&second, &path(i, &digest)).await;
    }
    let layers = first.registry().repository(name(0));
    layers.unlink(&digest).await.unwrap();
    assert_eq!(redis.cli(&["EXISTS", &hash(0, &digest)]), "0");
    assert!(second.head(&path(0, &digest)).await.is_err());
    let (_, status) = ask(&second, &path(1, &digest)).await;
    assert_eq!(status, CacheStatus::Memory);

    first
        .put(&path(1, &digest), "content".into())
        .await
        .unwrap();
    let (meta, _) = ask(&second, &path(1, &digest)).await;
    assert_eq!(meta, bare.inner().head(&path(1, &digest)).await.unwrap());
}

#[tokio::test]
async fn a_repository_purge_removes_only_its_own_metadata() {
    let redis = Redis::start().await;
    let (bare, digest) = (Recording::new(InMemory::new()), digest(1));
    let first = node(&bare, config(&redis));
    for i in 0..2 {
        bare.put(&path(i, &digest), "content".into()).await.unwrap();
        warm(&first, &path(i, &digest)).await;
    }
    let of = name(1);
    let forgotten = first.purge_repositories(|name| name == of.as_str());
    let forgotten = forgotten.await.unwrap();
    assert_eq!((forgotten.repositories, forgotten.memberships), (1, 1));
    assert_eq!(redis.cli(&["EXISTS", &hash(0, &digest)]), "1");
    assert_eq!(redis.cli(&["EXISTS", &hash(1, &digest)]), "0");
    for (i, expected) in [(0, CacheStatus::Redis), (1, CacheStatus::Miss)] {
        assert_eq!(ask(&first, &path(i, &digest)).await.1, expected);
    }
    first.purge().await.unwrap();
    assert_eq!(redis.cli(&["EXISTS", &hash(0, &digest)]), "0");
}

#[tokio::test]
async fn a_warmed_redis_has_the_length_of_each_copy() {
    let redis = Redis::start().await;
    let (bare, digest) = (Recording::new(InMemory::new()), digest(1));
    for i in 0..3 {
        bare.put(&path(i, &digest), "content".into()).await.unwrap();
    }
    let first = node(&bare, config(&redis));
    let warmed = first.warm(None).await.unwrap();
    assert_eq!((warmed.seen, warmed.filled), (3, 3));
    let second = node(&bare, config(&redis));
    for i in 0..3 {
        let layers = second.registry().repository(name(i));
        let answer = layers.stat(&digest, Freshness::Cached).await.unwrap();
        assert_eq!(answer.status, CacheStatus::Redis);
        assert_eq!(answer.value.unwrap().path(), path(i, &digest).as_ref());
    }
}

#[tokio::test]
async fn an_impossible_length_is_a_miss() {
    let redis = Redis::start().await;
    let (bare, digest) = (Recording::new(InMemory::new()), digest(1));
    bare.put(&path(0, &digest), "".into()).await.unwrap();
    let first = node(&bare, config(&redis));
    for _ in 0..5 {
        let (meta, status) = ask(&first, &path(0, &digest)).await;
        assert_eq!(
            (meta.size, status),
            (0, CacheStatus::Miss),
            "the answer of the store"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(redis.cli(&["EXISTS", &hash(0, &digest)]), "0");
    assert_eq!(first.warm(None).await.unwrap().filled, 0);
    let (set, text) = (
        format!("repository::{}::blobs", name(0)),
        digest.to_string(),
    );
    redis.cli(&["SADD", &set, &text]);
    let fields = ["length", "0", "last_modified", "1.000000000"];
    redis.cli(&[&["HSET", &hash(0, &digest)], &fields[..]].concat());
    let second = node(&bare, config(&redis));
    assert_eq!(ask(&second, &path(0, &digest)).await.1, CacheStatus::Miss);
}
