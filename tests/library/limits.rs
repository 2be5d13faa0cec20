//! Tests clients that ask for anything, in any number, and give up: the cost is bounded and
//! counted.

use test_support as support;

use futures::FutureExt;
use futures::future::join_all;
use layercache::{CacheStatus, CachedStore, Digest, Limits, MemoryConfig};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt};
use std::time::Duration;
use support::metrics::Metrics;
use support::nodes::{Bare, bare, blob_path, digest, eventually};
use support::recording::Moment;
use support::world::{head, status};
use tokio::runtime::Handle;

type Store = CachedStore<Bare>;

/// The limit on concurrent loads and changes in these tests.
const LIMIT: usize = 100;

fn store(bare: &Bare, memory: MemoryConfig) -> (Metrics, Store) {
    let limits = Limits::default().with_loads(LIMIT).with_changes(LIMIT);
    let builder = CachedStore::builder(bare.clone()).memory(memory);
    Metrics::of(|| builder.limits(limits).build().unwrap())
}

fn random() -> Path {
    let mut hash = [0; 32];
    hash.fill_with(|| fastrand::u8(..));
    blob_path(&Digest::Sha256(hash))
}

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

#[tokio::test]
async fn random_digests_cost_bounded_calls_and_no_memory() {
    const CALLERS: usize = 5000;
    let bare = bare(Duration::from_millis(1));
    let (metrics, store) = store(&bare, MemoryConfig::default());
    let callers = (0..CALLERS).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..20 {
                let error = store.head(&random()).await.unwrap_err();
                assert!(matches!(error, Error::NotFound { .. }), "{error}");
            }
        })
    });
    let callers: Vec<_> = callers.collect();
    let (mut most_tasks, mut most_in_flight, mut most_waiting) = (0, 0, 0);
    while callers.iter().any(|caller| !caller.is_finished()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
        most_tasks = most_tasks.max(tasks());
        most_in_flight = most_in_flight.max(metrics.in_flight("loads"));
        most_waiting = most_waiting.max(metrics.waiting("loads"));
    }
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(bare.reads(), CALLERS * 20, "a request was refused");
    assert_eq!(bare.most_reads_at_a_time(), LIMIT);
    assert!(most_tasks <= CALLERS + LIMIT, "{most_tasks} tasks");
    assert!(most_in_flight <= LIMIT as u64, "{most_in_flight} in flight");
    assert!(
        (1000..=CALLERS as u64).contains(&most_waiting),
        "{most_waiting}"
    );
    assert!(metrics.limit_hits("loads") > 0);
    assert_eq!(
        (metrics.in_flight("loads"), metrics.waiting("loads")),
        (0, 0)
    );
    assert_eq!(metrics.limit_hits("memory"), 0, "absence takes no memory");
}

#[tokio::test]
async fn cancelled_callers_leave_at_most_the_limit_of_loads() {
    let bare = bare(Duration::ZERO);
    let (metrics, store) = store(&bare, MemoryConfig::default());
    let known = blob_path(&digest(1));
    store.put(&known, "content".into()).await.unwrap();
    store.head(&known).await.unwrap();
    bare.hold(true);
    let before = (bare.reads(), tasks());
    for _ in 0..20 {
        let callers = (0..250).map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.head(&random()).await })
        });
        let callers: Vec<_> = callers.collect();
        tokio::task::yield_now().await;
        for caller in &callers {
            caller.abort();
        }
        join_all(callers).await;
    }
    assert_eq!(bare.reads() - before.0, LIMIT);
    assert_eq!(tasks() - before.1, LIMIT);
    assert_eq!(metrics.in_flight("loads"), LIMIT as u64);
    assert_eq!(metrics.waiting("loads"), 0);

    let hit = store.get_opts(&known, head()).now_or_never();
    let hit = hit.expect("a hit must not wait").unwrap();
    assert_eq!(status(&hit), CacheStatus::Memory);
    bare.hold(false);
    eventually("all have ended", || metrics.in_flight("loads") == 0).await;
    assert_eq!(tasks(), before.1);
    assert_eq!(
        bare.reads() - before.0,
        LIMIT,
        "the other loads did not start"
    );
}

#[tokio::test]
async fn hanging_changes_leave_at_most_the_limit_of_tasks() {
    let bare = bare(Duration::ZERO);
    let (metrics, store) = store(&bare, MemoryConfig::default());
    bare.hold_changes(Some(Moment::Before));
    let before = tasks();
    for round in 0..20 {
        let callers = (0..50).map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                match round % 2 {
                    0 => store.delete(&random()).await,
                    _ => store.put(&random(), "content".into()).await.map(drop),
                }
            })
        });
        let callers: Vec<_> = callers.collect();
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        for caller in &callers {
            caller.abort();
        }
        join_all(callers).await;
    }
    assert_eq!(bare.changes(), LIMIT);
    assert_eq!(tasks() - before, LIMIT);
    assert_eq!(metrics.in_flight("changes"), LIMIT as u64);
    assert!(metrics.limit_hits("changes") > 0);
    bare.hold_changes(None);
    eventually("all have ended", || metrics.in_flight("changes") == 0).await;
    assert_eq!(bare.changes(), LIMIT, "the others have changed nothing");
    store.delete(&random()).await.unwrap();
}

#[tokio::test]
async fn evicted_entries_are_counted() {
    let bare = bare(Duration::ZERO);
    let memory = MemoryConfig::default().with_capacity(100_000);
    let (metrics, store) = store(&bare, memory);
    for i in 0..2000 {
        let path = blob_path(&digest(i));
        bare.put(&path, "content".into()).await.unwrap();
        store.head(&path).await.unwrap();
    }
    let evicted = metrics.limit_hits("memory");
    assert!((1000..2000).contains(&evicted), "{evicted}");
}
