//! Tests servers that are no longer the primary, or that were replaced by another server.

use super::{MISS, all_know, no_node_knows, nodes};
use layercache::{CachedStore, Error};
use std::time::Instant;
use test_support::nodes::{SET, SETTLED, TRUST, digest, eventually, layers, node, put, stat};
use test_support::redis::Redis;

/// Makes a server a replica, as an operator or a Sentinel does.
fn follow(replica: &Redis, primary: &Redis) {
    let port = primary.port().to_string();
    // By default the primary would wait for more replicas.
    primary.cli(&["CONFIG", "SET", "repl-diskless-sync-delay", "0"]);
    replica.cli(&["REPLICAOF", "127.0.0.1", &port]);
}

async fn follows(replica: &Redis) {
    let is_up = || {
        replica
            .cli(&["INFO", "replication"])
            .contains("master_link_status:up")
    };
    eventually("the replica has caught up", is_up).await;
}

/// Ends the clients' connections, as a Sentinel does with a server that it has made a replica.
fn cut_off_clients(redis: &Redis) {
    for kind in ["normal", "pubsub"] {
        redis.cli(&["CLIENT", "KILL", "TYPE", kind]);
    }
}

fn members(redis: &Redis) -> String {
    redis.cli(&["SCARD", SET])
}

/// A replica has an older state of its primary, and runs no scripts that write.
#[tokio::test]
async fn race_23_a_node_does_not_answer_from_a_replica() {
    let (primary, [store, other], [writer, _]) = nodes().await;
    all_know([&writer]).await;
    let replica = Redis::start().await;
    follow(&replica, &primary);
    follows(&replica).await;
    assert_eq!(members(&replica), "1");

    let node = node(&other, &replica);
    for _ in 0..10 {
        assert_eq!(stat(&node, &digest(1)).await, MISS);
    }
    let changes = store.changes() + other.changes();
    let refused = layers(&node).unlink(&digest(1)).await.unwrap_err();
    assert!(
        matches!(refused, Error::ChangeRefused { .. }),
        "{refused:?}"
    );
    assert_eq!(
        store.changes() + other.changes(),
        changes,
        "nothing was changed"
    );

    // The node gets no message of a delete on another node, and does not need one.
    layers(&writer).unlink(&digest(1)).await.unwrap();
    no_node_knows([&node]).await;
}

/// The server behind a live connection becomes a replica that has lost its primary. Its data does
/// not change any more.
#[tokio::test]
async fn race_23_a_node_does_not_use_a_demoted_primary() {
    let (redis, [store, _], nodes) = nodes::<2>().await;
    all_know(&nodes).await;
    redis.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    tokio::time::sleep(SETTLED).await;
    // A client that uses the new primary deletes the link.
    let elsewhere = CachedStore::new(store.apart());
    layers(&elsewhere).unlink(&digest(1)).await.unwrap();
    no_node_knows(&nodes).await;
    let refused = layers(&nodes[0]).unlink(&digest(1)).await.unwrap_err();
    assert!(
        matches!(refused, Error::ChangeRefused { .. }),
        "{refused:?}"
    );
    no_node_knows(&nodes).await;

    // The server becomes a primary again, with its old data.
    redis.cli(&["REPLICAOF", "NO", "ONE"]);
    let end = Instant::now() + SETTLED * 2;
    while Instant::now() < end {
        no_node_knows(&nodes).await;
    }
    assert_eq!(members(&redis), "0", "the server is purged");
    put(&store, &digest(1)).await;
    all_know(&nodes).await;
}

/// A failover loses a delete that the replica had not received. The old positive is back, at the
/// address of the old primary.
#[tokio::test]
async fn race_20_after_a_failover_that_lost_a_delete_the_old_answer_is_purged() {
    let (redis, [store, _], nodes) = nodes::<2>().await;
    all_know(&nodes).await;
    let replica = Redis::start().await;
    follow(&replica, &redis);
    follows(&replica).await;
    replica.cli(&["REPLICAOF", "NO", "ONE"]);
    layers(&nodes[0]).unlink(&digest(1)).await.unwrap();
    assert_eq!(
        (members(&redis), members(&replica)),
        ("0".into(), "1".into())
    );

    follow(&redis, &replica);
    cut_off_clients(&redis);
    follows(&redis).await;
    assert_eq!(members(&redis), "1", "the deleted object is back");
    for _ in 0..20 {
        no_node_knows(&nodes).await;
    }
    redis.cli(&["REPLICAOF", "NO", "ONE"]);
    let is_purged = || members(&redis) == "0";
    let end = Instant::now() + TRUST * 20;
    while !is_purged() {
        no_node_knows(&nodes).await;
        assert!(Instant::now() < end, "never purged");
    }
    no_node_knows(&nodes).await;
    put(&store, &digest(1)).await;
    all_know(&nodes).await;
}
