//! Tests leases, fences, the peer set and the record of servers when another client has written
//! them.

use super::{MEMORY_HIT, MISS};
use futures::future::join_all;
use std::time::{Duration, Instant};
use test_support::nodes::{
    Node, PATIENCE, SET, SETTLED, TRUST, bare, beside, config, digest, eventually, hash, layers,
    node, node_with, put, stat, until, until_in_memory,
};
use test_support::recording::Moment;
use test_support::redis::{Redis, Version};
use tokio::time::timeout;

const NODES: &str = "layercache::{nodes}";

const VERSIONS: [Version; 3] = [Version::Redis6_2, Version::Redis, Version::Valkey];

/// How long a valid fence lasts in these tests, including one that the test has written.
const SHORT: Duration = Duration::from_millis(300);

/// Commands that set a key to a value of each type, without a TTL.
const TYPES: [&[&str]; 6] = [
    &["SET", "x"],
    &["RPUSH", "x"],
    &["HSET", "x", "y"],
    &["ZADD", "7", "x"],
    &["XADD", "*", "x", "y"],
    &["SADD", "x"],
];

fn set_value(redis: &Redis, key: &str, value: &[&str]) {
    redis.cli(&["DEL", key]);
    redis.cli(&[&value[..1], &[key], &value[1..]].concat());
}

/// Returns the keys of the lease or fence of each fact.
fn keys(what: &str) -> [String; 2] {
    let meta = format!("{what}::{{{}}}", hash(&digest(1)));
    [beside(what, &digest(1)), meta]
}

async fn world(version: Version) -> (Redis, super::Bare) {
    let bare = bare(Duration::ZERO);
    put(&bare, &digest(1)).await;
    (Redis::start_of(version).await, bare)
}

async fn no_node_knows(nodes: &[Node]) {
    for node in nodes {
        assert_eq!(stat(node, &digest(1)).await.0, None);
    }
}

/// A value that is no lease would keep all fills away, and never expire.
#[tokio::test]
async fn an_invalid_lease_blocks_no_fill() {
    for version in VERSIONS {
        let (redis, bare) = world(version).await;
        let node = node(&bare, &redis);
        until_in_memory(&node, &digest(1)).await;
        for key in keys("lease") {
            for value in TYPES {
                redis.cli(&["DEL", SET, &hash(&digest(1))]);
                set_value(&redis, &key, value);
                node.clear_memory();
                let reads = bare.reads();
                assert_eq!(stat(&node, &digest(1)).await, MISS, "{key} {value:?}");
                until(&node, &digest(1), MEMORY_HIT).await;
                assert!(
                    bare.reads() - reads <= 2,
                    "{key} {value:?}: exactly one load"
                );
                assert_eq!(redis.cli(&["EXISTS", &key]), "0", "{key} {value:?}");
            }
        }
    }
}

/// A fence that is a set counts for as long as a lease lasts. A value of any other type does not
/// count.
#[tokio::test]
async fn an_invalid_fence_expires_with_the_lease_ttl() {
    for version in VERSIONS {
        let (redis, bare) = world(version).await;
        let node = node_with(&bare, config(&redis).with_lease_ttl(SHORT));
        until_in_memory(&node, &digest(1)).await;
        for key in keys("fence") {
            for value in TYPES {
                redis.cli(&["DEL", SET, &hash(&digest(1))]);
                set_value(&redis, &key, value);
                node.clear_memory();
                assert_eq!(stat(&node, &digest(1)).await, MISS, "{key} {value:?}");
                until(&node, &digest(1), MEMORY_HIT).await;
                assert_eq!(redis.cli(&["EXISTS", &key]), "0", "{key} {value:?}");
            }
        }
    }
}

