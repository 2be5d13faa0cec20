//! Measures operations of many keys, and those that depend on what else Redis holds.

use crate::guide::Figures;
use crate::lab::{Bare, Lab, config, measure as measure_call};
use futures::{StreamExt, stream};
use layercache::{CachedStore, Digest, Freshness};
use object_store::aws::AmazonS3Builder;
use object_store::signer::{Method, Signer};
use object_store::{ObjectStore, ObjectStoreExt};
use std::ops::Range;
use std::time::Duration;
use test_support::meter::Meter;
use test_support::nodes::{SETTLED, beside, blob_path, digest, hash, link_path};
use test_support::recording::Recording;
use test_support::redis::Redis;

pub(crate) async fn measure() -> Figures {
    let mut figures = Figures::of("Many keys, and special cases");
    purges(&mut figures).await;
    let lab = Lab::with_redis().await;
    deletes(&lab, &mut figures).await;
    looks_up_many(&lab, &mut figures).await;
    waits_for_another_node(&lab, &mut figures).await;
    signs(&mut figures).await;
    figures
}

async fn put_all(bare: &Bare, digests: &[Digest]) {
    let store = bare.inner();
    for digest in digests {
        let (blob, link) = (blob_path(digest), link_path(digest));
        store.put(&blob, "content".into()).await.unwrap();
        let text = digest.to_string();
        store.put(&link, text.into()).await.unwrap();
    }
}

fn digests(range: Range<u32>) -> Vec<Digest> {
    range.map(digest).collect()
}

/// Puts blobs, and reads them, so that both tiers know both facts of each.
async fn cached(lab: &Lab, range: Range<u32>) -> Vec<Digest> {
    let digests = digests(range);
    put_all(&lab.bare, &digests).await;
    let stats = lab.layers().stat_many(&digests, Freshness::Cached).await;
    assert!(stats.unwrap().iter().all(|answer| answer.value.is_some()));
    lab.settled().await;
    digests
}

async fn purges(figures: &mut Figures) {
    let lab = Lab::with_redis().await;
    lab.put_known(&digest(1)).await;
    let (purged, measured) = lab.measure(lab.node.purge()).await;
    purged.unwrap();
    figures.add("`purge` of 1 blob", "cost", &measured);
    let (purged, measured) = lab.measure(lab.node.purge()).await;
    purged.unwrap();
    figures.add("`purge` of nothing", "cost", &measured);
    cached(&lab, 0..1500).await;
    let (purged, measured) = lab.measure(lab.node.purge()).await;
    purged.unwrap();
    figures.add("`purge` of 1,500 blobs", "cost", &measured);

    lab.put_known(&digest(1)).await;
    let none = lab.node.purge_repositories(|_| false);
    let (purged, measured) = lab.measure(none).await;
    assert_eq!(purged.unwrap().repositories, 0);
    figures.add("`purge_repositories` of nothing", "cost", &measured);
    let (purged, measured) = lab.measure(lab.node.purge_repositories(|_| true)).await;
    assert_eq!(purged.unwrap().repositories, 1);
    figures.add("`purge_repositories` of 1 repository", "cost", &measured);
}

async fn deletes(lab: &Lab, figures: &mut Figures) {
    for (row, count) in [
        ("delete of 128 blobs", 128),
        ("delete of 129 blobs", 129),
        ("delete of 1,000 blobs", 1000),
    ] {
        let digests = digests(0..count);
        put_all(&lab.bare, &digests).await;
        let paths: Vec<_> = digests.iter().map(|digest| Ok(blob_path(digest))).collect();
        let deleted = lab.node.delete_stream(stream::iter(paths).boxed());
        let (deleted, measured) = lab.measure(deleted.collect::<Vec<_>>()).await;
        assert!(deleted.iter().all(Result::is_ok));
        figures.add(row, "cost", &measured);
    }
}

async fn looks_up_many(lab: &Lab, figures: &mut Figures) {
    let known = cached(lab, 0..1000).await;
    let layers = lab.layers();
    let in_memory = layers.stat_many(&known, Freshness::Cached);
    let (answers, measured) = lab.measure(in_memory).await;
    assert_eq!(answers.unwrap().len(), known.len());
    figures.add("`stat_many` of 1,000 blobs, memory hits", "cost", &measured);
    lab.node.clear_memory();
    let in_redis = layers.stat_many(&known, Freshness::Cached);
    let (answers, measured) = lab.measure(in_redis).await;
    assert_eq!(answers.unwrap().len(), known.len());
    figures.add("`stat_many` of 1,000 blobs, Redis hits", "cost", &measured);
}

/// Another node has the leases of a blob, and does not fill.
async fn waits_for_another_node(lab: &Lab, figures: &mut Figures) {
    let digest = digest(2000);
    put_all(&lab.bare, &[digest]).await;
    let meta = format!("lease::{{{}}}", hash(&digest));
    for lease in [beside("lease", &digest), meta] {
        lab.redis().cli(&["SET", &lease, "12345", "PX", "9999"]);
    }
    let layers = lab.layers();
    let (answer, measured) = lab.measure(layers.stat(&digest, Freshness::Cached)).await;
    assert!(answer.unwrap().value.is_some());
    let row = "`Repository::stat`, another node has the lease and does not fill";
    figures.add(row, "cost", &measured);
}

/// S3 URLs are signed without a request, so no S3 server is needed.
async fn signs(figures: &mut Figures) {
    const HOUR: Duration = Duration::from_secs(3600);
    let redis = Redis::start().await;
    let meter = Meter::start(redis.port()).await;
    let s3 = AmazonS3Builder::new()
        .with_bucket_name("bucket")
        .with_access_key_id("id")
        .with_secret_access_key("secret")
        .with_region("us-east-1");
    let bare = Recording::new(s3.build().unwrap());
    let builder = CachedStore::builder(bare.clone()).redis(config(&meter));
    let node = builder.build().unwrap();
    tokio::time::sleep(SETTLED).await;
    // A script costs one more round trip, once in the life of a server.
    let other = blob_path(&digest(0));
    node.signed_url(Method::PUT, &other, HOUR).await.unwrap();
    let path = blob_path(&digest(1));
    for (row, method) in [
        ("signed URL for a `GET`", Method::GET),
        ("signed URL for a `PUT`", Method::PUT),
        (
            "another signed URL for a `PUT` of the same blob",
            Method::PUT,
        ),
    ] {
        let signed = node.signed_url(method, &path, HOUR);
        let (signed, measured) = measure_call(Some(&meter), || bare.calls(), signed).await;
        signed.unwrap();
        figures.add(row, "cost", &measured);
    }
}

/// Measures what a node does for itself, without a caller.
pub(crate) async fn measure_background() -> Figures {
    let lab = Lab::with_redis().await;
    lab.settled().await;
    lab.meter().reset();
    // A heartbeat follows each quarter of the trust timeout.
    tokio::time::sleep(test_support::nodes::TRUST * 4).await;
    let trips = lab.meter().own();
    let is_beat = |trip: &Vec<String>| trip.iter().any(|command| command == "heartbeat");
    let first = trips.iter().position(is_beat).expect("a heartbeat");
    let last = trips.iter().rposition(is_beat).expect("a heartbeat");
    let beats = trips[first + 1..=last].iter().filter(|trip| is_beat(trip));
    let beats = beats.count();
    assert!((8..=16).contains(&beats), "16 are due: {trips:?}");
    assert_eq!((last - first) % beats, 0, "{trips:?}");
    let mut figures = Figures::of("Background work");
    let each = (last - first) / beats;
    figures.add_number("a heartbeat", "round trips", each.try_into().unwrap());
    figures
}
