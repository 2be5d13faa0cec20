//! Tests that the metrics count what has happened.

use layercache::{CachedStore, Freshness};
use std::time::Duration;
use test_support::metrics::Metrics;
use test_support::nodes::{
    self, SETTLED, bare, digest, eventually, layers, put, stat, until_in_memory,
};
use test_support::redis::Redis;

#[tokio::test]
async fn loads_leases_fills_and_invalidations_are_counted() {
    let (redis, bare) = (Redis::start().await, bare(Duration::ZERO));
    let (here, node) = Metrics::of(|| nodes::node(&bare, &redis));
    let (there, other) = Metrics::of(|| nodes::node(&bare, &redis));
    tokio::time::sleep(SETTLED).await;
    let digest = digest(1);
    put(&bare, &digest).await;
    until_in_memory(&node, &digest).await;
    until_in_memory(&other, &digest).await;

    let backend = |metrics: &Metrics| {
        let get = |result| {
            metrics.get(&format!(
                "layercache_backend_loads_total{{result=\"{result}\"}}"
            ))
        };
        (get("found"), get("absent"), get("error"))
    };
    assert_eq!(backend(&here), (1, 0, 0));
    assert_eq!(backend(&there), (0, 0, 0), "Redis had the facts");
    let loads = "layercache_lookup_duration_seconds_count{tier=\"backend\"}";
    assert_eq!((here.get(loads), there.get(loads)), (1, 0));
    let trips = "layercache_lookup_duration_seconds_count{tier=\"redis\"}";
    assert!(here.get(trips) > 0 && there.get(trips) > 0);
    assert_eq!(
        here.get("layercache_leases_total{result=\"granted\"}"),
        2,
        "one for each fact"
    );
    assert_eq!(here.get("layercache_fills_total{result=\"stored\"}"), 1);
    assert_eq!(here.get("layercache_leases_lost_total"), 0);
    assert_eq!(here.get("layercache_memory_entries"), 1);
    assert!(here.get("layercache_memory_bytes") > 300);

    layers(&node).unlink(&digest).await.unwrap();
    let origin = |origin| format!("layercache_invalidations_total{{origin=\"{origin}\"}}");
    assert_eq!(here.get(&origin("local")), 1);
    assert_eq!(
        here.get(&origin("remote")),
        0,
        "its own message does not count"
    );
    assert_eq!(there.get(&origin("remote")), 1);
    assert_eq!(stat(&other, &digest).await.0, None);
    assert_eq!(backend(&there), (0, 1, 0));

    node.purge().await.unwrap();
    assert_eq!(here.get("layercache_purges_total{cause=\"asked\"}"), 1);
    assert_eq!(here.get(&origin("purge")), 1);
    assert_eq!(there.get(&origin("purge")), 1);

    let lag = "layercache_invalidation_lag_seconds_count";
    assert!(here.get(lag) > 0 && there.get(lag) > 0);
    drop(node);
    assert_eq!(here.get("layercache_memory_entries"), 0);
    assert_eq!(here.get("layercache_memory_bytes"), 0);
    assert_eq!(here.get("layercache_caches"), 0);
    eventually("no memory is trusted", || {
        here.get("layercache_memory_trusted") == 0
    })
    .await;
}

#[tokio::test]
async fn a_node_without_redis_shows_in_trust_and_breaker_metrics() {
    let (mut redis, bare) = (Redis::start().await, bare(Duration::ZERO));
    let (metrics, node) = Metrics::of(|| nodes::node(&bare, &redis));
    let trusted = || metrics.get("layercache_memory_trusted");
    let state = |state| metrics.get(&format!("layercache_redis_breakers{{state=\"{state}\"}}"));
    eventually("trust", || trusted() == 1).await;
    // On a busy machine the first commands may be too late for the breaker.
    eventually("a closed breaker", || state("closed") == 1).await;
    assert_eq!(metrics.get("layercache_caches"), 1);
    let gaps = |cause| {
        metrics.get(&format!(
            "layercache_channel_gaps_total{{cause=\"{cause}\"}}"
        ))
    };
    assert_eq!(gaps("closed"), 0);

    redis.kill();
    eventually("no trust", || trusted() == 0).await;
    eventually("a gap", || gaps("closed") + gaps("failed") == 1).await;
    eventually("an open breaker", || state("closed") == 0).await;
    let untrusted = "layercache_lookups_total{fact=\"meta\",tier=\"memory\",result=\"untrusted\"}";
    let before = metrics.get(untrusted);
    assert!(stat(&node, &digest(1)).await.0.is_none());
    assert_eq!(metrics.get(untrusted), before + 1);
    eventually("seconds", || {
        metrics.get("layercache_untrusted_seconds_total") > 0
    })
    .await;
    drop(node);
    for state in ["closed", "probing", "open"] {
        let none = || metrics.get(&format!("layercache_redis_breakers{{state=\"{state}\"}}")) == 0;
        eventually(state, none).await;
    }
}

#[tokio::test]
async fn metrics_of_caches_in_one_process_add_up() {
    let bare = bare(Duration::ZERO);
    let (metrics, mut stores) = Metrics::of(|| {
        let store = || CachedStore::new(bare.clone());
        vec![store(), store(), store()]
    });
    let digest = digest(1);
    put(&bare, &digest).await;
    for store in &stores {
        until_in_memory(store, &digest).await;
        // Each read replaces the entry of the one before. The link's object has an entry too.
        for _ in 0..3 {
            let again = layers(store).stat(&digest, Freshness::Verified).await;
            assert!(again.unwrap().value.is_some());
            tokio::task::yield_now().await;
        }
    }
    eventually("all are filled", || {
        metrics.get("layercache_fills_total{result=\"stored\"}") == 12
    })
    .await;
    let gauge = |name: &str| metrics.get(&format!("layercache_{name}"));
    let bytes = gauge("memory_bytes");
    for left in (0..=3).rev() {
        assert_eq!(gauge("caches"), left);
        assert_eq!(gauge("memory_trusted"), left);
        assert_eq!(gauge("memory_entries"), 2 * left);
        assert_eq!(gauge("memory_bytes"), bytes / 3 * left);
        stores.pop();
    }
}
