//! Tests several nodes on one Redis and one store: no node answers with anything that another node
//! has deleted.

use test_support as support;

use layercache::{CacheStatus, Link};
use object_store::ObjectStoreExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::metrics::Metrics;
use support::nodes::{
    Dump, SET, SETTLED, TRUST, add_silent_node, bare, blob_path, config_at, digest, eventually,
    layers, name, node, node_with, put, stat, until_in_memory,
};
use support::proxy::{Line, Proxy};
use support::redis::Redis;

/// How long a purging node that has died keeps the others waiting.
const LOCK: Duration = Duration::from_secs(10);

/// How long nodes may take to purge a server and to use it again.
const PURGE: Duration = Duration::from_secs(180);

#[tokio::test]
async fn a_delete_returns_after_all_nodes_have_forgotten() {
    let (redis, bare) = (Redis::start().await, bare(Duration::ZERO));
    let nodes: Vec<_> = (0..3).map(|_| node(&bare, &redis)).collect();
    tokio::time::sleep(SETTLED).await;
    for i in 0..20 {
        let digest = digest(i);
        put(&bare, &digest).await;
        for node in &nodes {
            until_in_memory(node, &digest).await;
        }
        let start = Instant::now();
        layers(&nodes[i as usize % 3])
            .unlink(&digest)
            .await
            .unwrap();
        assert!(start.elapsed() < TRUST, "the change waited for its timeout");
        for node in &nodes {
            assert_eq!(stat(node, &digest).await.0, None);
        }
    }
}

