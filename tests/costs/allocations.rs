//! Counts how often a memory hit allocates.

use crate::lab::{Lab, link_path};
use crate::support::nodes::{blob_path, digest, name};
use crate::support::world::{head, status};
use allocation_counter::{AllocationInfo, measure};
use futures::FutureExt;
use layercache::{
    CacheStatus, Digest, Freshness, LayerInfoCache, LayerMeta, Link, MemoryCache, MemoryConfig,
    TieredCache,
};
use object_store::path::Path;
use object_store::{GetOptions, ObjectStore, ObjectStoreExt};
use std::hint::black_box;

/// Returns what a hit of this digest allocates on this thread.
type Hit = fn(&Lab, &Digest) -> AllocationInfo;

/// For each hit, how often it allocates now, and the least number that its interface needs. That
/// least number counts the list of answers; or the boxed future, the location, the entity tag, and
/// three for the extensions with the status; and for a content also its text and its stream.
#[rustfmt::skip]
const ROWS: &[(&str, Hit, u64, u64)] = &[
    ("Repository::stat", stat, 0, 0),
    ("Repository::contains", contains, 0, 0),
    ("Blobs::stat", blob_stat, 0, 0),
    ("Repository::stat_many of 5", stat_many, 6, 1),
    ("head of a blob", blob_head, 6, 6),
    ("head of a link", link_head, 7, 6),
    ("content of a link", link_content, 10, 8),
];

fn stat(lab: &Lab, digest: &Digest) -> AllocationInfo {
    let layers = lab.layers();
    measure(|| {
        let answer = layers.stat(digest, Freshness::Cached).now_or_never();
        let answer = answer.expect("at once").expect("an answer");
        assert_eq!(black_box(answer).status, CacheStatus::Memory);
    })
}

fn contains(lab: &Lab, digest: &Digest) -> AllocationInfo {
    let layers = lab.layers();
    measure(|| {
        let answer = layers.contains(digest, Freshness::Cached).now_or_never();
        let answer = answer.expect("at once").expect("an answer");
        assert_eq!(black_box(answer).status, CacheStatus::Memory);
    })
}

fn blob_stat(lab: &Lab, digest: &Digest) -> AllocationInfo {
    let blobs = lab.node.registry().blobs();
    measure(|| {
        let answer = blobs.stat(digest, Freshness::Cached).now_or_never();
        let answer = answer.expect("at once").expect("an answer");
        assert_eq!(black_box(answer).status, CacheStatus::Memory);
    })
}

fn stat_many(lab: &Lab, digest: &Digest) -> AllocationInfo {
    let layers = lab.layers();
    let digests = [*digest; 5];
    measure(|| {
        let answers = layers.stat_many(&digests, Freshness::Cached).now_or_never();
        let answers = answers.expect("at once").expect("answers");
        let is_hit = |status| status == CacheStatus::Memory;
        assert!(
            black_box(answers)
                .iter()
                .all(|answer| is_hit(answer.status))
        );
    })
}

fn get(lab: &Lab, at: &Path, options: GetOptions) -> AllocationInfo {
    let store: &dyn ObjectStore = &lab.node;
    measure(|| {
        let result = store.get_opts(at, options).now_or_never();
        let result = result.expect("at once").expect("an answer");
        assert_eq!(status(&black_box(result)), CacheStatus::Memory);
    })
}

fn blob_head(lab: &Lab, digest: &Digest) -> AllocationInfo {
    get(lab, &blob_path(digest), head())
}

fn link_head(lab: &Lab, digest: &Digest) -> AllocationInfo {
    get(lab, &link_path(digest), head())
}

fn link_content(lab: &Lab, digest: &Digest) -> AllocationInfo {
    get(lab, &link_path(digest), GetOptions::new())
}

#[tokio::test]
async fn a_memory_hit_allocates_as_often_as_is_said() {
    for lab in [Lab::alone(), Lab::with_redis().await] {
        let digest = digest(1);
        lab.put_known(&digest).await;
        lab.node.head(&link_path(&digest)).await.unwrap();
        lab.settled().await;
        for (what, hit, now, least) in ROWS {
            assert_eq!(usual(|| hit(&lab, &digest)), *now, "{what}");
            assert!(now >= least, "{what} can do without some");
        }
    }
}

#[tokio::test]
async fn a_cache_in_memory_allocates_its_futures() {
    let memory = MemoryCache::new(MemoryConfig::default());
    let tiered = TieredCache::in_memory(MemoryConfig::default());
    let (digest, meta) = (digest(1), LayerMeta::new("a/data", 7).unwrap());
    let link = Link::layer(name(), digest);
    let caches: [&dyn LayerInfoCache; 2] = [&memory, &tiered];
    for cache in caches {
        cache.add(&link).await.unwrap();
        cache.set_meta(&digest, &meta).await.unwrap();
        let contains = || {
            measure(|| {
                let known = cache.contains(&link).now_or_never();
                assert!(known.expect("at once").expect("an answer"));
            })
        };
        assert_eq!(usual(contains), 1);
        let get = || {
            measure(|| {
                let known = cache.meta(&digest).now_or_never();
                assert!(known.expect("at once").expect("an answer").is_some());
            })
        };
        assert_eq!(usual(get), 1);
    }
    let remove = || measure(|| drop(memory.remove(&link).now_or_never().expect("at once")));
    assert_eq!(usual(remove), 1);
    assert_eq!(usual(|| measure(|| tiered.clear_memory())), 0);
}

/// Returns the median, because the first call also makes what is made once, and some calls do
/// maintenance of the cache.
fn usual(call: impl FnMut() -> AllocationInfo) -> u64 {
    let mut counts: Vec<_> = std::iter::repeat_with(call)
        .take(31)
        .map(|info| info.count_total)
        .collect();
    counts.sort_unstable();
    counts[counts.len() / 2]
}
