//! Tests: reads through the store while the shared tier is silent, and reads of objects that do not
//! exist.

use super::super::CachedStore;
use super::super::backend::StoreBackend;
use super::super::erased::ErasedStore;
use crate::cache::MemoryConfig;
use crate::cache::TieredCache;
use crate::coherence::Coherence;
use crate::coherence::change::ChangePolicy;
use crate::coherence::limiter::Limits;
use crate::layout::{Distribution, Layout};
use crate::read_through::ReadThrough;
use crate::read_through::fakes::FakeShared;
use crate::read_through::tests::{TIMEOUT, settings};
use crate::types::{CachePolicy, Digest, Link, runtime};
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, sleep};

type Store = CachedStore<InMemory>;

fn store() -> (Store, Arc<FakeShared>) {
    let shared = Arc::new(FakeShared::default());
    let settings = settings(ChangePolicy::Strict);
    let coherence = Arc::new(Coherence::alone());
    let (memory, tier) = (MemoryConfig::default(), Arc::clone(&shared));
    let cache = TieredCache::with_shared(memory, tier, settings, coherence);
    let layout = Arc::new(Distribution::default());
    let inner = Arc::new(InMemory::new());
    let backend = Arc::new(StoreBackend::new(Arc::clone(&inner) as _, layout));
    let core = ReadThrough::new(
        Arc::clone(&backend) as _,
        Arc::new(cache),
        Limits::default(),
        None,
    );
    let erased = ErasedStore::over(core, backend);
    (CachedStore { inner, erased }, shared)
}

fn digest(i: u8) -> Digest {
    Digest::Sha256([i; 32])
}

fn blob(i: u8) -> Path {
    Distribution::default().blob_path(&digest(i)).unwrap()
}

fn link(i: u8) -> Path {
    let link = Link::layer("a/b".parse().unwrap(), digest(i));
    Distribution::default().link_path(&link).unwrap()
}

type Read = for<'a> fn(&'a Store, Path) -> BoxFuture<'a, bool>;

fn get(store: &Store, at: Path, options: GetOptions) -> BoxFuture<'_, bool> {
    async move { store.get_opts(&at, options).await.is_ok() }.boxed()
}

fn refresh(mut options: GetOptions) -> GetOptions {
    options.extensions.insert(CachePolicy::Refresh);
    options
}

const READS: [(&str, Read); 7] = [
    ("head", |store, at| {
        get(store, at, GetOptions::new().with_head(true))
    }),
    ("head, refreshed", |store, at| {
        get(store, at, refresh(GetOptions::new().with_head(true)))
    }),
    ("content", |store, at| get(store, at, GetOptions::new())),
    ("content, refreshed", |store, at| {
        get(store, at, refresh(GetOptions::new()))
    }),
    ("range", |store, at| {
        let range = GetOptions::new().with_range(Some(GetRange::Bounded(0..3)));
        get(store, at, range)
    }),
    ("ranges", |store, at| {
        async move { store.get_ranges(&at, &[0..1, 2..3]).await.is_ok() }.boxed()
    }),
    ("conditional", |store, at| {
        let condition = GetOptions::new().with_if_none_match(Some("\"another\""));
        get(store, at, condition)
    }),
];

#[tokio::test(start_paused = true)]
async fn a_read_waits_for_a_silent_tier_once() {
    for (what, read) in READS {
        for (at, content) in [
            (blob(1), "content".to_owned()),
            (link(1), digest(1).to_string()),
        ] {
            for is_there in [true, false] {
                let (store, shared) = store();
                if is_there {
                    store
                        .get_ref()
                        .put(&at, content.clone().into())
                        .await
                        .unwrap();
                }
                for slowness in [0, 30] {
                    shared.hangs.store(slowness == 0, Ordering::SeqCst);
                    shared.slowness.store(slowness, Ordering::SeqCst);
                    let began = Instant::now();
                    assert_eq!(read(&store, at.clone()).await, is_there);
                    let time = began.elapsed();
                    assert!(
                        time <= TIMEOUT,
                        "{what} of {at}, {is_there}, {slowness}: {time:?}"
                    );
                    sleep(Duration::from_secs(60)).await;
                }
            }
        }
    }
}

/// A check makes a timer, so the steps of a read share one.
#[tokio::test(start_paused = true)]
async fn a_read_checks_its_runtime_once() {
    for (what, read) in READS {
        for (at, content) in [
            (blob(1), "content".to_owned()),
            (link(1), digest(1).to_string()),
        ] {
            for is_there in [true, false] {
                let (store, _) = store();
                if is_there {
                    store
                        .get_ref()
                        .put(&at, content.clone().into())
                        .await
                        .unwrap();
                }
                for _ in 0..2 {
                    let before = runtime::checks();
                    assert_eq!(read(&store, at.clone()).await, is_there);
                    sleep(Duration::from_secs(60)).await;
                    let checks = runtime::checks() - before;
                    assert!(checks <= 1, "{what} of {at}, {is_there}: {checks}");
                }
            }
        }
    }
}

/// The object was replaced without the cache's knowledge, and Redis does not answer.
#[tokio::test(start_paused = true)]
async fn a_contradiction_waits_for_a_silent_tier_once() {
    let (store, shared) = store();
    store
        .get_ref()
        .put(&blob(1), "content".into())
        .await
        .unwrap();
    ObjectStoreExt::head(&store, &blob(1)).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    store.get_ref().put(&blob(1), "other".into()).await.unwrap();
    shared.hangs.store(true, Ordering::SeqCst);
    let began = Instant::now();
    ObjectStoreExt::get(&store, &blob(1)).await.unwrap();
    assert!(began.elapsed() <= TIMEOUT, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_was_never_cached_is_nobodys_business() {
    for (what, read) in READS {
        for at in [blob(1), link(1)] {
            let (store, shared) = store();
            for _ in 0..100 {
                assert!(!read(&store, at.clone()).await);
                sleep(Duration::from_millis(1)).await;
            }
            let count = |count: &std::sync::atomic::AtomicUsize| count.load(Ordering::SeqCst);
            let told = count(&shared.publishes) + count(&shared.notified);
            assert_eq!(told, 0, "{what} of {at}");
            assert!(count(&shared.scripts) <= 200, "{what} of {at}");
        }
    }
}