/// The values are written before a change and in the middle of it, also on a full Redis.
#[tokio::test]
async fn changes_succeed_with_invalid_values_in_their_keys() {
    for version in VERSIONS {
        for is_full in [false, true] {
            let (redis, bare) = world(version).await;
            let config = config(&redis).with_lease_ttl(SHORT).with_fence_ttl(SHORT);
            let nodes = [(); 2].map(|()| node_with(&bare, config.clone()));
            for node in &nodes {
                until_in_memory(node, &digest(1)).await;
            }
            let keys = [keys("lease"), keys("fence")].concat();
            let spoil = |value| keys.iter().for_each(|key| set_value(&redis, key, value));
            let fill_up = |most| drop(redis.cli(&["CONFIG", "SET", "maxmemory", most]));
            for value in TYPES {
                let when = format!("{version:?} {value:?} {is_full}");
                spoil(value);
                fill_up(if is_full { "1" } else { "0" });
                let unlinked = layers(&nodes[0]).unlink(&digest(1)).await;
                fill_up("0");
                unlinked.unwrap_or_else(|error| panic!("{when}: {error}"));
                no_node_knows(&nodes).await;
                spoil(value);
                layers(&nodes[1]).link(&digest(1)).await.unwrap();
                until(&nodes[0], &digest(1), MEMORY_HIT).await;

                // From here the values are written between the begin and the end of a change.
                bare.hold_changes(Some(Moment::Before));
                let changes = bare.changes();
                let node = nodes[0].clone();
                let unlink = tokio::spawn(async move { layers(&node).unlink(&digest(1)).await });
                eventually("the change", || bare.changes() > changes).await;
                spoil(value);
                fill_up(if is_full { "1" } else { "0" });
                bare.hold_changes(None);
                let unlinked = unlink.await.unwrap();
                fill_up("0");
                unlinked.unwrap_or_else(|error| panic!("{when}: {error}"));
                no_node_knows(&nodes).await;
                layers(&nodes[1]).link(&digest(1)).await.unwrap();
                until(&nodes[0], &digest(1), MEMORY_HIT).await;
            }
        }
    }
}

/// Wrong values of the peer set, each as a command without its key.
const SETS: [&[&str]; 11] = [
    &["SET", "x"],
    &["RPUSH", "x"],
    &["HSET", "x", "y"],
    &["SADD", "x"],
    &["XADD", "*", "x", "y"],
    &["ZADD", "7", "x", "+inf", "x"],
    &["ZADD", "+inf", "18446744073709551616"],
    &["ZADD", "+inf", "1", "+inf", "2"],
    &["ZADD", "+inf", "-1", "-inf", "x"],
    // A score far in the future, so that the node would count as seen for ever.
    &["ZADD", "+inf", "1", "9999999999999", "5:600"],
    &["ZADD", "+inf", "1", "1e300", "x"],
];

#[tokio::test]
async fn an_invalid_peer_set_is_replaced_and_changes_wait_for_trust() {
    // All versions run at the same time, because the test mostly waits.
    join_all(VERSIONS.map(async |version| {
        let (redis, bare) = world(version).await;
        let nodes = [(); 2].map(|()| node(&bare, &redis));
        for set in SETS {
            tokio::time::sleep(SETTLED).await;
            for node in &nodes {
                until_in_memory(node, &digest(1)).await;
            }
            set_value(&redis, NODES, set);
            let start = Instant::now();
            layers(&nodes[0]).unlink(&digest(1)).await.unwrap();
            let time = start.elapsed();
            assert!(
                time >= TRUST,
                "{version:?} {set:?}: the change did not wait for unknown peers: {time:?}"
            );
            assert!(time < TRUST * 4, "{version:?} {set:?}: {time:?}");
            no_node_knows(&nodes).await;
            layers(&nodes[1]).link(&digest(1)).await.unwrap();

            // Soon the peer set is known again.
            tokio::time::sleep(SETTLED).await;
            let start = Instant::now();
            layers(&nodes[1]).unlink(&digest(1)).await.unwrap();
            let time = start.elapsed();
            assert!(
                time < TRUST,
                "{version:?} {set:?}: the change waited for its timeout: {time:?}"
            );
            no_node_knows(&nodes).await;
            layers(&nodes[0]).link(&digest(1)).await.unwrap();
            assert_eq!(redis.cli(&["ZCARD", NODES]), "3", "{version:?} {set:?}");
        }
    }))
    .await;
}

