//! Measures reads, by the tier that knows the answer.

use crate::lab::{Cost, Lab, cost, link_path, measure};
use crate::support::nodes::{blob_path, digest, name};
use crate::support::world::{head, status, with_policy, world};
use futures::FutureExt;
use futures::future::BoxFuture;
use layercache::layout::OciImages;
use layercache::{CachePolicy, CacheStatus, Digest, Freshness};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use std::sync::atomic::{AtomicU32, Ordering};

/// A read of the blob or link with this digest, or of one of their paths. It returns the tier that
/// answered.
type Read = for<'a> fn(&'a Lab, Digest, Freshness) -> BoxFuture<'a, CacheStatus>;

/// The costs of a read when memory knows the answer, when only Redis knows it, and when no tier
/// knows it; and when all tiers know it but the caller demands the backend's answer.
struct Row {
    what: &'static str,
    read: Read,
    memory: Cost,
    redis: Cost,
    miss: Cost,
    verified: Cost,
}

const fn row(what: &'static str, read: Read, costs: [Cost; 4]) -> Row {
    let [memory, redis, miss, verified] = costs;
    Row {
        what,
        read,
        memory,
        redis,
        miss,
        verified,
    }
}

/// `cost(round trips waited for, round trips after the answer, calls of the backend)`: memory, Redis,
/// miss, verified.
#[rustfmt::skip]
const ROWS: &[Row] = &[
    row("Repository::stat", stat, [cost(0, 0, 0), cost(1, 0, 0), cost(2, 1, 2), cost(1, 1, 2)]),
    row("Repository::contains", contains, [cost(0, 0, 0), cost(1, 0, 0), cost(2, 1, 1), cost(1, 1, 1)]),
    row("Blobs::stat", blob_stat, [cost(0, 0, 0), cost(1, 0, 0), cost(2, 1, 1), cost(1, 1, 1)]),
    row("head of a blob", blob_head, [cost(0, 0, 0), cost(1, 0, 0), cost(2, 1, 1), cost(1, 1, 1)]),
    row("head of a link", link_head, [cost(0, 0, 0), cost(1, 1, 1), cost(1, 1, 1), cost(1, 1, 1)]),
    row("content of a link", link_content, [cost(0, 0, 0), cost(1, 1, 1), cost(1, 1, 1), cost(1, 1, 1)]),
    row("content of a blob", blob_content, [cost(0, 0, 1), cost(1, 0, 1), cost(1, 1, 1), cost(0, 0, 1)]),
    row("part of a blob", blob_part, [cost(0, 0, 1), cost(1, 0, 1), cost(1, 1, 1), cost(0, 0, 1)]),
    row("ranges of a blob", blob_ranges, [cost(0, 0, 1), cost(0, 0, 1), cost(0, 0, 1), cost(0, 0, 1)]),
    row("conditional head", conditional, [cost(0, 0, 1), cost(0, 0, 1), cost(0, 0, 1), cost(0, 0, 1)]),
    row("list", list, [cost(0, 0, 1), cost(0, 0, 1), cost(0, 0, 1), cost(0, 0, 1)]),
];

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

async fn check(lab: &Lab, row: &Row) {
    let expect = |cost: Cost| if lab.has_redis() { cost } else { cost.alone() };
    let known = in_memory(lab).await;
    let read = (row.read)(lab, known, Freshness::Cached);
    let (by, measured) = lab.measure(read).await;
    measured.assert(expect(row.memory), format!("{}, known to memory", row.what));
    assert!(by != CacheStatus::Memory || row.memory.calls == 0);
    assert!(
        by == CacheStatus::Memory || row.memory.calls > 0,
        "{}: {by:?}",
        row.what
    );

    let read = (row.read)(lab, known, Freshness::Verified);
    let (by, measured) = lab.measure(read).await;
    measured.assert(expect(row.verified), format!("{}, verified", row.what));
    assert!(matches!(by, CacheStatus::Miss | CacheStatus::Bypass));

    let cold = fresh();
    lab.put(&cold).await;
    let read = (row.read)(lab, cold, Freshness::Cached);
    let (by, measured) = lab.measure(read).await;
    measured.assert(expect(row.miss), format!("{}, known to nobody", row.what));
    assert!(matches!(by, CacheStatus::Miss | CacheStatus::Bypass));

    if lab.has_redis() {
        lab.node.clear_memory();
        let read = (row.read)(lab, known, Freshness::Cached);
        let (by, measured) = lab.measure(read).await;
        measured.assert(expect(row.redis), format!("{}, known to Redis", row.what));
        assert_eq!(
            by == CacheStatus::Redis,
            row.redis.calls == 0,
            "{}",
            row.what
        );
    }
}

