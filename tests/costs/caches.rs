//! Measures the operations of `LayerInfoCache`, which have no backend.

use crate::lab::{Cost, config, cost, measure};
use crate::support::meter::Meter;
use crate::support::nodes::{SETTLED, digest, name};
use crate::support::redis::Redis;
use futures::FutureExt;
use futures::future::BoxFuture;
use layercache::{
    LayerInfoCache, LayerMeta, Link, MemoryCache, MemoryConfig, RedisCache, TieredCache,
};

type Act = for<'a> fn(&'a dyn LayerInfoCache, u32) -> BoxFuture<'a, ()>;

/// The costs of each operation with Redis alone, and with two tiers.
#[rustfmt::skip]
const ROWS: &[(&str, Act, Cost, Cost)] = &[
    ("add", add, cost(1, 0, 0), cost(2, 0, 0)),
    ("set_meta", set_meta, cost(1, 0, 0), cost(2, 0, 0)),
    ("contains", contains, cost(1, 0, 0), cost(0, 0, 0)),
    ("meta", meta, cost(1, 0, 0), cost(0, 0, 0)),
    ("contains of what is absent", contains_not, cost(1, 0, 0), cost(1, 0, 0)),
    ("meta of what is absent", no_meta, cost(1, 0, 0), cost(1, 0, 0)),
    ("remove", remove, cost(2, 0, 0), cost(3, 0, 0)),
    ("remove_meta", remove_meta, cost(2, 0, 0), cost(3, 0, 0)),
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

/// A cache, and a function that selects its cost from those of Redis alone and of two tiers.
type Place<'a> = (&'static str, &'a dyn LayerInfoCache, fn(Cost, Cost) -> Cost);

#[tokio::test]
async fn an_operation_of_a_cache_costs_what_is_said() {
    let redis = Redis::start().await;
    let meter = Meter::start(redis.port()).await;
    let plain = || RedisCache::new(config(&meter)).unwrap();
    let alone = MemoryCache::new(MemoryConfig::default());
    let tiered = TieredCache::with_redis(MemoryConfig::default(), plain());
    let shared = plain();
    tokio::time::sleep(SETTLED).await;
    let caches: [Place<'_>; 3] = [
        ("memory", &alone, |_, _| cost(0, 0, 0)),
        ("Redis", &shared, |redis, _| redis),
        ("two tiers", &tiered, |_, tiered| tiered),
    ];
    for (place, cache, expected) in caches {
        // A script costs one more round trip, once in the life of a server.
        for (_, act, ..) in ROWS {
            act(cache, 10).await;
        }
        for (what, act, in_redis, in_both) in ROWS {
            let ((), measured) = measure(Some(&meter), || 0, act(cache, 20)).await;
            measured.assert(expected(*in_redis, *in_both), format!("{what} in {place}"));
        }
    }
}

#[tokio::test]
async fn a_question_to_both_tiers_costs_what_is_said() {
    let redis = Redis::start().await;
    let meter = Meter::start(redis.port()).await;
    let plain = RedisCache::new(config(&meter)).unwrap();
    let cache = TieredCache::with_redis(MemoryConfig::default(), plain);
    tokio::time::sleep(SETTLED).await;
    add(&cache, 1).await;
    set_meta(&cache, 1).await;
    for act in [contains, meta] {
        cache.clear_memory();
        let ((), measured) = measure(Some(&meter), || 0, act(&cache, 1)).await;
        measured.assert(cost(1, 0, 0), "known to Redis");
    }
}
