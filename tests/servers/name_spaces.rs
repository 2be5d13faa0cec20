//! Tests several stores over one Redis. With namespaces of their own both are cached. Without
//! namespaces no store answers with the facts of the other.

use test_support as support;

use layercache::layout::{Distribution, Layout, OciImages};
use layercache::{
    CacheStatus, CachedStore, ChangePolicy, Freshness, Link, MemoryConfig, RedisCache, RedisConfig,
    TieredCache,
};
use object_store::limit::LimitStore;
use object_store::memory::InMemory;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt};
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::log::Log;
use support::metrics::Metrics;
use support::nodes::{SET, blob_path, config, digest, eventually, hash, name};
use support::redis::Redis;

type Bucket = Arc<dyn ObjectStore>;
type Node = CachedStore<PrefixStore<Bucket>>;

const NOTE: &str = "layercache::{nodes}::storage";

fn tenant(bucket: &Bucket, tenant: &str, config: RedisConfig) -> Node {
    let store = PrefixStore::new(Arc::clone(bucket), tenant);
    CachedStore::builder(store).redis(config).build().unwrap()
}

async fn put(bucket: &Bucket, tenant: &str) {
    let store = CachedStore::new(PrefixStore::new(Arc::clone(bucket), tenant));
    store
        .put(&blob_path(&digest(1)), "content".into())
        .await
        .unwrap();
    let layers = store.registry().repository(name());
    layers.link(&digest(1)).await.unwrap();
}

async fn contains<S: ObjectStore>(node: &CachedStore<S>) -> (bool, CacheStatus) {
    let layers = node.registry().repository(name());
    let answer = layers
        .contains(&digest(1), Freshness::Cached)
        .await
        .unwrap();
    (answer.value, answer.status)
}

