//! Tests many look-ups at once, on each topology of Redis.

use super::{BLOBS, all_in_memory, stocked};
use layercache::{CacheStatus, Freshness};
use std::time::Duration;
use test_support::cluster::RedisCluster;
use test_support::meter::Meter;
use test_support::nodes::{config_at, digest, layers, node_with};
use test_support::redis::Redis;

/// With this trust timeout there are no heartbeats during a test.
const RARE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn stat_many_costs_one_round_trip() {
    let (redis, bare) = (Redis::start().await, stocked().await);
    let meter = Meter::start(redis.port()).await;
    let node = node_with(&bare, config_at(meter.url()));
    all_in_memory(&[&node]).await;
    meter.settled().await;
    let digests: Vec<_> = (0..BLOBS).map(digest).collect();
    for questions in [&digests[..1], &digests] {
        node.clear_memory();
        meter.reset();
        let answers = layers(&node).stat_many(questions, Freshness::Cached).await;
        assert_eq!(meter.begun().len(), 1, "{:?}", meter.begun());
        for answer in answers.unwrap() {
            assert!(answer.value.is_some() && answer.status == CacheStatus::Redis);
        }
    }
}

#[tokio::test]
async fn stat_many_costs_one_round_trip_per_cluster_primary() {
    let cluster = RedisCluster::start().await;
    let bare = stocked().await;
    let node = node_with(&bare, config_at(cluster.url()).with_trust_timeout(RARE));
    all_in_memory(&[&node]).await;
    let primaries = cluster.primaries();
    assert_eq!(primaries.len(), 3);
    let reads = || {
        let reads = primaries.iter().map(|primary| {
            let info = cluster.servers[primary.server].cli(&["INFO", "stats"]);
            let line = info
                .lines()
                .find_map(|line| line.strip_prefix("total_reads_processed:"));
            line.unwrap().trim().parse::<u64>().unwrap()
        });
        reads.collect::<Vec<_>>()
    };
    let digests: Vec<_> = (0..BLOBS).map(digest).collect();
    // Other reads of the server meanwhile (replicas report once a second) can only add to the
    // count. The smallest count of many rounds has none of them.
    let (mut idle, mut busy) = (vec![u64::MAX; 3], vec![u64::MAX; 3]);
    for _ in 0..20 {
        node.clear_memory();
        let (start, before) = (reads(), reads());
        let answers = layers(&node).stat_many(&digests, Freshness::Cached).await;
        let after = reads();
        for answer in answers.unwrap() {
            assert!(answer.value.is_some() && answer.status == CacheStatus::Redis);
        }
        for i in 0..primaries.len() {
            idle[i] = idle[i].min(before[i] - start[i]);
            busy[i] = busy[i].min(after[i] - before[i]);
        }
    }
    let own = busy.iter().zip(&idle).map(|(busy, idle)| busy - idle);
    assert_eq!(own.collect::<Vec<_>>(), [1, 1, 1]);
}
