//! Tests behaviour that depends on the server, on each supported server.

use test_support as support;

use layercache::cache::check;
use layercache::{CacheStatus, MemoryConfig, RedisCache, TieredCache};
use object_store::ObjectStoreExt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::nodes::{
    Bare, Dump, LENGTH, Node, PATIENCE, SET, SETTLED, TRUST, add_silent_node, bare, beside,
    blob_path, config, digest, eventually, eventually_changes, hash, layers, node, put, stat,
    until, until_in_memory,
};
use support::redis::{Redis, Version};

/// Makes one test of each behaviour for each server. The test's name names both.
macro_rules! on_each_server {
    ($($behaviours:tt)*) => {
        mod redis_6_2 { tests_on!(Redis6_2: $($behaviours)*); }
        mod redis { tests_on!(Redis: $($behaviours)*); }
        mod valkey { tests_on!(Valkey: $($behaviours)*); }
    };
}

macro_rules! tests_on {
    ($version:ident: $($behaviour:ident)*) => {
        $(
            #[tokio::test]
            async fn $behaviour() {
                let redis = super::Redis::start_of(super::Version::$version).await;
                super::$behaviour(redis).await;
            }
        )*
    };
}

on_each_server! {
    the_caches_pass_the_check_suite
    a_fill_needs_a_lease_and_a_delete_leaves_nothing
    another_nodes_lease_blocks_a_fill_until_it_expires
    a_fence_blocks_fills
    a_delete_returns_after_all_nodes_have_forgotten
    a_delete_waits_for_a_silent_node
    a_delete_does_not_wait_for_a_node_that_was_shut_down
    a_purge_clears_redis_and_the_memory_of_all_nodes
    each_script_is_sent_again_once_after_the_server_lost_it
    a_server_that_lost_its_scripts_does_not_end_trust
    a_restarted_server_is_purged
    a_full_server_accepts_deletes_and_does_not_end_trust
    values_of_another_type_are_replaced
    a_server_with_too_few_replicas_ends_trust
    the_harness_repeats_a_command_whose_connection_was_killed
}

const MEMORY_HIT: (Option<u64>, CacheStatus) = (Some(LENGTH), CacheStatus::Memory);
const MISS: (Option<u64>, CacheStatus) = (Some(LENGTH), CacheStatus::Miss);

/// Returns a store with a blob, and nodes in front of it.
async fn nodes<const N: usize>(redis: &Redis) -> (Bare, [Node; N]) {
    let bare = bare(Duration::ZERO);
    put(&bare, &digest(1)).await;
    let nodes = std::array::from_fn(|_| node(&bare, redis));
    (bare, nodes)
}

async fn all_know(nodes: &[Node]) {
    for node in nodes {
        until_in_memory(node, &digest(1)).await;
    }
}

async fn the_caches_pass_the_check_suite(redis: Redis) {
    let cache = |prefix: &str| RedisCache::new(config(&redis).with_prefix(prefix)).unwrap();
    check::all(Arc::new(cache("plain:"))).await;
    let tiered = TieredCache::with_redis(MemoryConfig::default(), cache("tiered:"));
    check::all(Arc::new(tiered)).await;
}

async fn a_fill_needs_a_lease_and_a_delete_leaves_nothing(redis: Redis) {
    let (bare, [first, second]) = nodes(&redis).await;
    assert_eq!(stat(&first, &digest(1)).await, MISS);
    all_know(std::slice::from_ref(&first)).await;
    for key in [SET, &hash(&digest(1))] {
        let left: i64 = redis.cli(&["PTTL", key]).parse().unwrap();
        assert!(left > 0, "{key} never expires");
    }
    assert_eq!(
        redis.cli(&["KEYS", "lease::*"]),
        "",
        "every lease is given back"
    );
    let reads = bare.reads();
    let expected = (Some(LENGTH), CacheStatus::Redis);
    assert_eq!(stat(&second, &digest(1)).await, expected);
    assert_eq!(bare.reads(), reads);

    first.delete(&blob_path(&digest(1))).await.unwrap();
    layers(&first).unlink(&digest(1)).await.unwrap();
    let left = redis.cli(&["KEYS", "*"]);
    let is_of_the_nodes = |key: &str| key.starts_with("layercache::{nodes}");
    assert!(left.lines().all(is_of_the_nodes), "{left}");
}

async fn another_nodes_lease_blocks_a_fill_until_it_expires(redis: Redis) {
    let (_, [node]) = nodes(&redis).await;
    let lease = beside("lease", &digest(1));
    redis.cli(&["SET", &lease, "another's", "PX", "60000"]);
    let start = Instant::now();
    assert_eq!(stat(&node, &digest(1)).await, MISS);
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "the read waited too long"
    );
    // Long enough for a wrong fill to arrive.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(redis.cli(&["EXISTS", SET]), "0");
    redis.cli(&["PEXPIRE", &lease, "1"]);
    all_know(&[node]).await;
}