/// Asks until the node gives this answer.
async fn until<S: ObjectStore>(node: &CachedStore<S>, expected: (bool, CacheStatus)) {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = contains(node).await;
        if answer == expected {
            return;
        }
        assert!(Instant::now() < end, "{answer:?}, never {expected:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn two_tenants_without_namespaces_never_get_each_others_answers() {
    let redis = Redis::start().await;
    let bucket: Bucket = Arc::new(InMemory::new());
    put(&bucket, "a").await;
    let a = tenant(&bucket, "a", config(&redis));
    until(&a, (true, CacheStatus::Memory)).await;
    assert_eq!(redis.cli(&["SCARD", SET]), "1");
    let note = redis.cli(&["GET", NOTE]);
    assert!(note.starts_with("PrefixObjectStore(a), layout "), "{note}");

    let best_effort = config(&redis).with_change_policy(ChangePolicy::BestEffort);
    let log = Log::default();
    let writer = log.clone();
    let listener = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::ERROR)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let listening = tracing::subscriber::set_default(listener);
    let (metrics, b) = Metrics::of(|| tenant(&bucket, "b", best_effort));
    let end = Instant::now() + Duration::from_secs(20);
    while metrics.get("layercache_foreign_storage_total") < 2 {
        assert_eq!(contains(&b).await, (false, CacheStatus::Miss));
        assert!(Instant::now() < end, "not counted");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(listening);
    let log = log.text();
    let warnings: Vec<_> = log.matches("this Redis is not used").collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(
        log.contains(NOTE) && log.contains("RedisConfig::with_namespace"),
        "{log}"
    );
    // The node makes its changes in its own store.
    put(&bucket, "b").await;
    let layers = b.registry().repository(name());
    assert!(contains(&b).await.0);
    layers.unlink(&digest(1)).await.unwrap();
    assert_eq!(contains(&b).await, (false, CacheStatus::Miss));
    assert_eq!(redis.cli(&["SCARD", SET]), "1", "a's fact is as it was");
    assert_eq!(redis.cli(&["GET", NOTE]), note);
    assert_eq!(
        redis.cli(&["ZCARD", "layercache::{nodes}"]),
        "2",
        "a, and the set's name"
    );
    a.clear_memory();
    assert_eq!(contains(&a).await, (true, CacheStatus::Redis));
}

#[tokio::test]
async fn two_tenants_with_namespaces_are_both_cached() {
    let redis = Redis::start().await;
    let bucket: Bucket = Arc::new(InMemory::new());
    put(&bucket, "a").await;
    let of = |name: &str| config(&redis).with_namespace(name);
    let node = |name: &str| tenant(&bucket, name, of(name));
    let (a, b) = (node("a"), node("b"));
    until(&a, (true, CacheStatus::Memory)).await;
    assert_eq!(contains(&b).await, (false, CacheStatus::Miss));
    put(&bucket, "b").await;
    until(&b, (true, CacheStatus::Memory)).await;
    for name in ["a", "b"] {
        assert_eq!(redis.cli(&["SCARD", &format!("{name}:{SET}")]), "1");
        until(&node(name), (true, CacheStatus::Redis)).await;
    }
    // A purge of one store leaves the other store's keys.
    b.purge().await.unwrap();
    assert_eq!(redis.cli(&["EXISTS", &format!("b:{SET}")]), "0");
    assert_eq!(redis.cli(&["EXISTS", &format!("a:{SET}")]), "1");
    let layers = a.registry().repository(name());
    layers.unlink(&digest(1)).await.unwrap();
    assert!(!contains(&a).await.0);
    assert!(contains(&b).await.0);
    let keys = redis.cli(&["KEYS", "*"]);
    let is_named = |key: &str| key.starts_with("a:") || key.starts_with("b:");
    assert!(keys.lines().all(is_named), "{keys}");
}

#[tokio::test]
async fn another_layout_in_the_same_namespace_is_not_cached() {
    let redis = Redis::start().await;
    let store = Arc::new(InMemory::new());
    let named = || config(&redis).with_namespace("registry");
    let node = |layout: Arc<dyn Layout>| {
        let builder = CachedStore::builder(Arc::clone(&store)).layout(layout);
        builder.redis(named()).build().unwrap()
    };
    let first = node(Arc::new(Distribution::default()));
    let link = Link::layer(name(), digest(1));
    let path = Distribution::default().link_path(&link).unwrap();
    let text = digest(1).to_string();
    store.put(&path, text.into()).await.unwrap();
    until(&first, (true, CacheStatus::Memory)).await;
    let other = node(Arc::new(OciImages::default()));
    assert_eq!(contains(&other).await, (false, CacheStatus::Miss));
    let same = node(Arc::new(Distribution::default()));
    assert_eq!(contains(&same).await, (true, CacheStatus::Redis));
}

#[tokio::test]
async fn replicas_share_a_cache_with_different_store_wrappers() {
    let redis = Redis::start().await;
    let store: Bucket = Arc::new(InMemory::new());
    let bare = CachedStore::builder(Arc::clone(&store));
    let bare = bare.redis(config(&redis)).build().unwrap();
    let link = Link::layer(name(), digest(1));
    let path = Distribution::default().link_path(&link).unwrap();
    let text = digest(1).to_string();
    store.put(&path, text.into()).await.unwrap();
    until(&bare, (true, CacheStatus::Memory)).await;
    let limited = CachedStore::builder(LimitStore::new(Arc::clone(&store), 7));
    let limited = limited.redis(config(&redis)).build().unwrap();
    assert_eq!(contains(&limited).await, (true, CacheStatus::Redis));

    // Stores of different types share their entries if they have the same namespace.
    let named = config(&redis).with_namespace("registry");
    let node = tenant(&store, "", named.clone());
    until(&node, (true, CacheStatus::Memory)).await;
    let node = CachedStore::builder(Arc::clone(&store)).redis(named);
    assert_eq!(
        contains(&node.build().unwrap()).await,
        (true, CacheStatus::Redis)
    );
}

#[tokio::test]
async fn a_node_writes_a_missing_storage_note_and_respects_another_type() {
    let redis = Redis::start().await;
    let bucket: Bucket = Arc::new(InMemory::new());
    put(&bucket, "a").await;
    redis.cli(&["SET", NOTE, "another one"]);
    let a = tenant(&bucket, "a", config(&redis));
    for _ in 0..5 {
        assert_eq!(contains(&a).await, (true, CacheStatus::Miss));
    }
    assert_eq!(redis.cli(&["EXISTS", SET, &hash(&digest(1))]), "0");
    redis.cli(&["DEL", NOTE]);
    redis.cli(&["SADD", NOTE, "of another type"]);
    until(&a, (true, CacheStatus::Memory)).await;
    let is_ours = || {
        redis
            .cli(&["GET", NOTE])
            .starts_with("PrefixObjectStore(a)")
    };
    eventually("its own note", is_ours).await;
}

#[tokio::test]
async fn a_cache_without_a_store_writes_no_storage_note() {
    let redis = Redis::start().await;
    redis.cli(&["SET", NOTE, "another program's"]);
    let cache = RedisCache::new(config(&redis)).unwrap();
    let cache = TieredCache::with_redis(MemoryConfig::default(), cache);
    use layercache::LayerInfoCache;
    let link = Link::layer(name(), digest(1));
    cache.add(&link).await.unwrap();
    assert!(cache.contains(&link).await.unwrap());
    assert_eq!(redis.cli(&["GET", NOTE]), "another program's");
}

/// The longest durations that the configuration accepts work on a real server.
#[tokio::test]
async fn redis_accepts_the_longest_allowed_times() {
    let redis = Redis::start().await;
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    let bucket: Bucket = Arc::new(InMemory::new());
    let config = config(&redis)
        .with_ttl(hours(24 * 365))
        .with_timeout(Duration::from_secs(60))
        .with_change_timeout(Duration::from_secs(600))
        .with_lease_ttl(hours(1))
        .with_fence_ttl(hours(24));
    let store = PrefixStore::new(Arc::clone(&bucket), "a");
    let memory = MemoryConfig::default().with_ttl(Duration::MAX);
    let builder = CachedStore::builder(store).memory(memory);
    let node = builder.redis(config.clone()).build().unwrap();
    let layers = node.registry().repository(name());
    layers.link(&digest(1)).await.unwrap();
    until(&node, (true, CacheStatus::Memory)).await;
    layers.unlink(&digest(1)).await.unwrap();
    for config in [
        config.clone().with_ttl(Duration::MAX),
        config.with_fence_ttl(Duration::MAX),
    ] {
        let error = RedisCache::new(config).unwrap_err().to_string();
        assert!(
            error.contains("redis ttl") || error.contains("redis fence_ttl"),
            "{error}"
        );
    }
}