/// The peer set has a member that no node can be. A change waits for it no longer than for any
/// other peer.
#[tokio::test]
async fn a_change_waits_for_a_forged_peer() {
    let (redis, bare) = world(Version::Redis).await;
    let nodes = [(); 2].map(|()| node(&bare, &redis));
    let long = "7".repeat(100_000);
    for member in [
        "",
        "x",
        "5",
        "5:",
        ":600",
        "-5:600",
        "5:-600",
        "5:600:1",
        "5:18446744073709551615",
        "5:99999999999999999999",
        "99999999999999999999:600",
        &long,
    ] {
        tokio::time::sleep(SETTLED).await;
        for node in &nodes {
            until_in_memory(node, &digest(1)).await;
        }
        let time = redis.cli(&["TIME"]).lines().next().unwrap().to_owned() + "000";
        redis.cli(&["ZADD", NODES, &time, member]);
        let start = Instant::now();
        let (repository, blob) = (layers(&nodes[0]), digest(1));
        let unlinked = timeout(PATIENCE, repository.unlink(&blob)).await;
        unlinked.expect("the change ends").unwrap();
        let (time, name) = (start.elapsed(), &member[..member.len().min(30)]);
        assert!((TRUST..TRUST * 3).contains(&time), "{name}: {time:?}");
        no_node_knows(&nodes).await;
        redis.cli(&["ZREM", NODES, member]);
        layers(&nodes[1]).link(&digest(1)).await.unwrap();
    }
}

/// The set is larger than any set of real nodes. The node does not read it, and changes wait.
#[tokio::test]
async fn a_million_forged_peers_do_not_add_up_waiting_times() {
    let (redis, bare) = world(Version::Redis).await;
    let nodes = [(); 2].map(|()| node(&bare, &redis));
    tokio::time::sleep(SETTLED).await;
    let fill = "local time = redis.call('TIME')[1] * 1000
        for i = 1, 1000000 do redis.call('ZADD', KEYS[1], time, i .. ':600') end";
    redis.cli(&["EVAL", fill, "1", NODES]);
    for node in &nodes {
        until_in_memory(node, &digest(1)).await;
    }
    let start = Instant::now();
    layers(&nodes[0]).unlink(&digest(1)).await.unwrap();
    let time = start.elapsed();
    assert!((TRUST..TRUST * 3).contains(&time), "{time:?}");
    no_node_knows(&nodes).await;
}

/// If the set has more members than a node reads, the node does not know which peers it has missed. Here
/// it misses a peer that may trust its memory.
#[tokio::test]
async fn a_change_waits_for_a_real_peer_behind_many_forged_ones() {
    let (redis, bare) = world(Version::Redis).await;
    let nodes = [(); 2].map(|()| node(&bare, &redis));
    tokio::time::sleep(SETTLED).await;
    let crowd = "local now = redis.call('TIME')
        now = now[1] * 1000 + math.floor(now[2] / 1000)
        for i = 1, 5000 do redis.call('ZADD', KEYS[1], now, i .. ':1') end
        redis.call('ZADD', KEYS[1], now + 1000, '5000:600')";
    for _ in 0..5 {
        until_in_memory(&nodes[0], &digest(1)).await;
        redis.cli(&["EVAL", crowd, "1", NODES]);
        // The change need not wait for any of the crowd, because each trusts for only a
        // millisecond.
        let start = Instant::now();
        layers(&nodes[0]).unlink(&digest(1)).await.unwrap();
        let time = start.elapsed();
        assert!(time >= TRUST, "{time:?}");
        layers(&nodes[0]).link(&digest(1)).await.unwrap();
    }
}

/// Returns whether the server is on record.
fn is_on_record(redis: &Redis, key: &str) -> bool {
    let info = redis.cli(&["INFO", "server"]);
    let id = info.lines().find_map(|line| line.strip_prefix("run_id:"));
    let id = id.expect("a server has one").trim();
    redis.cli(&["TYPE", key]) == "set" && redis.cli(&["SMEMBERS", key]).contains(id)
}

/// Nodes that connect anew read the record. A value that is no record counts as a record of other
/// servers, so the node purges everything.
#[tokio::test]
async fn an_invalid_server_record_does_not_stop_a_node() {
    let record = format!("{NODES}::servers");
    let long = "7".repeat(100_000);
    for version in VERSIONS {
        let (redis, bare) = world(version).await;
        let nodes = [(); 2].map(|()| node(&bare, &redis));
        for value in TYPES
            .into_iter()
            .chain([&["SET", &*long][..], &["SET", ""]])
        {
            for node in &nodes {
                until_in_memory(node, &digest(1)).await;
            }
            set_value(&redis, &record, value);
            redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
            let what = format!("{version:?} replaces the invalid record: {value:?}");
            eventually(&what, || is_on_record(&redis, &record)).await;
            for node in &nodes {
                until_in_memory(node, &digest(1)).await;
            }
            layers(&nodes[0]).unlink(&digest(1)).await.unwrap();
            no_node_knows(&nodes).await;
            layers(&nodes[0]).link(&digest(1)).await.unwrap();
        }
    }
}
