//! Tests the verifier on a real Redis.

use layercache::{CacheStatus, CachedStore, Freshness, VerifierConfig};
use object_store::ObjectStoreExt;
use std::time::Duration;
use test_support::metrics::Metrics;
use test_support::nodes::{
    self, PATIENCE, SETTLED, bare, blob_path, config, digest, eventually, layers, put, stat,
    until_in_memory,
};
use test_support::redis::Redis;

fn verifications(metrics: &Metrics, cause: &str, age: &str, tier: &str) -> [u64; 3] {
    ["ok", "stale", "unknown"].map(|result| {
        let labels = format!("cause=\"{cause}\",age=\"{age}\",tier=\"{tier}\",result=\"{result}\"");
        metrics.get(&format!("layercache_verifications_total{{{labels}}}"))
    })
}

#[tokio::test]
async fn the_verifier_tells_correct_hits_from_deletes_without_the_cache() {
    let (redis, bare) = (Redis::start().await, bare(Duration::ZERO));
    let (metrics, node) = Metrics::of(|| {
        let builder = CachedStore::builder(bare.clone()).redis(config(&redis));
        let verifier = VerifierConfig::default().with_hits(1.0);
        builder.verifier(verifier).build().unwrap()
    });
    let other = nodes::node(&bare, &redis);
    tokio::time::sleep(SETTLED).await;

    let (deleted, collected) = (digest(1), digest(2));
    for digest in [&deleted, &collected] {
        put(&bare, digest).await;
        until_in_memory(&node, digest).await;
        until_in_memory(&other, digest).await;
    }
    eventually("correct hits", || {
        verifications(&metrics, "hit", "0s", "memory")[0] >= 2
    })
    .await;

    // Deletes through the node itself. The verifier finds nothing stale afterwards.
    layers(&node).unlink(&deleted).await.unwrap();
    node.delete(&blob_path(&deleted)).await.unwrap();
    for (age, tier) in [
        ("0.1s", "memory"),
        ("0.1s", "redis"),
        ("1s", "memory"),
        ("1s", "redis"),
    ] {
        eventually(age, || {
            verifications(&metrics, "delete", age, tier) == [2, 0, 0]
        })
        .await;
    }
    assert_eq!(verifications(&metrics, "hit", "0s", "memory")[1..], [0, 0]);

    // Deletes the blob without telling either node.
    bare.inner().delete(&blob_path(&collected)).await.unwrap();
    assert_eq!(stat(&node, &collected).await.1, CacheStatus::Memory);
    eventually("the stale hit is counted", || {
        verifications(&metrics, "hit", "0s", "memory")[1] == 1
    })
    .await;
    let end = std::time::Instant::now() + PATIENCE;
    while stat(&other, &collected).await.0.is_some() {
        assert!(
            std::time::Instant::now() < end,
            "the other node was not repaired"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let answer = layers(&node).contains(&collected, Freshness::Cached).await;
    assert!(answer.unwrap().value, "the membership was not denied");
}