#[tokio::test]
async fn a_read_costs_what_is_said() {
    for lab in [Lab::alone(), Lab::with_redis().await] {
        for row in ROWS {
            check(&lab, row).await;
        }
    }
}

#[tokio::test]
async fn many_cost_the_round_trips_of_one() {
    const MANY: usize = 5;
    for lab in [Lab::alone(), Lab::with_redis().await] {
        let expect = |cost: Cost| if lab.has_redis() { cost } else { cost.alone() };
        let mut known = Vec::new();
        for _ in 0..MANY {
            known.push(in_memory(&lab).await);
        }
        let cold: Vec<_> = (0..MANY).map(|_| fresh()).collect();
        for digest in &cold {
            lab.put(digest).await;
        }
        let layers = lab.layers();
        let (answers, measured) = lab
            .measure(layers.stat_many(&known, Freshness::Cached))
            .await;
        measured.assert(expect(cost(0, 0, 0)), "known to memory");
        assert_eq!(answers.unwrap().len(), MANY);
        let (_, measured) = lab
            .measure(layers.stat_many(&known, Freshness::Verified))
            .await;
        measured.assert(expect(cost(1, 1, 2 * MANY)), "verified");
        let (_, measured) = lab
            .measure(layers.stat_many(&cold, Freshness::Cached))
            .await;
        measured.assert(expect(cost(3, 1, 2 * MANY)), "known to nobody");
        if lab.has_redis() {
            lab.node.clear_memory();
            let (_, measured) = lab
                .measure(layers.stat_many(&known, Freshness::Cached))
                .await;
            measured.assert(cost(1, 0, 0), "known to Redis");
        }
    }
}

#[tokio::test]
async fn what_is_absent_costs_what_is_said() {
    for lab in [Lab::alone(), Lab::with_redis().await] {
        let expect = |cost: Cost| if lab.has_redis() { cost } else { cost.alone() };
        let layers = lab.layers();
        let (answer, measured) = lab.measure(layers.stat(&fresh(), Freshness::Cached)).await;
        measured.assert(expect(cost(2, 1, 2)), "what never was there");
        assert_eq!(answer.unwrap().value, None);
        let (answer, measured) = lab
            .measure(layers.stat(&fresh(), Freshness::Verified))
            .await;
        measured.assert(expect(cost(1, 1, 2)), "what was verified not to be there");
        assert_eq!(answer.unwrap().value, None);
        let foreign = fresh();
        lab.put(&foreign).await;
        lab.bare.inner().delete(&link_path(&foreign)).await.unwrap();
        let (answer, measured) = lab.measure(layers.stat(&foreign, Freshness::Cached)).await;
        measured.assert(expect(cost(2, 2, 2)), "what is in another repository");
        assert_eq!(answer.unwrap().value, None);
        let path = blob_path(&fresh());
        let (result, measured) = lab.measure(lab.node.get(&path)).await;
        measured.assert(expect(cost(2, 0, 1)), "content that never was there");
        assert!(result.is_err());

        let gone = in_memory(&lab).await;
        lab.bare.inner().delete(&blob_path(&gone)).await.unwrap();
        let path = blob_path(&gone);
        let (result, measured) = lab.measure(lab.node.get(&path)).await;
        measured.assert(expect(cost(2, 0, 1)), "content that was known, and is gone");
        assert!(result.is_err());
    }
}

#[tokio::test]
async fn where_repositories_share_nothing_both_facts_are_one_call() {
    let world = world(OciImages::default());
    world.bare.put(&world.blob, "content".into()).await.unwrap();
    let layers = world.store.registry().repository(name());
    let calls = || world.bare.calls();
    for freshness in [Freshness::Cached, Freshness::Verified] {
        let asked = measure(None, calls, layers.stat(&world.digest, freshness));
        let (answer, measured) = asked.await;
        measured.assert(cost(0, 0, 1), format!("{freshness:?}"));
        assert!(answer.unwrap().value.is_some());
    }
}
