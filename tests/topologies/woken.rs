//! A primary of a Redis Cluster that stands still, is replaced, and wakes with what was deleted
//! since, before anybody has told it.

use crate::support::cluster::{HOME, RedisCluster};
use crate::support::nodes::{blob_path, config_at, digest, hash, node_with, stat, until_in_memory};
use crate::support::redis::{Setup, Version};
use crate::support::server::Signal;
use crate::{BLOBS, PATIENCE, stocked};
use object_store::ObjectStoreExt;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// It is replaced sooner than the trust in it lapses: a node that asks nothing meanwhile believes it
/// all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_primary_still_has_is_answered_by_nobody_who_trusts_long() {
    wakes(Duration::from_secs(6)).await;
}

/// The trust in it has lapsed, and the node has had no other sign.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_primary_still_has_is_answered_by_nobody_who_trusts_shortly() {
    wakes(Duration::from_secs(1)).await;
}

async fn wakes(trust: Duration) {
    // The others go on serving while it is replaced.
    let quick = ["--cluster-node-timeout", "1000"];
    let args = [quick, ["--cluster-require-full-coverage", "no"]].concat();
    let cluster = RedisCluster::start_as(Setup::new(Version::Redis, &args)).await;
    let home = cluster.primary_of(HOME);
    let mut primaries = cluster.primaries().into_iter();
    let primary = primaries.find(|primary| primary.id != home.id).unwrap();

    let bare = stocked().await;
    let config = config_at(cluster.url()).with_trust(trust);
    let deleter = config.clone().with_timeout(Duration::from_millis(100));
    let (deleter, idle) = (node_with(&bare, deleter), node_with(&bare, config));
    let is_there = |i: &u32| cluster.primary_of(&hash(&digest(*i))).id == primary.id;
    let blob = (0..BLOBS).find(is_there).expect("one of them");
    // One is connected to all primaries, and has to ask for the blob.
    for i in 0..BLOBS {
        until_in_memory(&deleter, &digest(i)).await;
        if i != blob {
            until_in_memory(&idle, &digest(i)).await;
        }
    }
    // They know each other, and wait for acknowledgements alone.
    sleep(trust + trust / 10).await;
    let stopped = Instant::now();
    cluster.servers[primary.server].signal(Signal::Stop);
    cluster.failed_over_from(&primary).await;
    let blob = digest(blob);
    while let Err(error) = deleter.delete(&blob_path(&blob)).await {
        assert!(stopped.elapsed() < PATIENCE, "{error}");
        sleep(Duration::from_millis(20)).await;
    }
    let deleted = stopped.elapsed();
    // It asks the one that stands still, if it believes it yet.
    let asked = tokio::spawn(async move { stat(&idle, &blob).await });
    sleep(Duration::from_millis(200)).await;
    cluster.servers[primary.server].signal(Signal::Cont);
    let (found, status) = asked.await.unwrap();
    println!("deleted {deleted:?} after the primary stopped");
    assert_eq!(found, None, "it is answered from {status:?}");
}
