//! Tests a Redis that is down, hung or slow: what reads cost, and how the node recovers.

use test_support as support;

use futures::future::join_all;
use layercache::{CacheStatus, Error, RedisConfig};
use object_store::ObjectStoreExt;
use std::time::{Duration, Instant};
use support::metrics::Metrics;
use support::nodes::{
    Bare, LENGTH, Node, bare, blob_path, config, digest, eventually, layers, node, node_with, put,
    stat, until, until_in_memory,
};
use support::proxy::{Line, Proxy};
use support::redis::Redis;
use support::server::{Signal, free_port};

/// How long the backend takes for a call.
const LATENCY: Duration = Duration::from_millis(3);
/// The default deadline of an operation on Redis.
const TIMEOUT: Duration = Duration::from_millis(50);
/// The number of blobs.
const READS: usize = 400;
const CLIENTS: usize = 8;

async fn world() -> (Redis, Bare) {
    let bare = bare(LATENCY);
    for i in 0..READS as u32 {
        put(&bare, &digest(i)).await;
    }
    (Redis::start().await, bare)
}

/// Reads each blob. All must be found.
async fn read_all(node: &Node) {
    let client = async |client: usize| {
        for i in (client..READS).step_by(CLIENTS) {
            assert_eq!(stat(node, &digest(i as u32)).await.0, Some(LENGTH));
        }
    };
    join_all((0..CLIENTS).map(client)).await;
}

/// Returns how long all reads together have waited for Redis.
fn waited(metrics: &Metrics) -> Duration {
    let name = "layercache_lookup_duration_seconds_sum{tier=\"redis\"} ";
    let text = metrics.text();
    let sum = text.lines().find_map(|line| line.strip_prefix(name));
    Duration::from_secs_f64(sum.expect(&text).parse().unwrap())
}

/// Checks that only the first reads have waited for Redis. A read that asks Redis waits for its
/// deadline.
fn assert_waited_little(what: &str, waited: Duration) {
    println!("{what}: the reads waited {waited:?} for Redis in all");
    assert!(waited < TIMEOUT * 20, "{what}: {waited:?}");
}

/// Waits until a Redis that is back has received a heartbeat, without a request to the node.
async fn until_registered(redis: &Redis) {
    let newest = || {
        let nodes = redis.cli(&[
            "ZREVRANGEBYSCORE",
            "layercache::{nodes}",
            "(+inf",
            "0",
            "WITHSCORES",
        ]);
        nodes.lines().nth(1).map(str::to_owned)
    };
    let before = newest();
    eventually("a heartbeat", || newest() != before).await;
    let before = newest();
    eventually("another heartbeat", || newest() != before).await;
}

#[tokio::test]
async fn a_frozen_redis_delays_only_the_first_reads() {
    let (redis, bare) = world().await;
    let config = RedisConfig::new(redis.url()).with_change_timeout(TIMEOUT * 6);
    let (metrics, frozen) = Metrics::of(|| node_with(&bare, config));
    until_in_memory(&frozen, &digest(0)).await;
    frozen.clear_memory();
    let before = waited(&metrics);
    redis.signal(Signal::Stop);
    read_all(&frozen).await;
    assert_waited_little("frozen", waited(&metrics) - before);
    let refused = layers(&frozen).unlink(&digest(0)).await.unwrap_err();
    assert!(
        matches!(refused, Error::ChangeRefused { .. }),
        "{refused:?}"
    );
    assert_eq!(stat(&frozen, &digest(0)).await.0, Some(LENGTH));

    // Without any request the node regains its trust.
    redis.signal(Signal::Cont);
    until_registered(&redis).await;
    until_in_memory(&frozen, &digest(0)).await;
    layers(&frozen).unlink(&digest(0)).await.unwrap();
    assert_eq!(stat(&frozen, &digest(0)).await.0, None);
}

/// Returns how often the node has forgotten all of its memory, and how often its breaker has
/// opened.
fn resynced_and_opened(metrics: &Metrics) -> (u64, u64) {
    (
        metrics.get("layercache_invalidations_total{origin=\"resync\"}"),
        metrics.get("layercache_redis_breaker_opened_total"),
    )
}