async fn a_fence_blocks_fills(redis: Redis) {
    let (_, [node]) = nodes(&redis).await;
    let fence = beside("fence", &digest(1));
    redis.cli(&["SADD", &fence, "another's"]);
    for _ in 0..5 {
        assert_eq!(stat(&node, &digest(1)).await, MISS);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(redis.cli(&["EXISTS", SET]), "0");
    redis.cli(&["DEL", &fence]);
    all_know(&[node]).await;
}

async fn a_delete_returns_after_all_nodes_have_forgotten(redis: Redis) {
    let (_, nodes) = nodes::<3>(&redis).await;
    tokio::time::sleep(SETTLED).await;
    for node in &nodes {
        all_know(&nodes).await;
        let start = Instant::now();
        layers(node).unlink(&digest(1)).await.unwrap();
        let time = start.elapsed();
        assert!(time < TRUST, "the delete waited for its timeout: {time:?}");
        for node in &nodes {
            assert_eq!(stat(node, &digest(1)).await.0, None);
        }
        layers(node).link(&digest(1)).await.unwrap();
    }
}

async fn a_delete_waits_for_a_silent_node(redis: Redis) {
    let (_, [deleter]) = nodes(&redis).await;
    tokio::time::sleep(SETTLED).await;
    add_silent_node(&redis);
    let start = Instant::now();
    layers(&deleter).unlink(&digest(1)).await.unwrap();
    assert!(start.elapsed() >= TRUST);
}

async fn a_delete_does_not_wait_for_a_node_that_was_shut_down(redis: Redis) {
    let (_, [stays, leaves]) = nodes(&redis).await;
    tokio::time::sleep(SETTLED).await;
    all_know(&[leaves.clone(), stays.clone()]).await;
    // The node's heartbeats are in flight when it shuts down, and must not add it again. The other
    // node has no reason to distrust its connection yet.
    redis.cli(&["CLIENT", "PAUSE", "250", "WRITE"]);
    tokio::time::sleep(TRUST / 3).await;
    leaves.shutdown().await;
    let is_back = || redis.cli(&["ZCARD", "layercache::{nodes}"]) != "2";
    let end = Instant::now() + TRUST / 2;
    while Instant::now() < end {
        assert!(!is_back(), "one node, and the epoch of the set");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let start = Instant::now();
    layers(&stays).unlink(&digest(1)).await.unwrap();
    assert!(start.elapsed() < TRUST, "{:?}", start.elapsed());
    for node in [&leaves, &stays] {
        assert_eq!(stat(node, &digest(1)).await.0, None);
    }
}

async fn a_purge_clears_redis_and_the_memory_of_all_nodes(redis: Redis) {
    let (bare, nodes) = nodes::<2>(&redis).await;
    all_know(&nodes).await;
    bare.inner().delete(&blob_path(&digest(1))).await.unwrap();
    nodes[0].purge().await.unwrap();
    assert_eq!(redis.cli(&["KEYS", "blobs::*"]), "");
    assert_eq!(redis.cli(&["KEYS", "repository::*"]), "");
    for node in &nodes {
        assert_eq!(stat(node, &digest(1)).await.0, None);
    }
}

/// Returns how often a command was called since the counts were reset.
fn calls(redis: &Redis, command: &str) -> u64 {
    let stats = redis.cli(&["INFO", "commandstats"]);
    let prefix = format!("cmdstat_{command}:calls=");
    let calls = stats.lines().find_map(|line| line.strip_prefix(&prefix));
    let calls = calls.and_then(|rest| rest.split(',').next());
    calls.map_or(0, |calls| calls.parse().unwrap())
}

/// Returns how many scripts the node sent as text while `act` ran.
async fn texts_sent(redis: &Redis, act: impl Future<Output = ()>) -> u64 {
    redis.cli(&["CONFIG", "RESETSTAT"]);
    act.await;
    calls(redis, "eval")
}

async fn each_script_is_sent_again_once_after_the_server_lost_it(redis: Redis) {
    let (_, [node]) = nodes(&redis).await;
    let read = async || {
        redis.cli(&["DEL", SET, &hash(&digest(1))]);
        node.clear_memory();
        all_know(std::slice::from_ref(&node)).await;
    };
    let unlink = async || layers(&node).unlink(&digest(1)).await.unwrap();
    let link = async || layers(&node).link(&digest(1)).await.unwrap();
    let lose = || redis.cli(&["SCRIPT", "FLUSH"]);
    for _ in 0..2 {
        read().await;
        unlink().await;
        link().await;
    }
    assert_eq!(texts_sent(&redis, read()).await, 0);
    assert_eq!(texts_sent(&redis, unlink()).await, 0);
    assert_eq!(texts_sent(&redis, link()).await, 0);

    // A heartbeat may run in between. It sends its two scripts as text if the server has lost one.
    lose();
    let granted_and_filled = 4..=6;
    assert!(granted_and_filled.contains(&texts_sent(&redis, read()).await));
    let begun_published_and_ended = 3..=5;
    lose();
    assert!(begun_published_and_ended.contains(&texts_sent(&redis, unlink()).await));
    lose();
    assert!(begun_published_and_ended.contains(&texts_sent(&redis, link()).await));
    all_know(std::slice::from_ref(&node)).await;
}

async fn a_server_that_lost_its_scripts_does_not_end_trust(redis: Redis) {
    let (_, [node]) = nodes(&redis).await;
    all_know(std::slice::from_ref(&node)).await;
    redis.cli(&["SCRIPT", "FLUSH"]);
    tokio::time::sleep(SETTLED).await;
    all_know(&[node]).await;
}

async fn a_restarted_server_is_purged(mut redis: Redis) {
    let (_, [node]) = nodes(&redis).await;
    all_know(std::slice::from_ref(&node)).await;
    let dump = Dump::save(&redis).await;
    layers(&node).unlink(&digest(1)).await.unwrap();
    redis.restart_on_same_port().await;
    dump.is_back(&redis);
    let is_purged = || redis.cli(&["EXISTS", SET]) == "0";
    assert_eq!(stat(&node, &digest(1)).await.0, None);
    eventually("the purge", is_purged).await;
    // The purge may have run on another connection than the one for changes.
    eventually_changes(&node).await;
    layers(&node).link(&digest(1)).await.unwrap();
    all_know(&[node]).await;
}

async fn a_full_server_accepts_deletes_and_does_not_end_trust(redis: Redis) {
    let (_, nodes) = nodes::<2>(&redis).await;
    all_know(&nodes).await;
    redis.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    tokio::time::sleep(SETTLED).await;
    assert_eq!(stat(&nodes[1], &digest(1)).await, MEMORY_HIT);
    layers(&nodes[0]).unlink(&digest(1)).await.unwrap();
    for node in &nodes {
        assert_eq!(stat(node, &digest(1)).await.0, None);
    }
    // No fill succeeds, and every read is answered.
    put_link(&nodes[0]).await;
    for _ in 0..3 {
        assert_eq!(stat(&nodes[1], &digest(1)).await.0, Some(LENGTH));
    }
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    all_know(&nodes).await;
}

async fn put_link(node: &Node) {
    layers(node).link(&digest(1)).await.unwrap();
}

async fn values_of_another_type_are_replaced(redis: Redis) {
    let (_, [first, second]) = nodes(&redis).await;
    let hash = hash(&digest(1));
    for spoil in ["fill", "change"] {
        redis.cli(&["DEL", SET, &hash]);
        redis.cli(&["SET", SET, "x"]);
        redis.cli(&["RPUSH", &hash, "x"]);
        if spoil == "change" {
            first.delete(&blob_path(&digest(1))).await.unwrap();
            layers(&first).unlink(&digest(1)).await.unwrap();
            assert_eq!(redis.cli(&["EXISTS", SET, &hash]), "0");
            let path = blob_path(&digest(1));
            first.put(&path, "content".into()).await.unwrap();
            put_link(&first).await;
        }
        first.clear_memory();
        all_know(std::slice::from_ref(&first)).await;
        second.clear_memory();
        until(&second, &digest(1), MEMORY_HIT).await;
        assert_eq!(redis.cli(&["TYPE", SET]), "set");
        assert_eq!(redis.cli(&["TYPE", &hash]), "hash");
    }
}

/// The server is on the minority side of a network split and does not receive the changes of the
/// other side. Redis 6.2 would still run a script.
async fn a_server_with_too_few_replicas_ends_trust(redis: Redis) {
    let (_, [node]) = nodes(&redis).await;
    all_know(std::slice::from_ref(&node)).await;
    redis.cli(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    tokio::time::sleep(SETTLED).await;
    for _ in 0..3 {
        let (found, status) = stat(&node, &digest(1)).await;
        assert_eq!(found, Some(LENGTH));
        assert_ne!(status, CacheStatus::Memory);
    }
    redis.cli(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    all_know(&[node]).await;
}

/// A Sentinel that gives a server another role ends all its connections, also those of the tests.
async fn the_harness_repeats_a_command_whose_connection_was_killed(redis: Redis) {
    std::thread::scope(|scope| {
        let pop = scope.spawn(|| redis.try_cli(&["BLPOP", "list", "20"]));
        let is_blocked = || {
            redis
                .cli(&["INFO", "clients"])
                .contains("blocked_clients:1")
        };
        let end = Instant::now() + PATIENCE;
        while !is_blocked() {
            assert!(Instant::now() < end, "the server does not run the command");
            std::thread::sleep(Duration::from_millis(5));
        }
        redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
        redis.cli(&["RPUSH", "list", "x"]);
        assert_eq!(pop.join().unwrap().as_deref(), Ok("list\nx"));
    });
}
