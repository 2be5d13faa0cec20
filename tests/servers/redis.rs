//! Tests the caches with a real Redis: contract, keys, time to live, and a server that fails.

use test_support as support;

use layercache::cache::check;
use layercache::{
    CacheStatus, CachedStore, Digest, Freshness, LayerInfoCache, LayerMeta, Link, MemoryCache,
    MemoryConfig, RedisCache, RedisConfig, Repository, StoreBackend, TieredCache,
};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{GetOptions, ObjectStore, ObjectStoreExt};
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};
use support::recording::Recording;
use support::redis::Redis;
use support::server::Signal;

type Bare = Recording<InMemory>;

/// Long enough for a busy machine, because these tests do not test the deadline.
const PATIENT: Duration = Duration::from_secs(5);

fn config(redis: &Redis) -> RedisConfig {
    RedisConfig::new(redis.url()).with_timeout(PATIENT)
}

fn cache(redis: &Redis) -> RedisCache {
    RedisCache::new(config(redis)).unwrap()
}

fn tiered(redis: &Redis) -> TieredCache {
    TieredCache::with_redis(MemoryConfig::default(), cache(redis))
}

fn digest(seed: u8) -> Digest {
    Digest::Sha256([seed; 32])
}

fn link(seed: u8) -> Link {
    Link::layer("library/alpine".parse().unwrap(), digest(seed))
}

fn blob_path(digest: &Digest) -> Path {
    let hex = digest.hex();
    Path::from(format!(
        "docker/registry/v2/blobs/sha256/{}/{hex}/data",
        &hex[..2]
    ))
}

/// Returns a store with one blob and its link.
async fn bare_with_a_blob() -> Bare {
    let bare = Recording::new(InMemory::new());
    let store = CachedStore::new(bare.clone());
    store
        .put(&blob_path(&digest(1)), "content".into())
        .await
        .unwrap();
    let repository = store.registry().repository(link(1).repository);
    repository.link(&digest(1)).await.unwrap();
    bare
}

fn node(bare: &Bare, config: RedisConfig) -> CachedStore<Bare> {
    CachedStore::builder(bare.clone())
        .redis(config)
        .build()
        .unwrap()
}

fn layers(node: &CachedStore<Bare>) -> Repository<StoreBackend> {
    node.registry().repository(link(1).repository)
}

async fn stat(node: &CachedStore<Bare>) -> (Option<u64>, CacheStatus) {
    let answer = layers(node)
        .stat(&digest(1), Freshness::Cached)
        .await
        .unwrap();
    (answer.value.map(|meta| meta.length()), answer.status)
}