/// Memory answers until T, and again as soon as a heartbeat comes back.
#[tokio::test]
async fn a_stall_shorter_than_the_trust_timeout_keeps_memory() {
    const TRUST: Duration = Duration::from_secs(4);
    let (redis, bare) = world().await;
    let config = RedisConfig::new(redis.url()).with_trust_timeout(TRUST);
    let (metrics, node) = Metrics::of(|| node_with(&bare, config));
    for i in 0..20 {
        until_in_memory(&node, &digest(i)).await;
    }
    until_registered(&redis).await;
    let before = resynced_and_opened(&metrics);
    let known = (Some(LENGTH), CacheStatus::Memory);
    let read = (Some(LENGTH), CacheStatus::Miss);

    redis.signal(Signal::Stop);
    let start = Instant::now();
    let many = (100..150).map(async |i| stat(&node, &digest(i)).await);
    let many = join_all(many);
    for answer in many
        .await
        .into_iter()
        .chain([stat(&node, &digest(200)).await])
    {
        assert_eq!(answer, read);
    }
    println!("all were read after {:?}", start.elapsed());
    for i in 0..20 {
        let answer = stat(&node, &digest(i)).await;
        if start.elapsed() < TRUST / 2 {
            assert_eq!(answer, known, "{i}");
        }
    }
    // The stall lasts nine tenths of T, so it is shorter than trust.
    tokio::time::sleep((TRUST - TRUST / 10).saturating_sub(start.elapsed())).await;
    redis.signal(Signal::Cont);
    until_registered(&redis).await;

    let reads = bare.reads();
    for i in 0..20 {
        assert_eq!(stat(&node, &digest(i)).await, known, "{i}");
    }
    assert_eq!(bare.reads(), reads);
    let (resynced, opened) = resynced_and_opened(&metrics);
    assert_eq!(resynced, before.0, "the channel has stayed");
    assert!(opened > before.1, "the breaker did not open");
    // Afterwards the node asks Redis again.
    until_in_memory(&node, &digest(300)).await;
}

/// The runtime is blocked for longer than the deadline, again and again. Redis has answered in
/// time, and the node was late to read the answers.
#[tokio::test]
async fn a_node_that_stalls_itself_keeps_its_breaker_closed() {
    let (redis, bare) = world().await;
    let (metrics, node) = Metrics::of(|| node_with(&bare, RedisConfig::new(redis.url())));
    until_in_memory(&node, &digest(0)).await;
    let before = resynced_and_opened(&metrics);
    assert_eq!(before, (1, 0));
    for round in 1..10 {
        let others = (round * 20..round * 20 + 8).map(|i| {
            let node = node.clone();
            tokio::spawn(async move { stat(&node, &digest(i)).await })
        });
        let others: Vec<_> = others.collect();
        // The tasks begin to ask, and the block interrupts them at another point in each round.
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        std::thread::sleep(TIMEOUT * 3);
        for other in others {
            assert_eq!(other.await.unwrap().0, Some(LENGTH));
        }
        let answer = stat(&node, &digest(0)).await;
        assert_eq!(answer, (Some(LENGTH), CacheStatus::Memory));
    }
    assert_eq!(resynced_and_opened(&metrics), before);
}

/// Redis answers, but later than the deadline. If the node connected anew again and again, each
/// time would cost a few slow reads.
#[tokio::test]
async fn a_slow_redis_delays_few_reads() {
    let (redis, bare) = world().await;
    let proxy = Proxy::start(redis.port()).await;
    let url = format!("redis://127.0.0.1:{}", proxy.port());
    let (metrics, slow) = Metrics::of(|| node_with(&bare, RedisConfig::new(url)));
    until_in_memory(&slow, &digest(0)).await;
    proxy.set(Line::Delay(TIMEOUT * 2, TIMEOUT * 3), Line::Flow);
    let before = waited(&metrics);
    for _ in 0..4 {
        slow.clear_memory();
        read_all(&slow).await;
    }
    assert_waited_little("slow", waited(&metrics) - before);
    proxy.restore();
    until_in_memory(&slow, &digest(0)).await;
}