/// With the same requests, the Go registry of docker/distribution answers two thirds of these reads with
/// deleted content.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_after_a_returned_delete_finds_the_object() {
    const DELETES: u32 = 60;
    let (redis, bare) = (Redis::start().await, bare(Duration::from_millis(1)));
    let nodes: Vec<_> = (0..3).map(|_| node(&bare, &redis)).collect();
    tokio::time::sleep(SETTLED).await;

    let deleted: Arc<Vec<AtomicBool>> =
        Arc::new((0..DELETES).map(|_| AtomicBool::new(false)).collect());
    let current = Arc::new(AtomicUsize::new(0));
    let (checked, over) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let readers: Vec<_> = (0..12)
        .map(|i| {
            let node = nodes[i % 3].clone();
            let (deleted, current) = (Arc::clone(&deleted), Arc::clone(&current));
            let (checked, over) = (Arc::clone(&checked), Arc::clone(&over));
            tokio::spawn(async move {
                while !over.load(Ordering::SeqCst) {
                    let now = current.load(Ordering::SeqCst);
                    for round in [now, now.saturating_sub(1), now / 2] {
                        let is_deleted = deleted[round].load(Ordering::SeqCst);
                        let (found, status) = stat(&node, &digest(round as u32)).await;
                        if is_deleted {
                            assert_eq!(found, None, "stale read of {round} from {status:?}");
                            checked.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for round in 0..DELETES {
        put(&bare, &digest(round)).await;
        current.store(round as usize, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(20)).await;
        let node = &nodes[round as usize % 3];
        layers(node).unlink(&digest(round)).await.unwrap();
        deleted[round as usize].store(true, Ordering::SeqCst);
    }
    let end = Instant::now() + Duration::from_secs(20);
    while checked.load(Ordering::SeqCst) < 1000
        && readers.iter().all(|reader| !reader.is_finished())
    {
        assert!(Instant::now() < end, "too few reads to check");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    over.store(true, Ordering::SeqCst);
    for reader in readers {
        reader.await.unwrap();
    }
    assert!(checked.load(Ordering::SeqCst) >= 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_reads_of_a_cold_key_on_four_nodes_cost_one_call() {
    let (redis, bare) = (Redis::start().await, bare(Duration::from_millis(100)));
    let nodes: Vec<_> = (0..4).map(|_| node(&bare, &redis)).collect();
    put(&bare, &digest(1)).await;
    // After this the nodes are connected and have loaded their scripts.
    for node in &nodes {
        stat(node, &digest(2)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let reads = bare.reads();
    let tasks: Vec<_> = (0..10_000)
        .map(|i| {
            let node = nodes[i % 4].clone();
            tokio::spawn(async move { stat(&node, &digest(1)).await.0 })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), Some(7));
    }
    assert_eq!(
        bare.reads() - reads,
        2,
        "one of the link and one of the blob"
    );
}

/// One node reads while another deletes. The fill of the read comes too late.
#[tokio::test]
async fn a_load_that_read_before_another_nodes_delete_fills_nothing() {
    let (redis, bare) = (Redis::start().await, bare(Duration::ZERO));
    let nodes: Vec<_> = (0..3).map(|_| node(&bare, &redis)).collect();
    put(&bare, &digest(1)).await;
    for node in &nodes {
        stat(node, &digest(2)).await;
    }
    tokio::time::sleep(SETTLED).await;

    bare.hold(true);
    let (reader, reads) = (nodes[0].clone(), bare.reads());
    let early = tokio::spawn(async move { stat(&reader, &digest(1)).await.0 });
    let end = Instant::now() + Duration::from_secs(5);
    while bare.reads() < reads + 2 {
        assert!(Instant::now() < end, "the load has not read");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    layers(&nodes[1]).unlink(&digest(1)).await.unwrap();
    bare.hold(false);
    assert_eq!(
        early.await.unwrap(),
        Some(7),
        "the load read before the delete"
    );
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(redis.cli(&["SCARD", SET]), "0", "a late fill came through");
    for node in &nodes {
        assert_eq!(stat(node, &digest(1)).await.0, None);
    }
}

#[tokio::test]
async fn a_delete_waits_for_a_silent_node_until_its_trust_ends() {
    let (redis, bare) = (Redis::start().await, bare(Duration::ZERO));
    let deleter = node(&bare, &redis);
    put(&bare, &digest(1)).await;
    until_in_memory(&deleter, &digest(1)).await;
    tokio::time::sleep(SETTLED).await;
    add_silent_node(&redis);
    let start = Instant::now();
    layers(&deleter).unlink(&digest(1)).await.unwrap();
    let waited = start.elapsed();
    assert!(waited >= TRUST, "{waited:?}");
    assert!(waited < TRUST * 3, "{waited:?}");
}

/// A node whose last handle is dropped removes itself from the peer set, even without `shutdown`.
#[tokio::test]
async fn a_delete_does_not_wait_for_a_dropped_node() {
    let (redis, bare) = (Redis::start().await, bare(Duration::ZERO));
    let (deleter, other) = (node(&bare, &redis), node(&bare, &redis));
    put(&bare, &digest(1)).await;
    for node in [&deleter, &other] {
        until_in_memory(node, &digest(1)).await;
    }
    tokio::time::sleep(SETTLED).await;
    let kept = other.clone();
    drop(other);
    tokio::time::sleep(TRUST / 4).await;
    let nodes = || redis.cli(&["ZCOUNT", "layercache::{nodes}", "0", "(+inf"]);
    assert_eq!(nodes(), "2", "the node is still a peer");
    drop(kept);
    eventually("the node leaves the peer set", || nodes() == "1").await;
    let start = Instant::now();
    layers(&deleter).unlink(&digest(1)).await.unwrap();
    assert!(start.elapsed() < TRUST / 2, "{:?}", start.elapsed());
    // A heartbeat must not add the node again.
    tokio::time::sleep(TRUST).await;
    assert_eq!(nodes(), "1");
}

/// Without a runtime the node cannot send anything.
#[test]
fn a_node_can_be_dropped_without_a_runtime() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let bare = bare(Duration::ZERO);
    let (redis, node) = runtime.block_on(async {
        let redis = Redis::start().await;
        let node = node(&bare, &redis);
        put(&bare, &digest(1)).await;
        until_in_memory(&node, &digest(1)).await;
        (redis, node)
    });
    drop(runtime);
    drop(node);
    drop(redis);
}

/// The node's acknowledgements do not stop when the runtime in which it began ends.
#[test]
fn a_node_moved_to_another_runtime_acknowledges_there() {
    let [first, second] = [(); 2].map(|()| tokio::runtime::Runtime::new().unwrap());
    let bare = bare(Duration::ZERO);
    let (redis, other) = first.block_on(async {
        let redis = Redis::start().await;
        let other = node(&bare, &redis);
        put(&bare, &digest(1)).await;
        until_in_memory(&other, &digest(1)).await;
        (redis, other)
    });
    drop(first);
    // The node notices that its connection is gone when it sends something.
    other.clear_memory();
    second.block_on(async {
        let deleter = node(&bare, &redis);
        for node in [&deleter, &other] {
            until_in_memory(node, &digest(1)).await;
        }
        tokio::time::sleep(SETTLED).await;
        let start = Instant::now();
        layers(&deleter).unlink(&digest(1)).await.unwrap();
        assert!(start.elapsed() < TRUST, "the change waited for its timeout");
        assert_eq!(stat(&other, &digest(1)).await.0, None);
    });
}

#[tokio::test]
async fn a_purge_clears_redis_and_the_memory_of_all_nodes() {
    let (redis, bare) = (Redis::start().await, bare(Duration::ZERO));
    let nodes: Vec<_> = (0..2).map(|_| node(&bare, &redis)).collect();
    put(&bare, &digest(1)).await;
    for node in &nodes {
        until_in_memory(node, &digest(1)).await;
    }
    bare.inner().delete(&blob_path(&digest(1))).await.unwrap();
    assert_eq!(
        stat(&nodes[1], &digest(1)).await.0,
        Some(7),
        "deleted without the cache"
    );
    nodes[0].purge().await.unwrap();
    for node in &nodes {
        assert_eq!(stat(node, &digest(1)).await.0, None);
    }
    let left = redis.cli(&["KEYS", "blobs::*"]);
    assert_eq!(left, "");
}

/// An old dump brings a deleted entry back. No node may answer it.
#[tokio::test]
async fn a_redis_restarted_from_an_old_dump_is_purged() {
    let (mut redis, bare) = (Redis::start().await, bare(Duration::ZERO));
    let node = node(&bare, &redis);
    put(&bare, &digest(1)).await;
    until_in_memory(&node, &digest(1)).await;
    let dump = Dump::save(&redis).await;
    layers(&node).unlink(&digest(1)).await.unwrap();
    redis.kill();
    redis.restart_on_same_port().await;
    dump.is_back(&redis);
    for _ in 0..50 {
        assert_eq!(stat(&node, &digest(1)).await.0, None);
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    assert_eq!(redis.cli(&["EXISTS", SET]), "0");
}

/// Each node finds a new server, and one of them scans all its keys. There are so many keys, and the
/// network is so slow, that this takes longer than the lock of the purge lasts.
#[tokio::test]
async fn one_node_purges_a_server_for_all_nodes() {
    let (mut redis, bare) = (Redis::start().await, bare(Duration::ZERO));
    let proxy = Proxy::start(redis.port()).await;
    let much = "for i = 1, 500000 do redis.call('SET', 'of-others:' .. i, '') end";
    redis.cli(&["EVAL", much, "0"]);
    put(&bare, &digest(1)).await;
    let url = format!("redis://127.0.0.1:{}", proxy.port());
    let made: Vec<_> = (0..4)
        .map(|_| Metrics::of(|| node_with(&bare, config_at(url.clone()))))
        .collect();
    for (_, node) in &made {
        until_in_memory(node, &digest(1)).await;
    }
    let dump = Dump::save(&redis).await;
    layers(&made[0].1).unlink(&digest(1)).await.unwrap();
    redis.kill();
    let late = Duration::from_millis(6);
    proxy.set(Line::Flow, Line::Delay(late, late));
    redis.restart_on_same_port().await;
    dump.is_back(&redis);
    let began = Instant::now();
    put(&bare, &digest(2)).await;
    for (_, node) in &made {
        while stat(node, &digest(2)).await.1 != CacheStatus::Memory {
            assert!(began.elapsed() < PURGE, "the node never uses Redis again");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(stat(node, &digest(1)).await.0, None);
    }
    assert!(began.elapsed() > LOCK, "the purge was too fast to tell");
    let purges = made
        .iter()
        .map(|(metrics, _)| metrics.get("layercache_purges_total{cause=\"server\"}"));
    assert_eq!(purges.sum::<u64>(), 1);
}

/// A full Redis refuses a script whose first write is a `SET`; then the old positive would stay.
#[tokio::test]
async fn redis_oom_tombstone_a_full_redis_accepts_deletes() {
    let (redis, bare) = (Redis::start().await, bare(Duration::ZERO));
    let nodes: Vec<_> = (0..2).map(|_| node(&bare, &redis)).collect();
    put(&bare, &digest(1)).await;
    for node in &nodes {
        until_in_memory(node, &digest(1)).await;
    }
    redis.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    tokio::time::sleep(SETTLED).await;
    let link = Link::layer(name(), digest(1));
    assert_eq!(
        stat(&nodes[1], &digest(1)).await,
        (Some(7), CacheStatus::Memory),
        "trust stays"
    );
    layers(&nodes[0]).unlink(&link.digest).await.unwrap();
    for node in &nodes {
        assert_eq!(stat(node, &digest(1)).await.0, None);
    }
}
