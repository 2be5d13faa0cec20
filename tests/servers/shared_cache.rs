//! Tests several stores over one cache: `CachedStoreBuilder::cache`. They share its memory, its
//! connection and its node, and never get each other's answers.

use test_support as support;

use layercache::layout::{Distribution, Layout, OciImages};
use layercache::{
    CacheStatus, CachedStore, ChangePolicy, Error, Freshness, LayerInfoCache, Limits, Link,
    MemoryConfig, RedisCache, RedisConfig, Registry, Settings, TieredCache,
};
use object_store::memory::InMemory;
use object_store::prefix::PrefixStore;
use object_store::{GetOptions, ObjectStore, ObjectStoreExt};
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::metrics::Metrics;
use support::nodes::{PATIENCE, SET, SETTLED, blob_path, config, digest, eventually, hash, name};
use support::redis::Redis;

type Bucket = Arc<dyn ObjectStore>;
type Node = CachedStore<PrefixStore<Bucket>>;

fn cache_of(config: RedisConfig) -> Arc<TieredCache> {
    let redis = RedisCache::new(config).unwrap();
    Arc::new(TieredCache::with_redis(MemoryConfig::default(), redis))
}

fn in_memory() -> Arc<TieredCache> {
    Arc::new(TieredCache::in_memory(MemoryConfig::default()))
}

fn tenant(bucket: &Bucket, tenant: &str, cache: &Arc<TieredCache>) -> Node {
    try_tenant(bucket, tenant, cache, tenant).unwrap()
}

fn try_tenant(
    bucket: &Bucket,
    tenant: &str,
    cache: &Arc<TieredCache>,
    namespace: &str,
) -> Result<Node, Error> {
    let store = PrefixStore::new(Arc::clone(bucket), tenant);
    let builder = CachedStore::builder(store);
    builder.cache(Arc::clone(cache), namespace).build()
}

/// Puts a blob of this content and its link into a tenant's part of the bucket, past all caches.
async fn put(bucket: &Bucket, tenant: &str, i: u32, content: &'static str) {
    let store = PrefixStore::new(Arc::clone(bucket), tenant);
    let link = Distribution::default().link_path(&Link::layer(name(), digest(i)));
    let text = digest(i).to_string();
    store.put(&link.unwrap(), text.into()).await.unwrap();
    let blob = blob_path(&digest(i));
    store.put(&blob, content.into()).await.unwrap();
}

type Found = (Option<u64>, CacheStatus);

async fn stat(node: &Node, i: u32) -> Found {
    let layers = node.registry().repository(name());
    let answer = layers.stat(&digest(i), Freshness::Cached).await.unwrap();
    (answer.value.map(|meta| meta.length()), answer.status)
}