/// Asks until the node gives this answer, because a fill runs after its answer.
async fn until(node: &CachedStore<Bare>, expected: (Option<u64>, CacheStatus)) {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let answer = stat(node).await;
        if answer == expected {
            return;
        }
        assert!(Instant::now() < end, "{answer:?}, never {expected:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_implementation_passes_the_check_suite() {
    check::all(Arc::new(MemoryCache::new(MemoryConfig::default()))).await;
    check::all(Arc::new(TieredCache::in_memory(MemoryConfig::default()))).await;
    check::all(Arc::new(cache(&Redis::start().await))).await;
    check::all(Arc::new(tiered(&Redis::start().await))).await;
    let redis = Redis::start().await;
    let prefixed = RedisCache::new(config(&redis).with_prefix("eu:")).unwrap();
    check::all(Arc::new(prefixed)).await;
    let keys = redis.cli(&["KEYS", "*"]);
    assert!(!keys.is_empty());
    assert!(keys.lines().all(|key| key.starts_with("eu:")), "{keys}");
}

#[tokio::test]
async fn invalid_stored_values_are_misses_and_overwritten() {
    let set = "repository::check/corruption::blobs";
    let hash = |link: &Link| format!("blobs::{}", link.digest);
    type Spoil = fn(&Redis, &str, &str);
    let spoils: [Spoil; 5] = [
        |redis, set, hash| {
            redis.cli(&["SET", set, "x"]);
            redis.cli(&["SET", hash, "x"]);
        },
        |redis, set, hash| {
            redis.cli(&["DEL", set, hash]);
            redis.cli(&["HSET", set, "a", "b"]);
            redis.cli(&["SADD", hash, "length"]);
        },
        |redis, set, hash| {
            redis.cli(&["DEL", set]);
            redis.cli(&["HSET", hash, "length", "-60"]);
        },
        |redis, set, hash| {
            redis.cli(&["DEL", set]);
            redis.cli(&["HSET", hash, "size", "61"]);
        },
        |redis, set, hash| {
            redis.cli(&["DEL", set]);
            redis.cli(&["HDEL", hash, "path"]);
        },
    ];
    for spoil in spoils {
        let redis = Redis::start().await;
        let shared = cache(&redis);
        let scribble = async |link: Link| spoil(&redis, set, &hash(&link));
        check::corruption(&shared, scribble).await;
    }
}

#[tokio::test]
async fn keys_fields_and_values_are_those_of_the_contract() {
    let redis = Redis::start().await;
    let cache = cache(&redis);
    let manifest = Link::manifest("library/alpine".parse().unwrap(), digest(2));
    cache.add(&link(1)).await.unwrap();
    cache.add(&manifest).await.unwrap();
    let meta = LayerMeta::new("a/data", 7).unwrap().with_e_tag("\"0\"");
    let meta = meta.with_last_modified(UNIX_EPOCH + Duration::new(1, 2));
    cache.set_meta(&digest(1), &meta).await.unwrap();

    let (one, two) = (digest(1).to_string(), digest(2).to_string());
    let members = |set: &str| redis.cli(&["SMEMBERS", set]);
    assert_eq!(members("repository::library/alpine::blobs"), one);
    assert_eq!(members("repository::library/alpine::manifests"), two);
    let field = |field: &str| redis.cli(&["HGET", &format!("blobs::{one}"), field]);
    assert_eq!(field("path"), "a/data");
    assert_eq!(field("length"), "7");
    assert_eq!(field("e_tag"), "\"0\"");
    assert_eq!(field("last_modified"), "1.000000002");
    assert_eq!(redis.cli(&["DBSIZE"]), "3");
}

#[tokio::test]
async fn entries_expire_and_reads_do_not_renew_them() {
    let redis = Redis::start().await;
    let ttl = Duration::from_secs(100);
    let cache = RedisCache::new(config(&redis).with_ttl(ttl)).unwrap();
    cache.add(&link(1)).await.unwrap();
    let meta = LayerMeta::new("a/data", 7).unwrap();
    cache.set_meta(&digest(1), &meta).await.unwrap();
    let keys = [
        "repository::library/alpine::blobs".to_owned(),
        format!("blobs::{}", digest(1)),
    ];
    for key in &keys {
        let left = |key: &str| redis.cli(&["PTTL", key]).parse::<u64>().unwrap();
        assert!(
            (80_000..=100_000).contains(&left(key)),
            "{key}: {}",
            left(key)
        );
        redis.cli(&["PEXPIRE", key, "50000"]);
        for _ in 0..3 {
            assert!(cache.contains(&link(1)).await.unwrap());
            assert!(cache.meta(&digest(1)).await.unwrap().is_some());
        }
        assert!(left(key) <= 50_000, "a read has renewed {key}");
    }
    cache.add(&link(2)).await.unwrap();
    let left: u64 = redis.cli(&["PTTL", &keys[0]]).parse().unwrap();
    assert!(left <= 50_000, "a new member has renewed the set");
    redis.cli(&["PERSIST", &keys[0]]);
    cache.add(&link(3)).await.unwrap();
    let left: i64 = redis.cli(&["PTTL", &keys[0]]).parse().unwrap();
    assert!(
        left > 0,
        "a set that another writer left without a time has one"
    );
}

#[tokio::test]
async fn memory_and_redis_together_keep_a_fact_for_the_ttl_at_most() {
    let redis = Redis::start().await;
    let config = config(&redis).with_ttl(Duration::from_secs(100));
    let memory = MemoryConfig::default().with_ttl(Duration::from_secs(30));
    let cache = TieredCache::with_redis(memory, RedisCache::new(config).unwrap());
    cache.add(&link(1)).await.unwrap();
    let set = "repository::library/alpine::blobs";
    let left: u64 = redis.cli(&["PTTL", set]).parse().unwrap();
    assert!(left <= 70_000, "{left} ms in Redis and 30 s more in memory");
}

#[tokio::test]
async fn a_second_node_gets_redis_hits() {
    let (redis, bare) = (Redis::start().await, bare_with_a_blob().await);
    let (first, second) = (node(&bare, config(&redis)), node(&bare, config(&redis)));
    assert_eq!(stat(&first).await, (Some(7), CacheStatus::Miss));
    until(&first, (Some(7), CacheStatus::Memory)).await;

    let reads = bare.reads();
    assert_eq!(stat(&second).await, (Some(7), CacheStatus::Redis));
    until(&second, (Some(7), CacheStatus::Memory)).await;

    // A third node answers a plain head from Redis too, because Redis has all fields of it.
    let third = node(&bare, config(&redis));
    let head = GetOptions::new().with_head(true);
    let result = third.get_opts(&blob_path(&digest(1)), head).await.unwrap();
    assert_eq!(result.extensions.get(), Some(&CacheStatus::Redis));
    assert_eq!(bare.reads(), reads, "the read reached the store");
    assert_eq!(
        result.meta,
        bare.head(&blob_path(&digest(1))).await.unwrap()
    );
}

#[tokio::test]
async fn a_delete_leaves_nothing_in_redis() {
    let (redis, bare) = (Redis::start().await, bare_with_a_blob().await);
    let node = node(&bare, config(&redis));
    until(&node, (Some(7), CacheStatus::Memory)).await;
    node.delete(&blob_path(&digest(1))).await.unwrap();
    layers(&node).unlink(&digest(1)).await.unwrap();
    // The remaining keys belong to the nodes, not to facts.
    let left = redis.cli(&["KEYS", "*"]);
    assert!(
        left.lines().all(|key| key.starts_with("layercache::")),
        "{left}"
    );
    assert_eq!(stat(&node).await.0, None);
}

/// CVE-2026-35172: a delete clears only what repositories share, and then a read of another
/// repository brings the deleted blob back.
#[tokio::test]
async fn cve_2026_35172_a_read_in_another_repository_restores_no_membership() {
    let (redis, bare) = (Redis::start().await, bare_with_a_blob().await);
    let node = node(&bare, config(&redis));
    let other = node.registry().repository("other/image".parse().unwrap());
    other
        .mount(&link(1).repository, &digest(1))
        .await
        .unwrap()
        .unwrap();
    until(&node, (Some(7), CacheStatus::Memory)).await;

    layers(&node).unlink(&digest(1)).await.unwrap();
    assert_eq!(stat(&node).await.0, None);
    for _ in 0..3 {
        let answer = other.stat(&digest(1), Freshness::Cached).await.unwrap();
        assert_eq!(answer.value.map(|meta| meta.length()), Some(7));
        assert_eq!(stat(&node).await.0, None);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn without_the_path_a_hash_is_small_and_still_a_hit() {
    let (redis, bare) = (Redis::start().await, bare_with_a_blob().await);
    let config = config(&redis).with_omit_path(true);
    let first = node(&bare, config.clone());
    until(&first, (Some(7), CacheStatus::Memory)).await;
    let key = format!("blobs::{}", digest(1));
    assert_eq!(redis.cli(&["HEXISTS", &key, "path"]), "0");
    // Older servers have another name for the small encoding.
    assert_ne!(redis.cli(&["OBJECT", "ENCODING", &key]), "hashtable");
    let second = layers(&node(&bare, config))
        .stat(&digest(1), Freshness::Cached)
        .await
        .unwrap();
    assert_eq!(second.status, CacheStatus::Redis);
    assert_eq!(second.value.unwrap().path(), blob_path(&digest(1)).as_ref());
}

/// A node that writes paths reads the entries of a node that does not, and the other way round.
#[tokio::test]
async fn nodes_with_and_without_the_path_share_a_redis() {
    let (redis, bare) = (Redis::start().await, bare_with_a_blob().await);
    let key = format!("blobs::{}", digest(1));
    for stores in [true, false] {
        redis.cli(&["FLUSHALL"]);
        let with = |path: bool| node(&bare, config(&redis).with_omit_path(!path));
        let writer = with(stores);
        until(&writer, (Some(7), CacheStatus::Memory)).await;
        let is_there = redis.cli(&["HEXISTS", &key, "path"]);
        assert_eq!(is_there, u8::from(stores).to_string());
        let other = layers(&with(!stores))
            .stat(&digest(1), Freshness::Cached)
            .await
            .unwrap();
        assert_eq!(other.status, CacheStatus::Redis);
        assert_eq!(other.value.unwrap().path(), blob_path(&digest(1)).as_ref());

        // The seed's readers ask for both fields. A reader without a layout has no other source for
        // the path.
        let seed = redis.cli(&["HMGET", &key, "path", "length"]);
        let path = if stores {
            blob_path(&digest(1)).to_string()
        } else {
            String::new()
        };
        assert_eq!(seed, format!("{path}\n7"));
        let meta = cache(&redis).meta(&digest(1)).await.unwrap();
        assert_eq!(meta.is_some(), stores);
    }
}

#[tokio::test]
async fn a_path_that_the_layout_does_not_have_is_a_miss() {
    let (redis, bare) = (Redis::start().await, bare_with_a_blob().await);
    let set = "repository::library/alpine::blobs";
    let key = format!("blobs::{}", digest(1));
    redis.cli(&["SADD", set, &digest(1).to_string()]);
    redis.cli(&["HSET", &key, "path", "etc/passwd", "length", "7"]);
    let node = node(&bare, config(&redis));
    let answer = layers(&node)
        .stat(&digest(1), Freshness::Cached)
        .await
        .unwrap();
    assert_eq!(answer.status, CacheStatus::Miss);
    assert_eq!(answer.value.unwrap().path(), blob_path(&digest(1)).as_ref());
    until(&node, (Some(7), CacheStatus::Memory)).await;
    let repaired = redis.cli(&["HGET", &key, "path"]);
    assert_eq!(repaired, blob_path(&digest(1)).as_ref());
}

#[tokio::test]
async fn reads_succeed_without_redis_and_use_it_again_when_it_is_back() {
    let (mut redis, bare) = (Redis::start().await, bare_with_a_blob().await);
    let config = RedisConfig::new(redis.url());
    redis.kill();
    let node = node(&bare, config);
    for _ in 0..20 {
        assert_eq!(stat(&node).await, (Some(7), CacheStatus::Miss));
    }
    let refused = layers(&node).unlink(&digest(1)).await.unwrap_err();
    let text = refused.to_string();
    assert!(
        text.starts_with("change refused, nothing was changed: redis: "),
        "{text}"
    );
    assert_eq!(stat(&node).await.0, Some(7), "nothing was changed");

    redis.restart_on_same_port().await;
    until(&node, (Some(7), CacheStatus::Memory)).await;
    layers(&node).unlink(&digest(1)).await.unwrap();
    assert_eq!(stat(&node).await.0, None);

    // The same once more, with a connection that is up.
    layers(&node).link(&digest(1)).await.unwrap();
    until(&node, (Some(7), CacheStatus::Memory)).await;
    redis.kill();
    node.clear_memory();
    assert_eq!(stat(&node).await, (Some(7), CacheStatus::Miss));
    redis.restart_on_same_port().await;
    until(&node, (Some(7), CacheStatus::Memory)).await;
}

#[tokio::test]
async fn a_hanging_redis_delays_no_read_beyond_the_deadline() {
    let (redis, bare) = (Redis::start().await, bare_with_a_blob().await);
    let deadline = Duration::from_millis(50);
    let node = node(&bare, RedisConfig::new(redis.url()).with_timeout(deadline));
    until(&node, (Some(7), CacheStatus::Memory)).await;
    redis.signal(Signal::Stop);
    let mut times = Vec::new();
    for _ in 0..40 {
        node.clear_memory();
        let start = Instant::now();
        assert_eq!(stat(&node).await, (Some(7), CacheStatus::Miss));
        times.push(start.elapsed());
    }
    let slow = times.iter().filter(|time| **time > deadline / 2).count();
    assert!(times.iter().all(|time| *time < deadline * 8), "{times:?}");
    assert!(slow <= 20, "the node gives up after a few: {times:?}");
    redis.signal(Signal::Cont);
    until(&node, (Some(7), CacheStatus::Memory)).await;
}

#[tokio::test]
async fn the_password_appears_nowhere() {
    let redis = Redis::start_with(&["--requirepass", "hunter2-secret"]).await;
    let bare = bare_with_a_blob().await;
    let good = node(&bare, config(&redis));
    until(&good, (Some(7), CacheStatus::Memory)).await;

    let wrong = redis.url().replace("hunter2-secret", "wrong-secret");
    let bad = node(&bare, RedisConfig::new(wrong.clone()));
    assert_eq!(stat(&bad).await.0, Some(7));
    let refused = layers(&bad).unlink(&digest(1)).await.unwrap_err();
    let invalid = RedisCache::new(RedisConfig::new("reddis://:hunter2-secret@x")).unwrap_err();
    for text in [
        format!("{refused} {refused:?}"),
        format!("{invalid} {invalid:?}"),
        format!("{good:?} {bad:?}"),
        format!("{:?}", RedisConfig::new(wrong)),
        format!("{:?}", cache(&redis)),
    ] {
        assert!(!text.contains("secret"), "{text}");
    }
    assert!(invalid.to_string().contains("redis url"), "{invalid}");
}
