//! Tests messages between nodes that are lost, not understood, or meant for other nodes.

use super::{MEMORY_HIT, REDIS_HIT, all_know, no_node_knows, nodes, world};
use layercache::CacheStatus;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use test_support::nodes::{
    LENGTH, SET, SETTLED, TRUST, bare, config, digest, eventually, layers, node, node_with, put,
    stat, until, until_in_memory,
};
use test_support::redis::Redis;

const SHARED: &str = "layercache::{nodes}::all";

/// Publishes a message that no node understands, and waits until the node has forgotten everything.
async fn clears_memory(redis: &Redis, node: &super::Node, message: &str) {
    all_know([node]).await;
    redis.cli(&["PUBLISH", SHARED, message]);
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let answer = stat(node, &digest(1)).await;
        if answer == REDIS_HIT {
            return;
        }
        assert_eq!(answer, MEMORY_HIT);
        assert!(Instant::now() < end, "{message:?} was ignored");
        // Without a pause the node would not receive its own heartbeats either.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Checks that the channel still works: the other node acknowledges a delete at once.
async fn receives_invalidations(nodes: &[super::Node; 2]) {
    all_know(nodes).await;
    tokio::time::sleep(SETTLED).await;
    all_know(nodes).await;
    let start = Instant::now();
    layers(&nodes[0]).unlink(&digest(1)).await.unwrap();
    let time = start.elapsed();
    assert!(time < TRUST, "the change waited for its timeout: {time:?}");
    no_node_knows(nodes).await;
}

#[tokio::test]
async fn race_05_an_unreadable_message_clears_memory_and_the_node_goes_on() {
    let (redis, _ways, nodes) = nodes::<2>().await;
    for message in ["", "?", "\u{1}", "\u{1}I", "\u{1}Fshort", "OK\r\n+OK\r\n"] {
        clears_memory(&redis, &nodes[1], message).await;
    }
    let long = "\u{1}I".to_owned() + &"x".repeat(100_000);
    clears_memory(&redis, &nodes[1], &long).await;
    receives_invalidations(&nodes).await;
}

/// While nodes are updated one by one, the old ones receive messages that only the new ones
/// understand.
#[tokio::test]
async fn race_38_a_message_of_a_later_version_clears_memory_and_the_node_goes_on() {
    let (redis, _ways, nodes) = nodes::<2>().await;
    for message in [
        "\u{2}Fsomebodyanything",
        "\u{1}Zsomebodyanything",
        "\u{1}Fsomebodyanythingandmore00",
    ] {
        clears_memory(&redis, &nodes[1], message).await;
    }
    receives_invalidations(&nodes).await;
}

/// Returns the ids of the subscribed connections.
fn subscribers(redis: &Redis) -> BTreeSet<String> {
    let list = redis.cli(&["CLIENT", "LIST", "TYPE", "pubsub"]);
    let ids = list.lines().filter_map(|line| line.split(' ').next());
    ids.filter_map(|id| id.strip_prefix("id="))
        .map(str::to_owned)
        .collect()
}

/// Redis does not repeat a message for a node that was not subscribed when it was published.
#[tokio::test]
async fn race_06_a_node_does_not_answer_objects_deleted_while_it_was_disconnected() {
    let (redis, stores, _) = nodes::<1>().await;
    let deleter = node(&stores[0], &redis);
    until_in_memory(&deleter, &digest(1)).await;
    let before = subscribers(&redis);
    let reader = node(&stores[0], &redis);
    tokio::time::sleep(SETTLED).await;
    let mut own = &subscribers(&redis) - &before;
    for _ in 0..5 {
        all_know([&reader, &deleter]).await;
        assert_eq!(own.len(), 1, "one connection");
        let id = own.pop_first().unwrap();
        redis.cli(&["CLIENT", "KILL", "ID", &id]);
        layers(&deleter).unlink(&digest(1)).await.unwrap();
        for _ in 0..20 {
            no_node_knows([&reader]).await;
        }
        layers(&deleter).link(&digest(1)).await.unwrap();
        own = &subscribers(&redis) - &before;
    }
}

/// After `FLUSHALL` the peer set is a new one. Nodes that are not in it yet may still trust their
/// memory.
#[tokio::test]
async fn race_39_after_flushall_a_delete_waits_for_the_whole_trust_timeout() {
    // Long enough that trust still lasts when the delete begins.
    const TRUST: Duration = Duration::from_millis(1500);
    let (redis, stores) = world::<2>().await;
    let config = config(&redis).with_trust_timeout(TRUST);
    let nodes = stores.map(|store| node_with(&store, config.clone()));
    tokio::time::sleep(TRUST + TRUST / 4).await;
    all_know(&nodes).await;
    redis.cli(&["FLUSHALL"]);
    let are_all_back = || redis.cli(&["ZCARD", "layercache::{nodes}"]) == "3";
    eventually("both nodes and the name of the set", are_all_back).await;
    let start = Instant::now();
    layers(&nodes[0]).unlink(&digest(1)).await.unwrap();
    assert!(start.elapsed() >= TRUST, "{:?}", start.elapsed());
    no_node_knows(&nodes).await;
}

/// A channel has no prefix and no database, so its name contains both.
#[tokio::test]
async fn race_39_deployments_on_one_redis_share_no_messages_and_no_purges() {
    let redis = Redis::start().await;
    // Some prefixes are patterns that match the others.
    let prefixes = ["", "eu:", "e*:", "e[u]:", "e?:", "e\\u:", "*", "eu:eu:"];
    let mut deployments = Vec::new();
    for prefix in prefixes {
        let bare = bare(Duration::ZERO);
        put(&bare, &digest(1)).await;
        let node = node_with(&bare, config(&redis).with_prefix(prefix));
        until_in_memory(&node, &digest(1)).await;
        deployments.push((prefix, node, bare));
    }
    let keys = |prefix: &str| {
        let keys = [
            format!("{prefix}{SET}"),
            format!("{prefix}blobs::{}", digest(1)),
        ];
        redis.cli(&["EXISTS", &keys[0], &keys[1]])
    };
    tokio::time::sleep(SETTLED).await;
    for (i, (prefix, node, _)) in deployments.iter().enumerate() {
        let start = Instant::now();
        node.purge().await.unwrap();
        assert!(
            start.elapsed() < TRUST,
            "{prefix:?} has waited for other deployments"
        );
        assert_eq!(keys(prefix), "0", "{prefix:?} is purged");
        for (other, node, bare) in &deployments {
            if other != prefix {
                let reads = bare.reads();
                let answer = stat(node, &digest(1)).await;
                assert_eq!(answer, MEMORY_HIT, "{other:?} after {prefix:?}");
                assert_eq!(bare.reads(), reads);
                assert_eq!(keys(other), "2", "{other:?} after {prefix:?}");
            }
        }
        layers(node).unlink(&digest(1)).await.unwrap();
        let (_, next, _) = &deployments[(i + 1) % deployments.len()];
        assert_eq!(stat(next, &digest(1)).await, MEMORY_HIT);
        layers(node).link(&digest(1)).await.unwrap();
        until(node, &digest(1), (Some(LENGTH), CacheStatus::Memory)).await;
    }
}
