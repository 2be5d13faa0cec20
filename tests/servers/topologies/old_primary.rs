//! Tests a primary of a Redis Cluster that is stopped, replaced, and continued. It still has an
//! entry that was deleted meanwhile, and does not know yet that it was replaced.

use super::{BLOBS, stocked};
use layercache::Digest;
use object_store::ObjectStoreExt;
use std::time::{Duration, Instant};
use test_support::cluster::{HOME, Member, RedisCluster};
use test_support::nodes::{
    Node, PATIENCE, blob_path, config_at, digest, hash, node_with, stat, until_in_memory,
};
use test_support::redis::{Setup, Version};
use test_support::server::Signal;
use tokio::time::sleep;

/// Longer than the replacement of a primary takes.
const LONG: Duration = Duration::from_secs(6);
/// Shorter than the replacement of a primary takes.
const SHORT: Duration = Duration::from_secs(1);

struct World {
    cluster: RedisCluster,
    primary: Member,
    deleter: Node,
    /// A node that is connected to all primaries and does not have the blob in memory.
    idle: Node,
    /// A blob whose metadata is at the primary.
    blob: Digest,
}

impl World {
    async fn start(trust: Duration) -> Self {
        // The other primaries serve while this one is replaced.
        let quick = ["--cluster-node-timeout", "1000"];
        let args = [quick, ["--cluster-require-full-coverage", "no"]].concat();
        let cluster = RedisCluster::start_as(Setup::new(Version::Redis, &args)).await;
        let home = cluster.primary_of(HOME);
        let mut primaries = cluster.primaries().into_iter();
        let primary = primaries.find(|primary| primary.id != home.id).unwrap();

        let bare = stocked().await;
        let config = config_at(cluster.url()).with_trust_timeout(trust);
        let deleter = config.clone().with_timeout(Duration::from_millis(100));
        let (deleter, idle) = (node_with(&bare, deleter), node_with(&bare, config));
        let is_there = |i: &u32| cluster.primary_of(&hash(&digest(*i))).id == primary.id;
        let blob = (0..BLOBS).find(is_there).expect("one of them");
        for i in 0..BLOBS {
            until_in_memory(&deleter, &digest(i)).await;
            if i != blob {
                until_in_memory(&idle, &digest(i)).await;
            }
        }
        // After this time the nodes know each other, and a change waits only for acknowledgements.
        sleep(trust + trust / 10).await;
        Self {
            cluster,
            primary,
            deleter,
            idle,
            blob: digest(blob),
        }
    }

    /// Returns a world whose primary is stopped and replaced, and when it was stopped.
    async fn with_replaced_primary(trust: Duration) -> (Self, Instant) {
        let world = Self::start(trust).await;
        let stopped = Instant::now();
        world.cluster.servers[world.primary.server].signal(Signal::Stop);
        world.cluster.failed_over_from(&world.primary).await;
        (world, stopped)
    }
}

/// The idle node trusts the old primary all the time, because it sends nothing meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_of_a_replaced_primary_are_not_answered_with_a_long_trust_timeout() {
    the_old_primary_continues(LONG).await;
}

/// The idle node's trust in the old primary has ended. It has no other sign of the replacement.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_of_a_replaced_primary_are_not_answered_with_a_short_trust_timeout() {
    the_old_primary_continues(SHORT).await;
}

/// Deletes a blob, again and again until no error says that Redis cannot be told.
async fn delete_until_accepted(node: &Node, blob: &Digest, stopped: Instant) {
    while let Err(error) = node.delete(&blob_path(blob)).await {
        assert!(stopped.elapsed() < PATIENCE, "{error}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn the_old_primary_continues(trust: Duration) {
    let (world, stopped) = World::with_replaced_primary(trust).await;
    let (blob, idle) = (world.blob, world.idle);
    delete_until_accepted(&world.deleter, &blob, stopped).await;
    let deleted = stopped.elapsed();
    // If the node still trusts the stopped primary, it asks that one.
    let read = tokio::spawn(async move { stat(&idle, &blob).await });
    sleep(Duration::from_millis(200)).await;
    world.cluster.servers[world.primary.server].signal(Signal::Cont);
    let (found, status) = read.await.unwrap();
    println!("deleted {deleted:?} after the primary stopped");
    assert_eq!(found, None, "answered from {status:?}");
}

/// The old primary continues while the delete waits for nodes that still trust it. One of these nodes
/// caches its answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_read_from_a_replaced_primary_are_forgotten() {
    let (world, stopped) = World::with_replaced_primary(LONG).await;
    let (blob, idle, deleter) = (world.blob, world.idle, world.deleter);
    let cluster = world.cluster;
    let deleting = tokio::spawn(async move {
        delete_until_accepted(&deleter, &blob, stopped).await;
    });
    let fence = format!("fence::{{{}}}", hash(&blob));
    let now = cluster.primary_of(&fence).server;
    while cluster.servers[now].cli(&["EXISTS", &fence]) == "0" {
        assert!(!deleting.is_finished(), "the delete did not wait");
        sleep(Duration::from_millis(5)).await;
    }
    sleep(Duration::from_millis(300)).await;
    let read = tokio::spawn(async move { (stat(&idle, &blob).await, idle) });
    sleep(Duration::from_millis(200)).await;
    cluster.servers[world.primary.server].signal(Signal::Cont);
    let ((_, status), idle) = read.await.unwrap();
    assert!(!deleting.is_finished(), "the delete did not wait");
    deleting.await.unwrap();
    let (found, now) = stat(&idle, &blob).await;
    assert_eq!(
        found, None,
        "first answered from {status:?}, then from {now:?}"
    );
}
