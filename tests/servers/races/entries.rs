//! Tests entries that live too long, are incomplete, or are taken for other entries.

use super::{MEMORY_HIT, MISS, REDIS_HIT, all_know, nodes, world};
use layercache::{CacheStatus, Freshness, RepositoryName};
use object_store::ObjectStoreExt;
use std::time::{Duration, Instant};
use test_support::nodes::{
    LENGTH, SET, bare, blob_path, config, digest, hash, layers, node, node_with, put, stat, until,
    until_in_memory,
};
use test_support::redis::Redis;

fn left(redis: &Redis, key: &str) -> i64 {
    redis.cli(&["PTTL", key]).parse().unwrap()
}

/// One node fills Redis. Another node reads the entry shortly before it expires and keeps it in
/// memory.
#[tokio::test]
async fn race_16_memory_expires_no_later_than_redis() {
    const TTL: Duration = Duration::from_millis(2000);
    let (redis, [store, other]) = world().await;
    let config = config(&redis).with_ttl(TTL);
    let (first, last) = (node_with(&store, config.clone()), node_with(&other, config));
    let filled = Instant::now();
    all_know([&first]).await;
    store.inner().delete(&blob_path(&digest(1))).await.unwrap();
    let hash = hash(&digest(1));
    while left(&redis, &hash) > 200 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(stat(&last, &digest(1)).await, REDIS_HIT);
    assert_eq!(stat(&last, &digest(1)).await, MEMORY_HIT);
    while filled.elapsed() < TTL {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for node in [&first, &last] {
        assert_eq!(stat(node, &digest(1)).await.0, None, "the entry is too old");
    }
}

/// SpiceDB#3299, Gravitino#13099: an entry that is read often never expires.
#[tokio::test]
async fn race_17_neither_reads_nor_other_fills_renew_a_time_to_live() {
    let (redis, [store, other], [first, second]) = nodes().await;
    all_know([&first]).await;
    let hash = hash(&digest(1));
    for key in [SET, &hash] {
        redis.cli(&["PEXPIRE", key, "60000"]);
    }
    for i in 2..12 {
        for node in [&first, &second] {
            node.clear_memory();
            assert_eq!(stat(node, &digest(1)).await, REDIS_HIT);
            assert_eq!(stat(node, &digest(1)).await, MEMORY_HIT);
        }
        // Reads and writes of more members of the same set.
        put(&store, &digest(i)).await;
        until_in_memory(&first, &digest(i)).await;
        layers(&second).link(&digest(i + 100)).await.unwrap();
        for key in [SET, &hash] {
            assert!((1..=60_000).contains(&left(&redis, key)), "{key}");
        }
    }
    assert_eq!(other.reads(), 0);
}

/// distribution/distribution#4742: Redis evicts the set or the hash alone, and the registry takes
/// the remaining one for both.
#[tokio::test]
async fn distribution_4742_each_remaining_fact_of_an_entry_is_independent() {
    let (redis, [store, _], [writer, reader]) = nodes().await;
    let stranger = "some/other".parse().unwrap();
    all_know([&writer]).await;

    redis.cli(&["DEL", SET]);
    let reads = store.apart();
    let fresh = node(&reads, &redis);
    assert_eq!(
        stat(&fresh, &digest(1)).await,
        MISS,
        "the hash is no membership"
    );
    assert_eq!(reads.reads(), 1, "one read, for the membership");
    until(&fresh, &digest(1), MEMORY_HIT).await;
    assert_eq!(redis.cli(&["SCARD", SET]), "1");

    redis.cli(&["DEL", &hash(&digest(1))]);
    let reads = store.apart();
    let fresh = node(&reads, &redis);
    assert_eq!(
        stat(&fresh, &digest(1)).await,
        MISS,
        "the set has no length"
    );
    assert_eq!(reads.reads(), 1, "one read, for the blob");
    until(&fresh, &digest(1), MEMORY_HIT).await;

    // Only the hash is left after the link was deleted.
    layers(&writer).unlink(&digest(1)).await.unwrap();
    assert_eq!(redis.cli(&["EXISTS", &hash(&digest(1))]), "1");
    let other = reader.registry().repository(stranger);
    for node in [layers(&reader), other] {
        let answer = node.stat(&digest(1), Freshness::Cached).await.unwrap();
        assert_eq!(answer.value, None);
    }
}

/// The names of the repositories are parts of each other, or look like keys.
#[tokio::test]
async fn race_37_no_repository_name_collides_with_another() {
    let (redis, bare) = (Redis::start().await, bare(Duration::ZERO));
    let names = [
        "a",
        "aa",
        "a/a",
        "a/a/a",
        "a-a",
        "a.a",
        "a_a",
        "a__a",
        "a/blobs",
        "blobs",
        "manifests",
        "a/manifests",
        "repository",
        "lease",
        "fence",
        "sha256",
        "nodes",
    ];
    let names: Vec<RepositoryName> = names.iter().map(|name| name.parse().unwrap()).collect();
    let node = node(&bare, &redis);
    node.put(&blob_path(&digest(1)), "content".into())
        .await
        .unwrap();
    for member in &names {
        let registry = node.registry();
        let layers = registry.repository(member.clone());
        layers.link(&digest(1)).await.unwrap();
        for round in 0..3 {
            let reads = bare.reads();
            for name in &names {
                for (kind, repository) in [
                    ("layers", registry.repository(name.clone())),
                    ("manifests", registry.repository(name.clone()).manifests()),
                ] {
                    let answer = repository.contains(&digest(1), Freshness::Cached).await;
                    let is_member = name == member && kind == "layers";
                    assert_eq!(
                        answer.unwrap().value,
                        is_member,
                        "{kind} of {name}, where {member} has it ({round})"
                    );
                }
            }
            assert!(
                bare.reads() - reads >= 2 * names.len() - 1,
                "absence is not cached"
            );
        }
        let status = layers.stat(&digest(1), Freshness::Cached).await.unwrap();
        assert_eq!(status.value.map(|meta| meta.length()), Some(LENGTH));
        layers.unlink(&digest(1)).await.unwrap();
        node.clear_memory();
        let answer = layers
            .contains(&digest(1), Freshness::Cached)
            .await
            .unwrap();
        assert_eq!((answer.value, answer.status), (false, CacheStatus::Miss));
    }
}