/// The network drops all packets, and neither side gets an error.
#[tokio::test]
async fn a_half_open_connection_is_replaced() {
    let bare = bare(LATENCY);
    put(&bare, &digest(0)).await;
    let redis = Redis::start().await;
    let proxy = Proxy::start(redis.port()).await;
    let url = format!("redis://127.0.0.1:{}", proxy.port());
    let node = node_with(
        &bare,
        RedisConfig::new(url).with_trust_timeout(Duration::from_millis(600)),
    );
    until_in_memory(&node, &digest(0)).await;
    proxy.set(Line::Swallow, Line::Swallow);
    node.clear_memory();
    for _ in 0..3 {
        let answer = stat(&node, &digest(0)).await;
        assert_eq!(answer, (Some(LENGTH), CacheStatus::Miss));
    }
    // The old connection stays half open. Only a new one works.
    proxy.restore();
    until_in_memory(&node, &digest(0)).await;
}

/// A delete that finds no Redis waits for it, while several probes fail.
#[tokio::test]
async fn a_removal_waits_for_a_redis_that_starts_late() {
    let bare = bare(LATENCY);
    put(&bare, &digest(0)).await;
    let port = free_port();
    let node = node_with(&bare, RedisConfig::new(format!("redis://127.0.0.1:{port}")));
    let read = (Some(LENGTH), CacheStatus::Miss);
    assert_eq!(stat(&node, &digest(0)).await, read);
    let changer = node.clone();
    let removal = tokio::spawn(async move { layers(&changer).unlink(&digest(0)).await });
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(!removal.is_finished(), "the removal waits");
    assert_eq!(stat(&node, &digest(0)).await, read);
    let _redis = Redis::start_on(port).await;
    removal.await.unwrap().unwrap();
    assert_eq!(stat(&node, &digest(0)).await.0, None);
}

#[tokio::test]
async fn a_node_connects_to_a_redis_that_starts_late_without_a_request() {
    let bare = bare(LATENCY);
    put(&bare, &digest(0)).await;
    let port = free_port();
    let config = RedisConfig::new(format!("redis://127.0.0.1:{port}"));
    let node = node_with(&bare, config.with_change_timeout(TIMEOUT));
    assert_eq!(
        stat(&node, &digest(0)).await,
        (Some(LENGTH), CacheStatus::Miss)
    );
    let refused = layers(&node).unlink(&digest(0)).await.unwrap_err();
    assert!(refused.to_string().contains("no connection"), "{refused}");
    let redis = Redis::start_on(port).await;
    until_registered(&redis).await;
    until_in_memory(&node, &digest(0)).await;
    layers(&node).unlink(&digest(0)).await.unwrap();
}

#[tokio::test]
async fn a_node_does_not_use_a_replica_and_says_why() {
    let bare = bare(LATENCY);
    put(&bare, &digest(0)).await;
    let primary = Redis::start().await;
    let port = primary.port().to_string();
    let replica = Redis::start_with(&["--replicaof", "127.0.0.1", &port]).await;
    let to_replica = node_with(&bare, config(&replica));
    let to_primary = node(&bare, &primary);
    until_in_memory(&to_primary, &digest(0)).await;
    for _ in 0..20 {
        let answer = stat(&to_replica, &digest(0)).await;
        assert_eq!(answer, (Some(LENGTH), CacheStatus::Miss));
    }
    let refused = layers(&to_replica).unlink(&digest(0)).await.unwrap_err();
    assert!(refused.to_string().contains("replica"), "{refused}");
    assert_eq!(
        bare.head(&blob_path(&digest(0))).await.unwrap().size,
        LENGTH
    );

    // The replica is promoted, and the node notices that.
    replica.cli(&["REPLICAOF", "NO", "ONE"]);
    until_in_memory(&to_replica, &digest(0)).await;
    layers(&to_replica).unlink(&digest(0)).await.unwrap();
    until(&to_replica, &digest(0), (None, CacheStatus::Miss)).await;
}
