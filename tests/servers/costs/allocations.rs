//! Counts how often a memory hit allocates.

use crate::guide::Figures;
use crate::lab::Lab;
use allocation_counter::{AllocationInfo, measure};
use bytes::Bytes;
use futures::future::ready;
use futures::{FutureExt, StreamExt, stream};
use layercache::{
    CacheStatus, Digest, Freshness, LayerInfoCache, LayerMeta, Link, MemoryCache, MemoryConfig,
    TieredCache,
};
use object_store::path::Path;
use object_store::{Extensions, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt};
use std::hint::black_box;
use test_support::nodes::{LENGTH, blob_path, digest, link_path, name};
use test_support::world::{head, status};

/// Returns what a hit of this digest allocates on this thread.
type Hit = fn(&Lab, &Digest) -> AllocationInfo;

/// Returns what the least answer of an interface allocates on this thread.
type Least = fn() -> AllocationInfo;

/// The rows of the table: each hit, and an answer that only makes what the interface needs.
const ROWS: &[(&str, Hit, Least)] = &[
    ("`Repository::stat`", stat, nothing),
    ("`Repository::contains`", contains, nothing),
    ("`Blobs::stat`", blob_stat, nothing),
    ("`Repository::stat_many` of 5", stat_many, list_of_5),
    ("head of a blob", blob_head, object),
    ("head of a link", link_head, object),
    ("content of a link", link_content, object_with_content),
];

fn nothing() -> AllocationInfo {
    measure(|| {})
}

fn list_of_5() -> AllocationInfo {
    measure(|| drop(black_box(vec![CacheStatus::Memory; 5])))
}

/// An answer of `get_opts`: a boxed future, the location, the entity tag, and the extensions with
/// the status.
fn object() -> AllocationInfo {
    let path = link_path(&digest(1));
    measure(|| {
        let result = async { (answer(&path), black_box(0)) };
        let result = black_box(result.boxed()).now_or_never();
        drop(black_box(result));
    })
}

/// An answer of `get_opts` with a content: in addition the content's text and its stream.
fn object_with_content() -> AllocationInfo {
    let (path, text) = (link_path(&digest(1)), digest(1).to_string());
    measure(|| {
        let result = async {
            let content = Bytes::from(black_box(text.as_str()).to_owned());
            let content = stream::once(ready(Ok::<_, object_store::Error>(content)));
            (answer(&path), content.boxed())
        };
        let result = black_box(result.boxed()).now_or_never();
        drop(black_box(result));
    })
}

fn answer(path: &Path) -> (ObjectMeta, Extensions) {
    let mut extensions = Extensions::new();
    extensions.insert(CacheStatus::Memory);
    let meta = ObjectMeta {
        location: path.clone(),
        last_modified: Default::default(),
        size: LENGTH,
        e_tag: Some("1".to_owned()),
        version: None,
    };
    (meta, extensions)
}

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

pub(crate) async fn measure_all() -> Figures {
    let mut figures = Figures::of("Allocations of a memory hit");
    let labs = [Lab::with_redis().await, Lab::alone()];
    let digest = digest(1);
    for lab in &labs {
        lab.put_known(&digest).await;
        lab.node.head(&link_path(&digest)).await.unwrap();
        lab.settled().await;
    }
    let [lab, alone] = &labs;
    for (row, hit, least) in ROWS {
        let (now, least) = (usual(|| hit(lab, &digest)), usual(least));
        assert_eq!(usual(|| hit(alone, &digest)), now, "{row}, without Redis");
        assert!(now >= least, "{row} can do without some");
        figures.add_number(row, "allocations", now);
        figures.add_number(row, "least that its interface needs", least);
    }
    figures
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
