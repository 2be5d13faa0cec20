//! Tests a layout in which each repository has its own copy of a blob: an audit and an inspection
//! compare each copy with its own object.

use layercache::RedisConfig;
use layercache::layout::OciImages;
use layercache_cli::admin::{Audit, inspect};
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use std::sync::Arc;
use std::time::Duration;
use test_support::meter::Meter;
use test_support::nodes::{config, digest};
use test_support::own_blobs::{Bare, hash, name, node, path, warm};
use test_support::recording::Recording;
use test_support::redis::Redis;

#[tokio::test]
async fn each_copy_is_compared_with_its_own_object() {
    let redis = Redis::start().await;
    let (bare, digest) = (Recording::new(InMemory::new()), digest(1));
    let first = node(&bare, config(&redis));
    for i in 0..3 {
        bare.put(&path(i, &digest), "content".into()).await.unwrap();
        warm(&first, &path(i, &digest)).await;
    }
    let audit = || {
        let audit = Audit::new(bare.clone(), config(&redis)).unwrap();
        audit.layout(OciImages::default())
    };
    let report = audit().await.unwrap();
    assert_eq!((report.findings(), report.ok), (0, 6));

    // The store changes without the cache: one copy is written anew, and another is deleted.
    bare.put(&path(1, &digest), "content".into()).await.unwrap();
    bare.delete(&path(2, &digest)).await.unwrap();
    let (store, layout) = (Arc::new(bare.clone()), Arc::new(OciImages::default()));
    let output = inspect(&config(&redis), store, layout, &name(1), &digest).await;
    let output = output.unwrap();
    assert_eq!(output.redis.meta.key, hash(1, &digest));
    assert!(!output.disagreements.is_empty());

    let found = Arc::new(std::sync::Mutex::new(Vec::new()));
    let tell = Arc::clone(&found);
    let audit = audit().fix(true).findings(move |finding| {
        let name = finding.repository.clone().unwrap();
        let found = format!("{} {} {name}", finding.wrong.name(), finding.key);
        tell.lock().unwrap().push(found);
    });
    audit.await.unwrap();
    let mut found = found.lock().unwrap().clone();
    found.sort();
    let expected = [
        format!("stale-membership repository::{0}::blobs {0}", name(2)),
        format!("stale-meta {} {}", hash(2, &digest), name(2)),
        format!("wrong-tag {} {}", hash(1, &digest), name(1)),
    ];
    assert_eq!(found, expected);
    let exists = [0, 1, 2].map(|i| redis.cli(&["EXISTS", &hash(i, &digest)]));
    assert_eq!(exists, ["1", "0", "0"]);
    let one = audit_of(&bare, &redis, 0).await;
    assert_eq!(one, (0, 2), "its membership and its object");
}

/// Returns the numbers of findings and of confirmed entries of one repository.
async fn audit_of(bare: &Bare, redis: &Redis, i: usize) -> (u64, u64) {
    let of = name(i);
    let audit = Audit::new(bare.clone(), config(redis)).unwrap();
    let audit = audit.layout(OciImages::default());
    let report = audit.repositories(move |name| *name == of).await.unwrap();
    (report.findings(), report.ok)
}

#[tokio::test]
async fn an_inspection_takes_one_round_trip_and_another_if_it_finds_a_difference() {
    let redis = Redis::start().await;
    let (bare, digest) = (Recording::new(InMemory::new()), digest(1));
    let first = node(&bare, config(&redis));
    bare.put(&path(0, &digest), "content".into()).await.unwrap();
    warm(&first, &path(0, &digest)).await;
    let meter = Meter::start(redis.port()).await;
    let config = RedisConfig::new(meter.url()).with_timeout(Duration::from_secs(5));
    for (disagreements, round_trips) in [(0, 1), (1, 2)] {
        if disagreements > 0 {
            bare.delete(&path(0, &digest)).await.unwrap();
        }
        meter.settled().await;
        meter.reset();
        let (store, layout) = (Arc::new(bare.clone()), Arc::new(OciImages::default()));
        let seen = inspect(&config, store, layout, &name(0), &digest).await;
        assert_eq!(seen.unwrap().disagreements.len().min(1), disagreements);
        assert_eq!(meter.begun().len(), round_trips, "{:?}", meter.begun());
    }
}
