//! Tests warming with Redis, and on S3.

use super::{blob, knows_blobs, knows_members, link, put_blobs, put_links};
use layercache::{
    CacheStatus, CachedStore, Error, Freshness, RedisConfig, WarmError, WarmProgress,
};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use std::sync::Arc;
use std::time::Duration;
use test_support::cluster::RedisCluster;
use test_support::minio::Minio;
use test_support::nodes::{SETTLED, config, config_at, digest, eventually, name};
use test_support::recording::Recording;
use test_support::redis::Redis;
use tokio::task::JoinHandle;

pub(super) type Node = CachedStore<Recording<InMemory>>;

/// Two nodes that trust their memory, on one store.
pub(super) struct Shared {
    pub(super) nodes: [Node; 2],
    pub(super) redis: Redis,
}

impl Shared {
    pub(super) async fn with(blobs: u32, links: u32) -> Self {
        let redis = Redis::start().await;
        let bare = Recording::new(InMemory::new());
        put_blobs(&bare, blobs).await;
        put_links(&bare, &name(), links).await;
        // With this TTL a lease that is not given back stays.
        let config = config(&redis).with_lease_ttl(Duration::from_secs(60));
        let nodes = [
            node(bare.apart(), config.clone()),
            node(bare.apart(), config),
        ];
        tokio::time::sleep(SETTLED).await;
        Self { nodes, redis }
    }
}

fn node<S: ObjectStore>(bare: Recording<S>, config: RedisConfig) -> CachedStore<Recording<S>> {
    CachedStore::builder(bare).redis(config).build().unwrap()
}

/// Returns how many keys match this pattern.
pub(super) fn lists(redis: &Redis, pattern: &str) -> usize {
    redis
        .cli(&["KEYS", pattern])
        .lines()
        .filter(|line| !line.trim().is_empty())
        .count()
}

/// Starts to warm a node, and waits until the list of this number has read.
pub(super) async fn warm_slowly(
    node: &Node,
    held: usize,
) -> JoinHandle<Result<WarmProgress, WarmError>> {
    node.get_ref().hold_lists(Some(held));
    let warm = tokio::spawn(node.warm(None).into_future());
    eventually("a list", || node.get_ref().lists() > held).await;
    warm
}

#[tokio::test]
async fn facts_warmed_by_one_node_are_known_to_all() {
    let world = Shared::with(2300, 300).await;
    let [first, second] = &world.nodes;
    let warmed = first.warm(None).await.unwrap();
    assert_eq!((warmed.seen, warmed.filled), (2600, 2600));
    assert_eq!(first.get_ref().lists(), 1 + 3);
    assert_eq!(first.get_ref().reads(), 300, "the links");
    assert_eq!(lists(&world.redis, "lease::*"), 0);
    let hash = format!("blobs::{}", digest(0));
    let ttl: i64 = world.redis.cli(&["PTTL", &hash]).trim().parse().unwrap();
    assert!(ttl > 0);
    knows_blobs(first, 2300, CacheStatus::Memory).await;
    knows_members(first, 300, CacheStatus::Memory).await;
    knows_members(second, 300, CacheStatus::Redis).await;

    // The second node fills its memory from Redis alone.
    let warmed = second.warm(None).await.unwrap();
    assert_eq!((warmed.known, warmed.filled, warmed.refused), (2600, 0, 0));
    assert_eq!((second.get_ref().lists(), second.get_ref().reads()), (1, 0));
    knows_blobs(second, 2300, CacheStatus::Memory).await;
}

#[tokio::test]
async fn on_s3_entity_tags_prove_links_without_reads() {
    let (redis, minio) = (Redis::start().await, Minio::shared().await);
    let bare = Recording::new(minio.new_store().await);
    put_blobs(&bare, 30).await;
    put_links(&bare, &name(), 30).await;
    bare.put(&link(&name(), &digest(40)), digest(41).to_string().into())
        .await
        .unwrap();
    let store = node(bare, config(&redis));
    tokio::time::sleep(SETTLED).await;
    let warmed = store.warm(None).await.unwrap();
    assert_eq!((warmed.filled, warmed.skipped), (60, 1));
    assert_eq!(store.get_ref().lists(), 2);
    assert_eq!(store.get_ref().reads(), 1, "the link of another digest");
    knows_members(&store, 30, CacheStatus::Memory).await;
    let repository = store.registry().repository(name());
    let broken = repository.contains(&digest(40), Freshness::Cached).await;
    assert!(!broken.unwrap().value);
    // The node passes a head on to the store, and answers with its content type.
    let head = store.head(&blob(&digest(1))).await.unwrap();
    assert_eq!(
        head,
        store
            .get_ref()
            .inner()
            .head(&blob(&digest(1)))
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn warming_fills_all_primaries_of_a_cluster() {
    let cluster = RedisCluster::start().await;
    let bare = Recording::new(InMemory::new());
    put_blobs(&bare, 300).await;
    put_links(&bare, &name(), 150).await;
    let url = cluster.url();
    let nodes = [
        node(bare.apart(), config_at(&*url)),
        node(bare.apart(), config_at(&*url)),
    ];
    tokio::time::sleep(SETTLED).await;
    let warmed = nodes[0].warm(None).await.unwrap();
    assert_eq!((warmed.seen, warmed.filled), (450, 450));
    knows_members(&nodes[1], 150, CacheStatus::Redis).await;
    assert_eq!(nodes[1].get_ref().reads(), 0);
}

#[tokio::test]
async fn warming_stops_at_a_position_when_redis_fails() {
    // Up to three pages run at the same time, so the second and the third may be complete by then.
    let world = Shared::with(5000, 0).await;
    let [warming, _] = &world.nodes;
    let redis = Arc::new(std::sync::Mutex::new(world.redis));
    let killed = Arc::clone(&redis);
    let warm = warming.warm(None).progress(move |progress| {
        if progress.seen == 1000 {
            killed.lock().unwrap().kill();
        }
    });
    let error = warm.await.unwrap_err();
    assert!(matches!(error.source, Error::Cache { .. }), "{error:?}");
    let position = error.progress.position.clone().unwrap();
    assert!(
        [999, 1999, 2999]
            .map(|i| blob(&digest(i)))
            .contains(&position)
    );
    let fresh = CachedStore::new(warming.get_ref().apart());
    let rest = fresh.warm(None).resume_after(&position).await.unwrap();
    assert_eq!(error.progress.seen + rest.seen, 5000);
}
