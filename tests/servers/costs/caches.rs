//! Measures the operations of `LayerInfoCache`, which have no backend.

use crate::guide::Figures;
use crate::lab::{config, cost, measure as measure_call};
use futures::FutureExt;
use futures::future::BoxFuture;
use layercache::{
    LayerInfoCache, LayerMeta, Link, MemoryCache, MemoryConfig, RedisCache, TieredCache,
};
use test_support::meter::Meter;
use test_support::nodes::{SETTLED, digest, name};
use test_support::redis::Redis;

type Act = for<'a> fn(&'a dyn LayerInfoCache, u32) -> BoxFuture<'a, ()>;

const ROWS: &[(&str, Act)] = &[
    ("`add`", add),
    ("`set_meta`", set_meta),
    ("`contains`", contains),
    ("`meta`", meta),
    ("`contains`, absent", contains_not),
    ("`meta`, absent", no_meta),
    ("`remove`", remove),
    ("`remove_meta`", remove_meta),
];

fn link(i: u32) -> Link {
    Link::layer(name(), digest(i))
}

fn add(cache: &dyn LayerInfoCache, i: u32) -> BoxFuture<'_, ()> {
    async move { cache.add(&link(i)).await.unwrap() }.boxed()
}

fn set_meta(cache: &dyn LayerInfoCache, i: u32) -> BoxFuture<'_, ()> {
    let meta = LayerMeta::new("a/data", 7).unwrap();
    async move { cache.set_meta(&digest(i), &meta).await.unwrap() }.boxed()
}

fn contains(cache: &dyn LayerInfoCache, i: u32) -> BoxFuture<'_, ()> {
    async move { assert!(cache.contains(&link(i)).await.unwrap()) }.boxed()
}

fn meta(cache: &dyn LayerInfoCache, i: u32) -> BoxFuture<'_, ()> {
    async move { assert!(cache.meta(&digest(i)).await.unwrap().is_some()) }.boxed()
}

fn contains_not(cache: &dyn LayerInfoCache, i: u32) -> BoxFuture<'_, ()> {
    async move { assert!(!cache.contains(&link(i + 1)).await.unwrap()) }.boxed()
}

fn no_meta(cache: &dyn LayerInfoCache, i: u32) -> BoxFuture<'_, ()> {
    async move { assert!(cache.meta(&digest(i + 1)).await.unwrap().is_none()) }.boxed()
}

fn remove(cache: &dyn LayerInfoCache, i: u32) -> BoxFuture<'_, ()> {
    async move { cache.remove(&link(i)).await.unwrap() }.boxed()
}

fn remove_meta(cache: &dyn LayerInfoCache, i: u32) -> BoxFuture<'_, ()> {
    async move { cache.remove_meta(&digest(i)).await.unwrap() }.boxed()
}

pub(crate) async fn measure() -> Figures {
    let redis = Redis::start().await;
    let meter = Meter::start(redis.port()).await;
    let plain = || RedisCache::new(config(&meter)).unwrap();
    let alone = MemoryCache::new(MemoryConfig::default());
    let tiered = TieredCache::with_redis(MemoryConfig::default(), plain());
    let shared = plain();
    tokio::time::sleep(SETTLED).await;
    let caches: [(&str, &dyn LayerInfoCache); 3] = [
        ("in memory", &alone),
        ("in Redis", &shared),
        ("in two tiers", &tiered),
    ];
    let mut figures = Figures::of("The plain caches");
    for (column, cache) in caches {
        // A script costs one more round trip, once in the life of a server.
        for (_, act) in ROWS {
            act(cache, 10).await;
        }
        for (row, act) in ROWS {
            let ((), measured) = measure_call(Some(&meter), || 0, act(cache, 20)).await;
            figures.add(row, column, &measured);
        }
    }
    figures
}

#[tokio::test]
async fn a_redis_hit_in_two_tiers_costs_one_round_trip() {
    let redis = Redis::start().await;
    let meter = Meter::start(redis.port()).await;
    let plain = RedisCache::new(config(&meter)).unwrap();
    let cache = TieredCache::with_redis(MemoryConfig::default(), plain);
    tokio::time::sleep(SETTLED).await;
    add(&cache, 1).await;
    set_meta(&cache, 1).await;
    for act in [contains, meta] {
        cache.clear_memory();
        let ((), measured) = measure_call(Some(&meter), || 0, act(&cache, 1)).await;
        measured.assert(cost(1, 0, 0), "known to Redis");
    }
}
