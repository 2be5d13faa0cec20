//! Tests fills that arrive after their value has changed.

use super::{
    MEMORY_HIT, MISS, NodeRuntime, REDIS_HIT, all_know, long_lived, no_node_knows, nodes, reading,
    world,
};
use layercache::layout::{Distribution, Layout};
use layercache::{CacheStatus, Freshness, Link};
use object_store::ObjectStoreExt;
use std::time::{Duration, Instant};
use test_support::nodes::{
    Bare, Node, SET, blob_path, config, digest, eventually, hash, layers, name, node_with, put,
    stat, until_in_memory,
};
use tokio::task::JoinHandle;

/// Memcached's leases: the lease that was granted is evicted.
#[tokio::test]
async fn race_02_a_fill_whose_lease_is_gone_is_refused() {
    let (redis, [store], [node]) = nodes().await;
    let early = reading(&store, &node).await;
    let leases = redis.cli(&["KEYS", "lease::*"]);
    let leases: Vec<_> = leases.lines().collect();
    assert_eq!(leases.len(), 2, "of the membership and of the meta");
    redis.cli(&[&["DEL"], &leases[..]].concat());
    store.hold(false);
    assert_eq!(early.await.unwrap(), MISS);

    let next = reading(&store, &node).await;
    assert_eq!(redis.cli(&["EXISTS", SET, &hash(&digest(1))]), "0");
    store.hold(false);
    assert_eq!(next.await.unwrap(), MISS);
    all_know([&node]).await;
}

/// Does what [`reading`] does, for the blob alone.
async fn describing(store: &Bare, node: &Node) -> JoinHandle<()> {
    let reads = store.reads();
    store.hold(true);
    let blobs = node.registry().blobs();
    let answer = tokio::spawn(async move {
        let stat = blobs.stat(&digest(1), Freshness::Cached).await;
        assert!(stat.unwrap().value.is_some());
    });
    eventually("no tier knows, and the read reaches the store", || {
        store.reads() == reads + 1
    })
    .await;
    answer
}

/// Grafana Mimir: a reader gets a lease, a complete change runs, another reader gets a lease of the
/// same key, and then the first reader fills.
#[tokio::test]
async fn mimir_add_then_set_a_lease_held_by_another_node_fills_nothing() {
    let (redis, [store, other, _], [first, second, writer]) = nodes().await;
    let hash = hash(&digest(1));
    let lease = format!("lease::{{{hash}}}");
    let early = describing(&store, &first).await;
    let of_the_first = redis.cli(&["GET", &lease]);
    let path = blob_path(&digest(1));
    writer.put(&path, "content".into()).await.unwrap();
    let late = describing(&other, &second).await;
    let of_the_second = redis.cli(&["GET", &lease]);
    assert!(!of_the_second.is_empty() && of_the_second != of_the_first);

    store.hold(false);
    early.await.unwrap();
    let next = describing(&store, &first).await;
    assert_eq!(redis.cli(&["EXISTS", &hash]), "0");
    assert_eq!(redis.cli(&["GET", &lease]), of_the_second);
    other.hold(false);
    late.await.unwrap();
    let is_filled = || redis.cli(&["EXISTS", &hash]) == "1";
    eventually("the second load fills", is_filled).await;
    store.hold(false);
    next.await.unwrap();
}

