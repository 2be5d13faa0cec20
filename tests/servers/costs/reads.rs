//! Measures reads, by the tier that knows the answer.

use crate::guide::Figures;
use crate::lab::{Lab, Measured, cost, measure as measure_call};
use futures::FutureExt;
use futures::future::BoxFuture;
use layercache::layout::OciImages;
use layercache::{CachePolicy, CacheStatus, Digest, Freshness};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use std::sync::atomic::{AtomicU32, Ordering};
use test_support::nodes::{blob_path, digest, link_path, name};
use test_support::world::{head, status, with_policy, world};

/// A read of the blob or link with this digest, or of one of their paths. It returns the tier that
/// answered.
type Read = for<'a> fn(&'a Lab, Digest, Freshness) -> BoxFuture<'a, CacheStatus>;

/// The rows of the table.
const ROWS: &[(&str, Read)] = &[
    ("`Repository::stat`", stat),
    ("`Repository::contains`", contains),
    ("`Blobs::stat`", blob_stat),
    ("head of a blob", blob_head),
    ("head of a link", link_head),
    ("content of a link", link_content),
    ("content of a blob", blob_content),
    ("part of a blob", blob_part),
    ("ranges of a blob", blob_ranges),
    ("conditional head", conditional),
    ("list", list),
];

/// The columns of the table. In the last one all tiers know the answer, and the caller demands the
/// backend's.
const MEMORY: &str = "memory hit";
const REDIS: &str = "Redis hit";
const MISS: &str = "miss";
const VERIFIED: &str = "verified";

fn stat(lab: &Lab, digest: Digest, freshness: Freshness) -> BoxFuture<'_, CacheStatus> {
    async move { lab.layers().stat(&digest, freshness).await.unwrap().status }.boxed()
}

fn contains(lab: &Lab, digest: Digest, freshness: Freshness) -> BoxFuture<'_, CacheStatus> {
    async move {
        lab.layers()
            .contains(&digest, freshness)
            .await
            .unwrap()
            .status
    }
    .boxed()
}

fn blob_stat(lab: &Lab, digest: Digest, freshness: Freshness) -> BoxFuture<'_, CacheStatus> {
    let blobs = lab.node.registry().blobs();
    async move { blobs.stat(&digest, freshness).await.unwrap().status }.boxed()
}

fn get(
    lab: &Lab,
    at: Path,
    options: GetOptions,
    freshness: Freshness,
) -> BoxFuture<'_, CacheStatus> {
    let options = with_policy(
        options,
        match freshness {
            Freshness::Cached => CachePolicy::Default,
            Freshness::Verified => CachePolicy::Refresh,
        },
    );
    async move { status(&lab.node.get_opts(&at, options).await.unwrap()) }.boxed()
}

fn blob_head(lab: &Lab, digest: Digest, freshness: Freshness) -> BoxFuture<'_, CacheStatus> {
    get(lab, blob_path(&digest), head(), freshness)
}

fn link_head(lab: &Lab, digest: Digest, freshness: Freshness) -> BoxFuture<'_, CacheStatus> {
    get(lab, link_path(&digest), head(), freshness)
}

fn link_content(lab: &Lab, digest: Digest, freshness: Freshness) -> BoxFuture<'_, CacheStatus> {
    get(lab, link_path(&digest), GetOptions::new(), freshness)
}

fn blob_content(lab: &Lab, digest: Digest, freshness: Freshness) -> BoxFuture<'_, CacheStatus> {
    get(lab, blob_path(&digest), GetOptions::new(), freshness)
}

fn blob_part(lab: &Lab, digest: Digest, freshness: Freshness) -> BoxFuture<'_, CacheStatus> {
    let part = GetOptions::new().with_range(Some(GetRange::Bounded(0..3)));
    get(lab, blob_path(&digest), part, freshness)
}

fn conditional(lab: &Lab, digest: Digest, freshness: Freshness) -> BoxFuture<'_, CacheStatus> {
    let options = head().with_if_none_match(Some("\"another\""));
    get(lab, blob_path(&digest), options, freshness)
}