/// Asks until the node gives this answer: a fill runs after its answer.
async fn until(node: &Node, i: u32, expected: Found) {
    let end = Instant::now() + PATIENCE;
    loop {
        let answer = stat(node, i).await;
        if answer == expected {
            return;
        }
        assert!(Instant::now() < end, "{answer:?}, never {expected:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Checks that a node answers nothing of another tenant's blob, whatever it is asked.
async fn knows_nothing(node: &Node, i: u32) {
    let (registry, digest) = (node.registry(), digest(i));
    let layers = registry.repository(name());
    for freshness in [Freshness::Cached, Freshness::Verified] {
        assert_eq!(layers.stat(&digest, freshness).await.unwrap().value, None);
        assert!(!layers.contains(&digest, freshness).await.unwrap().value);
        let many = layers.stat_many(&[digest], freshness).await.unwrap();
        assert!(many.iter().all(|answer| answer.value.is_none()));
        let blob = registry.blobs().stat(&digest, freshness).await.unwrap();
        assert_eq!(blob.value, None);
    }
    let link = Distribution::default().link_path(&Link::layer(name(), digest));
    for path in [blob_path(&digest), link.unwrap()] {
        let head = node.head(&path).await.unwrap_err();
        assert!(
            matches!(head, object_store::Error::NotFound { .. }),
            "{head}"
        );
        let content = node.get(&path).await.unwrap_err();
        assert!(
            matches!(content, object_store::Error::NotFound { .. }),
            "{content}"
        );
    }
}

/// Checks each kind of answer that memory or Redis may give of a tenant's own blob.
async fn knows(node: &Node, i: u32, length: u64) {
    let (registry, digest) = (node.registry(), digest(i));
    let layers = registry.repository(name());
    let twice = [digest; 2];
    let many = layers.stat_many(&twice, Freshness::Cached).await;
    for answer in many.unwrap() {
        assert_eq!(answer.value.map(|meta| meta.length()), Some(length));
    }
    assert_eq!(node.head(&blob_path(&digest)).await.unwrap().size, length);
    let link = Distribution::default().link_path(&Link::layer(name(), digest));
    let link = link.unwrap();
    for _ in 0..2 {
        let options = GetOptions::new().with_head(true);
        let head = node.get_opts(&link, options).await.unwrap();
        assert_eq!(head.meta.size, digest.to_string().len() as u64);
        let content = node.get(&link).await.unwrap().bytes().await.unwrap();
        assert_eq!(content, digest.to_string().as_bytes());
    }
}

#[tokio::test]
async fn tenants_that_share_a_memory_never_get_each_others_answers() {
    let (bucket, cache): (Bucket, _) = (Arc::new(InMemory::new()), in_memory());
    put(&bucket, "a", 1, "of a").await;
    put(&bucket, "b", 1, "of the other").await;
    put(&bucket, "a", 2, "only a").await;
    let [a, b] = ["a", "b"].map(|name| tenant(&bucket, name, &cache));
    until(&a, 1, (Some(4), CacheStatus::Memory)).await;
    until(&a, 2, (Some(6), CacheStatus::Memory)).await;
    assert_eq!(stat(&b, 1).await, (Some(12), CacheStatus::Miss));
    until(&b, 1, (Some(12), CacheStatus::Memory)).await;
    for _ in 0..3 {
        knows(&a, 1, 4).await;
        knows(&b, 1, 12).await;
        knows_nothing(&b, 2).await;
    }
    // The cache itself is another name space.
    let link = Link::layer(name(), digest(1));
    assert!(!cache.contains(&link).await.unwrap());
    assert_eq!(cache.meta(&digest(1)).await.unwrap(), None);
    cache.add(&link).await.unwrap();
    let removed = b.registry().repository(name());
    removed.unlink(&digest(1)).await.unwrap();
    assert_eq!(stat(&b, 1).await.0, None);
    until(&a, 1, (Some(4), CacheStatus::Memory)).await;
    // A warm of one tenant fills the facts of that tenant.
    b.purge().await.unwrap();
    a.warm(None).await.unwrap();
    assert_eq!(stat(&a, 2).await, (Some(6), CacheStatus::Memory));
    knows_nothing(&b, 2).await;
}

#[tokio::test]
async fn tenants_that_share_a_redis_never_get_each_others_answers() {
    let redis = Redis::start().await;
    let bucket: Bucket = Arc::new(InMemory::new());
    put(&bucket, "a", 1, "of a").await;
    put(&bucket, "b", 1, "of the other").await;
    put(&bucket, "a", 2, "only a").await;
    let cache = cache_of(config(&redis));
    let [a, b] = ["a", "b"].map(|name| tenant(&bucket, name, &cache));
    for i in [1, 2] {
        let length = if i == 1 { 4 } else { 6 };
        until(&a, i, (Some(length), CacheStatus::Memory)).await;
    }
    until(&b, 1, (Some(12), CacheStatus::Memory)).await;
    for _ in 0..2 {
        knows(&a, 1, 4).await;
        knows(&b, 1, 12).await;
        knows_nothing(&b, 2).await;
        // From Redis.
        cache.clear_memory();
        assert_eq!(stat(&a, 2).await, (Some(6), CacheStatus::Redis));
        assert_eq!(stat(&b, 1).await, (Some(12), CacheStatus::Redis));
        assert_eq!(stat(&a, 1).await, (Some(4), CacheStatus::Redis));
    }
    cache.clear_memory();
    a.warm(None).await.unwrap();
    knows_nothing(&b, 2).await;
    // One node, and keys under the names.
    assert_eq!(
        redis.cli(&["ZCARD", "layercache::{nodes}"]),
        "2",
        "a node, and the set's name"
    );
    assert_eq!(redis.cli(&["SCARD", &format!("a/{SET}")]), "2");
    assert_eq!(redis.cli(&["SCARD", &format!("b/{SET}")]), "1");
    let length = |tenant: &str| {
        let key = format!("{tenant}/{}", hash(&digest(1)));
        redis.cli(&["HGET", &key, "length"])
    };
    assert_eq!((length("a").as_str(), length("b").as_str()), ("4", "12"));
    let keys = redis.cli(&["KEYS", "*"]);
    let is_named = |key: &str| {
        ["a/", "b/", "layercache::{nodes}"]
            .iter()
            .any(|name| key.starts_with(name))
    };
    assert!(keys.lines().all(is_named), "{keys}");
    let note = redis.cli(&["GET", "a/layercache::{nodes}::storage"]);
    assert!(note.starts_with("PrefixObjectStore(a), layout "), "{note}");
}

#[tokio::test]
async fn a_delete_on_one_node_is_seen_on_another_that_shares_its_cache_too() {
    let redis = Redis::start().await;
    let bucket: Bucket = Arc::new(InMemory::new());
    let caches = [(); 2].map(|()| cache_of(config(&redis)));
    let nodes = |name: &str| caches.each_ref().map(|cache| tenant(&bucket, name, cache));
    let ([a1, a2], [b1, b2]) = (nodes("a"), nodes("b"));
    tokio::time::sleep(SETTLED).await;
    for tenant in ["a", "b"] {
        put(&bucket, tenant, 1, "content").await;
    }
    for node in [&a1, &a2, &b1, &b2] {
        until(node, 1, (Some(7), CacheStatus::Memory)).await;
    }
    let layers = a1.registry().repository(name());
    layers.unlink(&digest(1)).await.unwrap();
    for _ in 0..10 {
        assert_eq!(stat(&a1, 1).await.0, None);
        assert_eq!(stat(&a2, 1).await.0, None);
        assert_eq!(stat(&b1, 1).await.0, Some(7));
        assert_eq!(stat(&b2, 1).await.0, Some(7));
    }
    assert_eq!(redis.cli(&["EXISTS", &format!("a/{SET}")]), "0");
    assert_eq!(redis.cli(&["SCARD", &format!("b/{SET}")]), "1");
    // The membership comes back on the other node, and goes again with the blob's path.
    let layers = a2.registry().repository(name());
    layers.link(&digest(1)).await.unwrap();
    until(&a1, 1, (Some(7), CacheStatus::Memory)).await;
    a2.delete(&blob_path(&digest(1))).await.unwrap();
    assert_eq!(stat(&a1, 1).await.0, None);
    assert_eq!(stat(&b1, 1).await.0, Some(7));
}

#[tokio::test]
async fn a_name_space_with_another_storage_is_not_used() {
    let redis = Redis::start().await;
    let bucket: Bucket = Arc::new(InMemory::new());
    put(&bucket, "a", 1, "of a").await;
    let first = cache_of(config(&redis));
    let a = try_tenant(&bucket, "a", &first, "registry").unwrap();
    until(&a, 1, (Some(4), CacheStatus::Memory)).await;

    let best_effort = config(&redis).with_change_policy(ChangePolicy::BestEffort);
    let (metrics, (second, b)) = Metrics::of(|| {
        let cache = cache_of(best_effort);
        let b = try_tenant(&bucket, "b", &cache, "registry").unwrap();
        (cache, b)
    });
    let other = tenant(&bucket, "a", &second);
    until(&other, 1, (Some(4), CacheStatus::Memory)).await;
    // The node uses its other name space, and not this one.
    assert_eq!(stat(&b, 1).await, (None, CacheStatus::Miss));
    put(&bucket, "b", 1, "of the other").await;
    for _ in 0..5 {
        assert_eq!(stat(&b, 1).await, (Some(12), CacheStatus::Miss));
    }
    assert_eq!(
        metrics.get("layercache_foreign_storage_total"),
        1,
        "it asks seldom"
    );
    let layers = b.registry().repository(name());
    layers.unlink(&digest(1)).await.unwrap();
    assert_eq!(stat(&b, 1).await, (None, CacheStatus::Miss));
    layers.link(&digest(1)).await.unwrap();
    assert_eq!(stat(&b, 1).await, (Some(12), CacheStatus::Miss));
    b.purge().await.unwrap_err();
    let key = format!("registry/{SET}");
    assert_eq!(redis.cli(&["SCARD", &key]), "1", "a's fact is as it was");
    first.clear_memory();
    assert_eq!(stat(&a, 1).await, (Some(4), CacheStatus::Redis));

    // Another layout is another storage, and so is another set of nodes.
    let third = cache_of(config(&redis).with_trust_timeout(Duration::from_millis(700)));
    let store = PrefixStore::new(Arc::clone(&bucket), "a");
    let builder = CachedStore::builder(store).layout(OciImages::default());
    let oci = builder.cache(third, "registry").build().unwrap();
    let repository = oci.registry().repository(name());
    let answer = repository.contains(&digest(1), Freshness::Cached).await;
    assert_eq!(answer.unwrap().status, CacheStatus::Miss);
    let keys = RedisConfig::new(redis.url()).with_prefix("registry/");
    let store = PrefixStore::new(Arc::clone(&bucket), "a");
    let alone = CachedStore::builder(store).redis(keys).build().unwrap();
    for _ in 0..5 {
        assert_eq!(stat(&alone, 1).await, (Some(4), CacheStatus::Miss));
    }
}

#[tokio::test]
async fn a_name_space_is_claimed_again_on_a_new_connection() {
    let redis = Redis::start().await;
    let bucket: Bucket = Arc::new(InMemory::new());
    for tenant in ["a", "b"] {
        put(&bucket, tenant, 1, "content").await;
    }
    let cache = cache_of(config(&redis));
    let [a, b] = ["a", "b"].map(|name| tenant(&bucket, name, &cache));
    for node in [&a, &b] {
        until(node, 1, (Some(7), CacheStatus::Memory)).await;
    }
    // Another storage takes the name space while the node is away.
    redis.cli(&["SET", "a/layercache::{nodes}::storage", "another one"]);
    redis.cli(&["HSET", &format!("a/{}", hash(&digest(1))), "length", "99"]);
    redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    cache.clear_memory();
    until(&b, 1, (Some(7), CacheStatus::Memory)).await;
    for _ in 0..10 {
        assert_eq!(stat(&a, 1).await, (Some(7), CacheStatus::Miss));
    }
    redis.cli(&[
        "DEL",
        "a/layercache::{nodes}::storage",
        &format!("a/{}", hash(&digest(1))),
    ]);
    until(&a, 1, (Some(7), CacheStatus::Memory)).await;
    let note = redis.cli(&["GET", "a/layercache::{nodes}::storage"]);
    assert!(note.starts_with("PrefixObjectStore(a), layout "), "{note}");
}

#[tokio::test]
async fn what_a_node_changed_without_redis_is_told_before_its_name_space_is_cached_again() {
    let mut redis = Redis::start().await;
    let bucket: Bucket = Arc::new(InMemory::new());
    let cache = cache_of(config(&redis).with_timeout(Duration::from_millis(200)));
    let [a, b] = ["a", "b"].map(|name| tenant(&bucket, name, &cache));
    for tenant in ["a", "b"] {
        put(&bucket, tenant, 1, "content").await;
    }
    for node in [&a, &b] {
        until(node, 1, (Some(7), CacheStatus::Memory)).await;
    }
    redis.cli(&["SAVE"]);
    redis.kill();
    a.put(&blob_path(&digest(1)), "longer content".into())
        .await
        .unwrap();
    assert_eq!(stat(&a, 1).await, (Some(14), CacheStatus::Miss));
    let layers = b.registry().repository(name());
    let refused = layers.unlink(&digest(1)).await.unwrap_err();
    assert!(refused.is_retryable(), "{refused}");
    redis.restart_on_same_port().await;
    until(&a, 1, (Some(14), CacheStatus::Memory)).await;
    until(&b, 1, (Some(7), CacheStatus::Memory)).await;
}

/// After a failover or a start from an old dump, the first node purges the name spaces of all
/// nodes.
#[tokio::test]
async fn the_data_of_an_older_server_is_purged_in_all_name_spaces() {
    let mut redis = Redis::start().await;
    let bucket: Bucket = Arc::new(InMemory::new());
    put(&bucket, "a", 1, "content").await;
    let first = cache_of(config(&redis));
    let a = tenant(&bucket, "a", &first);
    until(&a, 1, (Some(7), CacheStatus::Memory)).await;
    redis.cli(&["SAVE"]);
    redis.kill();
    drop((a, first));
    // This node has no store of tenant a.
    redis.restart_on_same_port().await;
    assert_eq!(
        redis.cli(&["SCARD", &format!("a/{SET}")]),
        "1",
        "an old dump"
    );
    let second = cache_of(config(&redis));
    let b = tenant(&bucket, "b", &second);
    put(&bucket, "b", 1, "content").await;
    until(&b, 1, (Some(7), CacheStatus::Memory)).await;
    assert_eq!(redis.cli(&["EXISTS", &format!("a/{SET}")]), "0");
    assert_eq!(
        redis.cli(&["EXISTS", &format!("a/{}", hash(&digest(1)))]),
        "0"
    );
    assert_eq!(redis.cli(&["SCARD", &format!("b/{SET}")]), "1");
}

#[tokio::test]
async fn a_purge_of_one_store_leaves_the_others() {
    let redis = Redis::start().await;
    let bucket: Bucket = Arc::new(InMemory::new());
    let cache = cache_of(config(&redis));
    let [a, b] = ["a", "b"].map(|name| tenant(&bucket, name, &cache));
    let fill = async || {
        for (tenant, node) in [("a", &a), ("b", &b)] {
            put(&bucket, tenant, 1, "content").await;
            until(node, 1, (Some(7), CacheStatus::Memory)).await;
        }
    };
    fill().await;
    let count = |tenant: &str| redis.cli(&["EXISTS", &format!("{tenant}/{SET}")]);
    b.purge().await.unwrap();
    assert_eq!((count("a").as_str(), count("b").as_str()), ("1", "0"));
    assert_eq!(
        stat(&a, 1).await,
        (Some(7), CacheStatus::Redis),
        "memory is shared"
    );
    fill().await;
    let forgotten = a.purge_repositories(|_| true).await.unwrap();
    assert_eq!((forgotten.repositories, forgotten.memberships), (1, 1));
    assert_eq!((count("a").as_str(), count("b").as_str()), ("0", "1"));
    fill().await;
    cache.purge().await.unwrap();
    assert_eq!(
        (count("a").as_str(), count("b").as_str()),
        ("1", "1"),
        "none of the cache's own"
    );
    let registry = a.registry();
    registry.cache().purge().await.unwrap();
    assert_eq!((count("a").as_str(), count("b").as_str()), ("0", "1"));
}

#[tokio::test]
async fn the_node_lives_until_nothing_uses_the_cache() {
    let redis = Redis::start().await;
    let bucket: Bucket = Arc::new(InMemory::new());
    put(&bucket, "b", 1, "content").await;
    let cache = cache_of(config(&redis));
    let [a, b] = ["a", "b"].map(|name| tenant(&bucket, name, &cache));
    drop(cache);
    until(&b, 1, (Some(7), CacheStatus::Memory)).await;
    let nodes = || redis.cli(&["ZCARD", "layercache::{nodes}"]);
    assert_eq!(nodes(), "2", "the node, and the set's name");
    a.shutdown().await;
    drop(a);
    tokio::time::sleep(SETTLED).await;
    assert_eq!(nodes(), "2");
    assert_eq!(stat(&b, 1).await, (Some(7), CacheStatus::Memory));
    drop(b);
    eventually("the node has left", || nodes() == "1").await;

    let cache = cache_of(config(&redis));
    let b = tenant(&bucket, "b", &cache);
    until(&b, 1, (Some(7), CacheStatus::Redis)).await;
    cache.shutdown().await;
    eventually("the node has left", || nodes() == "1").await;
    assert_eq!(stat(&b, 1).await, (Some(7), CacheStatus::Miss));
}

fn setting<T>(built: Result<T, Error>) -> (&'static str, String) {
    match built {
        Err(Error::Setting { setting, source }) => (setting, source.to_string()),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("built"),
    }
}

#[tokio::test]
async fn settings_that_exclude_each_other_are_named() {
    let builder = || CachedStore::builder(InMemory::new()).cache(in_memory(), "a");
    let (name, said) = setting(builder().memory(MemoryConfig::default()).build());
    assert_eq!(name, "cache");
    assert!(
        said.contains("`cache` and `memory` exclude each other"),
        "{said}"
    );
    let redis = RedisConfig::new("redis://127.0.0.1");
    let (name, said) = setting(builder().redis(redis.clone()).build());
    assert_eq!(name, "cache");
    assert!(
        said.contains("`cache` and `redis` exclude each other"),
        "{said}"
    );
    // An operator's settings describe the shared cache too.
    let limits = Limits::default().with_loads(3);
    let fine = builder().settings(Settings::default()).limits(limits);
    fine.build().unwrap();
    for name in ["", "a:b", "a/b", "a b", "{a}", &"x".repeat(65)] {
        let built = CachedStore::builder(InMemory::new())
            .cache(in_memory(), name)
            .build();
        let (setting, said) = setting(built);
        assert_eq!(setting, "namespace");
        assert!(said.contains("1 to 64 letters"), "{said}");
    }
}

#[tokio::test]
async fn two_storages_under_one_name_are_refused_in_one_process() {
    let (bucket, cache): (Bucket, _) = (Arc::new(InMemory::new()), in_memory());
    let a = try_tenant(&bucket, "a", &cache, "x").unwrap();
    let (name, said) = setting(try_tenant(&bucket, "b", &cache, "x"));
    assert_eq!(name, "namespace");
    assert!(
        said.contains("PrefixObjectStore(a)") && said.contains("PrefixObjectStore(b)"),
        "{said}"
    );
    let store = PrefixStore::new(Arc::clone(&bucket), "a");
    let oci = CachedStore::builder(store).layout(OciImages::default());
    setting(oci.cache(Arc::clone(&cache), "x").build());
    // The same storage again shares the same facts.
    put(&bucket, "a", 1, "content").await;
    until(&a, 1, (Some(7), CacheStatus::Memory)).await;
    let again = try_tenant(&bucket, "a", &cache, "x").unwrap();
    assert_eq!(stat(&again, 1).await, (Some(7), CacheStatus::Memory));
    again
        .registry()
        .repository(self::name())
        .unlink(&digest(1))
        .await
        .unwrap();
    assert_eq!(stat(&a, 1).await.0, None);
    // The name is free once no store uses it, and the old facts are gone.
    put(&bucket, "a", 1, "content").await;
    until(&a, 1, (Some(7), CacheStatus::Memory)).await;
    drop((a, again));
    let end = Instant::now() + PATIENCE;
    let b = loop {
        // A fill that is under way may still use the old one.
        match try_tenant(&bucket, "b", &cache, "x") {
            Ok(b) => break b,
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    knows_nothing(&b, 1).await;
    // A backend of one's own is another storage.
    let backend = layercache::StoreBackend::new(bucket, Arc::new(Distribution::default()));
    setting(Registry::builder(backend).cache(cache, "x").build());
}