/// Spice.ai: a write is checked against the clock of invalidations. Here an invalidation from
/// another node arrives during a load whose lease is still valid.
#[tokio::test]
async fn spice_12673_an_invalidation_during_a_load_keeps_it_out_of_memory() {
    let (redis, [store], [node]) = nodes().await;
    put(&store, &digest(2)).await;
    until_in_memory(&node, &digest(2)).await;
    let early = reading(&store, &node).await;
    redis.cli(&[
        "PUBLISH",
        "layercache::{nodes}::all",
        "\u{1}Fsomebodyanything",
    ]);
    // The other blob is not being loaded. Its status shows when the node has received the message.
    while stat(&node, &digest(2)).await == MEMORY_HIT {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    store.hold(false);
    assert_eq!(early.await.unwrap(), MISS);
    assert_eq!(stat(&node, &digest(1)).await, REDIS_HIT);
    assert_eq!(stat(&node, &digest(1)).await, MEMORY_HIT);
}

#[tokio::test]
async fn race_13_an_absence_that_was_read_before_a_push_elsewhere_is_not_answered_after_it() {
    let (_redis, [store, _], [reader, pusher]) = nodes().await;
    layers(&pusher).unlink(&digest(1)).await.unwrap();
    let early = reading(&store, &reader).await;
    layers(&pusher).link(&digest(1)).await.unwrap();
    let late = tokio::spawn({
        let reader = reader.clone();
        async move { stat(&reader, &digest(1)).await.0 }
    });
    tokio::task::yield_now().await;
    store.hold(false);
    assert_eq!(
        early.await.unwrap().0,
        None,
        "the load read before the push"
    );
    assert_eq!(late.await.unwrap(), MISS.0);
    assert_eq!(stat(&reader, &digest(1)).await.0, MISS.0);
    all_know([&reader, &pusher]).await;
}

#[tokio::test]
async fn race_31_a_load_from_before_a_purge_fills_nothing() {
    let (redis, [store, _], [reader, purger]) = nodes().await;
    let early = reading(&store, &reader).await;
    // Garbage collection deletes the blob, and a purge follows.
    store.inner().delete(&blob_path(&digest(1))).await.unwrap();
    purger.purge().await.unwrap();
    store.hold(false);
    assert_eq!(early.await.unwrap(), MISS, "the load read before the purge");

    let next = reading(&store, &reader).await;
    assert_eq!(redis.cli(&["EXISTS", SET, &hash(&digest(1))]), "0");
    store.hold(false);
    assert_eq!(next.await.unwrap().0, None);
    no_node_knows([&reader, &purger]).await;
}

#[tokio::test]
async fn race_35_an_error_is_not_cached_and_leaves_no_lease() {
    let (redis, [store, other]) = world().await;
    let [reader, other] = [&store, &other].map(|store| node_with(store, long_lived(&redis)));
    store.fail(true);
    for _ in 0..3 {
        let failed = layers(&reader).stat(&digest(1), Freshness::Cached).await;
        failed.unwrap_err();
        let is_released = || redis.cli(&["KEYS", "lease::*"]).is_empty();
        eventually("the lease is given back", is_released).await;
    }
    assert_eq!(stat(&other, &digest(1)).await, MISS);
    assert_eq!(
        stat(&reader, &digest(1)).await,
        REDIS_HIT,
        "without the store"
    );
    store.fail(false);
    all_know([&reader, &other]).await;
}

#[tokio::test]
async fn race_36_a_killed_reader_blocks_no_other_reader() {
    let (redis, [store, other]) = world().await;
    // This lease would keep other nodes waiting for 2 s, and be replaced after 10 s.
    let config = config(&redis).with_lease_ttl(Duration::from_secs(20));
    let dying = NodeRuntime::new();
    let its_config = config.clone();
    dying
        .run(async move {
            let reader = node_with(&store, its_config);
            reading(&store, &reader).await;
        })
        .await;
    dying.kill(&redis).await;
    assert_ne!(redis.cli(&["KEYS", "lease::*"]), "", "left behind");

    let node = node_with(&other, config);
    let start = Instant::now();
    assert_eq!(stat(&node, &digest(1)).await, MISS);
    let waited = start.elapsed();
    assert!(waited < Duration::from_secs(1), "{waited:?}");
    assert_eq!(redis.cli(&["EXISTS", SET]), "0", "it had no right to fill");
    all_know([&node]).await;
}

/// Redis executes a `GRANT` after its reader has given up on it.
#[tokio::test]
async fn a_lease_that_was_granted_too_late_is_given_back() {
    const PAUSE: Duration = Duration::from_millis(300);
    let (redis, [store, other]) = world().await;
    let config = long_lived(&redis).with_timeout(Duration::from_millis(100));
    let nodes = [&store, &other].map(|store| node_with(store, config.clone()));
    stat(&nodes[0], &digest(2)).await;
    // During this pause Redis answers look-ups but runs no scripts.
    redis.cli(&["CLIENT", "PAUSE", "300", "WRITE"]);
    assert_eq!(stat(&nodes[0], &digest(1)).await, MISS);
    tokio::time::sleep(PAUSE * 2).await;
    let are_gone = || redis.cli(&["KEYS", "lease::*"]).is_empty();
    eventually("the leases are given back", are_gone).await;
    all_know(&nodes).await;
}

/// A client that asks for absent objects must not be able to keep all nodes busy.
#[tokio::test]
async fn absence_of_an_uncached_object_is_not_published() {
    const REQUESTS: usize = 100;
    let (redis, [store]) = world().await;
    // A heartbeat is also a script that publishes. With this trust timeout there are few of them.
    let config = config(&redis).with_trust_timeout(Duration::from_secs(60));
    let node = node_with(&store, config);
    stat(&node, &digest(1)).await;
    let are_gone = || redis.cli(&["KEYS", "lease::*"]).is_empty();
    eventually("its load has ended", are_gone).await;
    redis.cli(&["CONFIG", "RESETSTAT"]);
    for i in 0..REQUESTS {
        let absent = Link::layer(name(), digest(1000 + i as u32));
        let path = Distribution::default().link_path(&absent).unwrap();
        node.head(&path).await.unwrap_err();
        node.get(&path).await.unwrap_err();
    }
    eventually("the leases are given back", are_gone).await;
    let stats = redis.cli(&["INFO", "commandstats"]);
    let calls = |command: &str| -> usize {
        let line = format!("cmdstat_{command}:calls=");
        let calls = stats.lines().find_map(|stat| stat.strip_prefix(&line));
        let calls = calls.and_then(|calls| calls.split(',').next());
        calls.map_or(0, |calls| calls.parse().unwrap())
    };
    assert!(calls("publish") < 5, "{stats}");
    let scripts = calls("evalsha") + calls("eval");
    assert!(scripts <= 2 * 2 * REQUESTS + 10, "{scripts} of {stats}");
}

/// A client that asks for absent objects must not be able to fill Redis. The node has a thread of
/// its own: the test's own Redis commands would block its heartbeat, and without a heartbeat the
/// node releases no leases.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn race_43_random_digests_leave_nothing_behind() {
    const REQUESTS: u32 = 500;
    let (redis, [store]) = world().await;
    let node = node_with(&store, long_lived(&redis));
    let ask = |i: u32| {
        let node = node.clone();
        tokio::spawn(async move { stat(&node, &digest(1000 + i)).await })
    };
    store.hold(true);
    let asking: Vec<_> = (0..REQUESTS).map(ask).collect();
    eventually("the read reaches the store", || {
        store.reads() == 2 * REQUESTS as usize
    })
    .await;
    let leases = redis.cli(&["KEYS", "lease::*"]);
    assert!(!leases.is_empty());
    for lease in leases.lines().take(20) {
        let left: i64 = redis.cli(&["PTTL", lease]).parse().unwrap();
        assert!((1..=60_000).contains(&left), "{lease}: {left} ms");
    }
    store.hold(false);
    for answer in asking {
        assert_eq!(answer.await.unwrap(), (None, CacheStatus::Miss));
    }
    let are_gone = || redis.cli(&["KEYS", "lease::*"]).is_empty();
    eventually("the leases are given back", are_gone).await;
    let left = redis.cli(&["KEYS", "*"]);
    let is_of_the_nodes = |key: &str| key.starts_with("layercache::{nodes}");
    assert!(left.lines().all(is_of_the_nodes), "{left}");
}