fn blob_ranges(lab: &Lab, digest: Digest, _: Freshness) -> BoxFuture<'_, CacheStatus> {
    async move {
        let path = blob_path(&digest);
        lab.node.get_ranges(&path, &[0..1, 2..3]).await.unwrap();
        CacheStatus::Bypass
    }
    .boxed()
}

fn list(lab: &Lab, _: Digest, _: Freshness) -> BoxFuture<'_, CacheStatus> {
    async move {
        lab.node.list_with_delimiter(None).await.unwrap();
        CacheStatus::Bypass
    }
    .boxed()
}

/// Returns a digest that no test has used yet.
fn fresh() -> Digest {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    digest(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Puts a blob and reads it, so that memory knows its facts and its objects.
async fn in_memory(lab: &Lab) -> Digest {
    let digest = fresh();
    lab.put_known(&digest).await;
    lab.node.head(&link_path(&digest)).await.unwrap();
    lab.settled().await;
    digest
}

/// The measurements of one operation, each with its column.
type Costs = Vec<(&'static str, Measured)>;

async fn costs(lab: &Lab, (what, read): (&str, Read)) -> Costs {
    let mut costs = Costs::new();
    let known = in_memory(lab).await;
    let (by, measured) = lab.measure(read(lab, known, Freshness::Cached)).await;
    let is_answered = measured.cost.calls == 0;
    assert_eq!(by == CacheStatus::Memory, is_answered, "{what}: {by:?}");
    costs.push((MEMORY, measured));

    let (by, measured) = lab.measure(read(lab, known, Freshness::Verified)).await;
    assert!(matches!(by, CacheStatus::Miss | CacheStatus::Bypass));
    costs.push((VERIFIED, measured));

    let cold = fresh();
    lab.put(&cold).await;
    let (by, measured) = lab.measure(read(lab, cold, Freshness::Cached)).await;
    assert!(matches!(by, CacheStatus::Miss | CacheStatus::Bypass));
    costs.push((MISS, measured));

    if lab.has_redis() {
        lab.node.clear_memory();
        let (by, measured) = lab.measure(read(lab, known, Freshness::Cached)).await;
        let is_answered = measured.cost.calls == 0;
        assert_eq!(by == CacheStatus::Redis, is_answered, "{what}: {by:?}");
        costs.push((REDIS, measured));
    }
    costs
}

/// Measures `stat_many` of this many blobs.
async fn costs_of_many(lab: &Lab, many: usize) -> Costs {
    let mut costs = Costs::new();
    let mut known = Vec::new();
    for _ in 0..many {
        known.push(in_memory(lab).await);
    }
    let cold: Vec<_> = (0..many).map(|_| fresh()).collect();
    for digest in &cold {
        lab.put(digest).await;
    }
    let layers = lab.layers();
    let cached = layers.stat_many(&known, Freshness::Cached);
    let (answers, measured) = lab.measure(cached).await;
    costs.push((MEMORY, measured));
    assert_eq!(answers.unwrap().len(), many);
    let verified = layers.stat_many(&known, Freshness::Verified);
    let (answers, measured) = lab.measure(verified).await;
    costs.push((VERIFIED, measured));
    assert_eq!(answers.unwrap().len(), many);
    let missing = layers.stat_many(&cold, Freshness::Cached);
    let (answers, measured) = lab.measure(missing).await;
    costs.push((MISS, measured));
    assert_eq!(answers.unwrap().len(), many);
    if lab.has_redis() {
        lab.node.clear_memory();
        let in_redis = layers.stat_many(&known, Freshness::Cached);
        let (answers, measured) = lab.measure(in_redis).await;
        costs.push((REDIS, measured));
        assert_eq!(answers.unwrap().len(), many);
    }
    costs
}

/// Adds the costs of one operation with Redis. Without Redis the operation must cost the same calls,
/// and no round trips.
fn add(figures: &mut Figures, row: &str, with_redis: &Costs, alone: &Costs) {
    for (column, measured) in with_redis {
        figures.add(row, column, measured);
    }
    for (column, measured) in alone {
        let (_, with) = with_redis
            .iter()
            .find(|(name, _)| name == column)
            .expect("the same columns");
        measured.assert(with.cost.alone(), format!("{row}, {column}, without Redis"));
    }
}

pub(crate) async fn measure() -> Figures {
    const MANY: usize = 5;
    let (lab, alone) = (Lab::with_redis().await, Lab::alone());
    let mut figures = Figures::of("Reads");
    for &(row, read) in ROWS {
        let with_redis = costs(&lab, (row, read)).await;
        add(
            &mut figures,
            row,
            &with_redis,
            &costs(&alone, (row, read)).await,
        );
    }
    let with_redis = costs_of_many(&lab, MANY).await;
    let row = format!("`Repository::stat_many` of {MANY}");
    add(
        &mut figures,
        &row,
        &with_redis,
        &costs_of_many(&alone, MANY).await,
    );
    figures
}

/// Measures reads of objects that do not exist: the cost of each row.
async fn absent_costs(lab: &Lab) -> Costs {
    let layers = lab.layers();
    let mut costs = Costs::new();
    let (answer, measured) = lab.measure(layers.stat(&fresh(), Freshness::Cached)).await;
    costs.push(("`Repository::stat`, absent", measured));
    assert_eq!(answer.unwrap().value, None);
    let absent = fresh();
    let verified = layers.stat(&absent, Freshness::Verified);
    let (answer, measured) = lab.measure(verified).await;
    costs.push(("`Repository::stat`, absent, verified", measured));
    assert_eq!(answer.unwrap().value, None);
    let foreign = fresh();
    lab.put(&foreign).await;
    lab.bare.inner().delete(&link_path(&foreign)).await.unwrap();
    let (answer, measured) = lab.measure(layers.stat(&foreign, Freshness::Cached)).await;
    costs.push(("`Repository::stat`, in another repository", measured));
    assert_eq!(answer.unwrap().value, None);
    let path = blob_path(&fresh());
    let (result, measured) = lab.measure(lab.node.get(&path)).await;
    costs.push(("content of a blob, absent", measured));
    assert!(result.is_err());

    let gone = in_memory(lab).await;
    lab.bare.inner().delete(&blob_path(&gone)).await.unwrap();
    let path = blob_path(&gone);
    let (result, measured) = lab.measure(lab.node.get(&path)).await;
    costs.push(("content of a blob, cached and gone", measured));
    assert!(result.is_err());

    // Here the first node's memory does not know the blob, and Redis does.
    let gone = in_memory(lab).await;
    lab.bare.inner().delete(&blob_path(&gone)).await.unwrap();
    lab.node.clear_memory();
    let path = blob_path(&gone);
    let (result, measured) = lab.measure(lab.node.get(&path)).await;
    costs.push(("content of a blob, only in Redis and gone", measured));
    assert!(result.is_err());
    let gone = in_memory(lab).await;
    lab.bare.inner().delete(&blob_path(&gone)).await.unwrap();
    let verified = layers.stat(&gone, Freshness::Verified);
    let (answer, measured) = lab.measure(verified).await;
    costs.push(("`Repository::stat`, cached and gone, verified", measured));
    assert_eq!(answer.unwrap().value, None);
    costs
}

pub(crate) async fn measure_absent() -> Figures {
    let mut figures = Figures::of("Reads of absent things");
    let with_redis = absent_costs(&Lab::with_redis().await).await;
    let alone = absent_costs(&Lab::alone()).await;
    assert_eq!(with_redis.len(), alone.len());
    for ((row, measured), (_, alone)) in with_redis.iter().zip(&alone) {
        figures.add(row, "cost", measured);
        alone.assert(measured.cost.alone(), format!("{row}, without Redis"));
    }
    figures
}

#[tokio::test]
async fn without_shared_blobs_both_facts_cost_one_call() {
    let world = world(OciImages::default());
    world.bare.put(&world.blob, "content".into()).await.unwrap();
    let layers = world.store.registry().repository(name());
    let calls = || world.bare.calls();
    for freshness in [Freshness::Cached, Freshness::Verified] {
        let measuring = measure_call(None, calls, layers.stat(&world.digest, freshness));
        let (answer, measured) = measuring.await;
        measured.assert(cost(0, 0, 1), format!("{freshness:?}"));
        assert!(answer.unwrap().value.is_some());
    }
}
