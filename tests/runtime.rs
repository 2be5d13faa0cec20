//! Tests the cache outside a tokio runtime, and in runtimes that lack a part: the caller gets an
//! error that says what to do, and nothing panics.

use test_support as support;

use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::stream::{StreamExt, iter};
use futures::{FutureExt, TryStreamExt};
use layercache::{
    CacheStatus, CachedStore, Error, Freshness, LayerInfoCache, LayerMeta, Link, MemoryCache,
    MemoryConfig, RedisCache, RedisConfig, Repository, StoreBackend, TieredCache, VerifierConfig,
};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::signer::{Method, Signer, Url};
use object_store::{GetOptions, ObjectStore, ObjectStoreExt};
use std::backtrace::Backtrace;
use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;
use support::nodes::{blob_path, digest, link_path, name};
use tokio::runtime::{Builder, Runtime};

type Store = CachedStore<InMemory>;

/// How many panics there were in this process.
static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Runs a test, and checks that nothing panics. Runs one test at a time, because it counts the
/// panics of the process.
fn alone(test: impl FnOnce()) {
    static ALONE: Mutex<()> = Mutex::new(());
    static HOOK: Once = Once::new();
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    HOOK.call_once(|| {
        let default = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            // The cache itself catches a panic of tokio there.
            let trace = Backtrace::force_capture().to_string();
            if !trace.contains("layercache::types::runtime::has_") {
                PANICS.fetch_add(1, Ordering::SeqCst);
                default(info);
            }
        }));
    });
    let before = PANICS.load(Ordering::SeqCst);
    test();
    assert_eq!(PANICS.load(Ordering::SeqCst), before, "panics");
}

fn blob(i: u32) -> Path {
    blob_path(&digest(i))
}

fn link(i: u32) -> Path {
    link_path(&digest(i))
}

fn layers(store: &Store) -> Repository<StoreBackend> {
    store.registry().repository(name())
}

/// Signs every path with the same URL.
#[derive(Debug)]
struct FakeSigner;

#[async_trait]
impl Signer for FakeSigner {
    async fn signed_url(&self, _: Method, _: &Path, _: Duration) -> object_store::Result<Url> {
        Ok("https://127.0.0.1:1/".parse().unwrap())
    }
}

async fn sign(store: &Store, method: Method) -> Done {
    let signer = store.signer().unwrap();
    done(
        signer
            .signed_url(method, &blob(1), Duration::from_secs(60))
            .await,
    )
}

/// What an operation returned: nothing, or an error's text.
type Done = Result<(), String>;

fn done<T, E: std::error::Error + 'static>(result: Result<T, E>) -> Done {
    result.map(drop).map_err(|error| {
        let first: &(dyn std::error::Error + 'static) = &error;
        let mut chain = std::iter::successors(Some(first), |error| error.source());
        match chain.find_map(|error| error.downcast_ref()) {
            Some(found @ Error::Runtime { .. }) => found.to_string(),
            _ => format!("other: {error}"),
        }
    })
}

type Op = fn(Store) -> BoxFuture<'static, Done>;

/// Operations that need a runtime.
const NEED: &[(&str, Op)] = &[
    ("head of a blob", |store| {
        async move { done(store.head(&blob(1)).await) }.boxed()
    }),
    ("head of a link", |store| {
        async move { done(store.head(&link(1)).await) }.boxed()
    }),
    ("put of a blob", |store| {
        async move { done(store.put(&blob(2), "x".into()).await) }.boxed()
    }),
    ("put of a link", |store| {
        let content = digest(2).to_string();
        async move { done(store.put(&link(2), content.into()).await) }.boxed()
    }),
    ("copy", |store| {
        async move { done(store.copy(&blob(1), &blob(3)).await) }.boxed()
    }),
    ("rename", |store| {
        async move { done(store.rename(&blob(1), &blob(3)).await) }.boxed()
    }),
    ("delete", |store| {
        async move { done(store.delete(&blob(1)).await) }.boxed()
    }),
    ("delete_stream", |store| {
        let paths = iter([Ok(blob(1)), Ok(link(1))]).boxed();
        async move { done(store.delete_stream(paths).try_collect::<Vec<_>>().await) }.boxed()
    }),
    ("multipart upload", |store| {
        async move {
            let mut upload = store.put_multipart(&blob(4)).await.unwrap();
            upload.put_part("x".into()).await.unwrap();
            done(upload.complete().await)
        }
        .boxed()
    }),
    ("stat", |store| {
        async move { done(layers(&store).stat(&digest(1), Freshness::Cached).await) }.boxed()
    }),
    ("verified stat", |store| {
        async move { done(layers(&store).stat(&digest(1), Freshness::Verified).await) }.boxed()
    }),
    ("stat_many", |store| {
        async move {
            let digests = [digest(1), digest(9)];
            done(layers(&store).stat_many(&digests, Freshness::Cached).await)
        }
        .boxed()
    }),
    ("contains", |store| {
        async move { done(layers(&store).contains(&digest(1), Freshness::Cached).await) }.boxed()
    }),
    ("link", |store| {
        async move { done(layers(&store).link(&digest(1)).await) }.boxed()
    }),
    ("unlink", |store| {
        async move { done(layers(&store).unlink(&digest(1)).await) }.boxed()
    }),
    ("mount", |store| {
        async move { done(layers(&store).mount(&name(), &digest(1)).await) }.boxed()
    }),
    ("stat of a blob", |store| {
        async move {
            let blobs = store.registry().blobs();
            done(blobs.stat(&digest(1), Freshness::Cached).await)
        }
        .boxed()
    }),
    ("delete of a blob", |store| {
        async move { done(store.registry().blobs().delete(&digest(1)).await) }.boxed()
    }),
    ("signed URL for a write", |store| {
        async move { sign(&store, Method::PUT).await }.boxed()
    }),
];

/// Operations that succeed without a runtime, because the wrapped store answers them.
const NEED_NONE: &[(&str, Op)] = &[
    ("content of a blob", |store| {
        async move { done(store.get(&blob(1)).await) }.boxed()
    }),
    ("content of a link", |store| {
        async move { done(store.get(&link(1)).await) }.boxed()
    }),
    ("ranges of a blob", |store| {
        async move { done(store.get_ranges(&blob(1), &[0..1, 2..3]).await) }.boxed()
    }),
    ("content of another path", |store| {
        async move { done(store.get(&Path::from("other")).await) }.boxed()
    }),
    ("a blob that is missing", |store| {
        async move {
            let result = store.get(&blob(9)).await;
            assert!(matches!(result, Err(object_store::Error::NotFound { .. })));
            Ok(())
        }
        .boxed()
    }),
    ("ranges of a blob that is missing", |store| {
        async move {
            let result = store.get_ranges(&blob(9), &[0..1, 2..3]).await;
            assert!(matches!(result, Err(object_store::Error::NotFound { .. })));
            Ok(())
        }
        .boxed()
    }),
    ("signed URL for a read", |store| {
        async move { sign(&store, Method::GET).await }.boxed()
    }),
    ("list", |store| {
        async move { done(store.list(None).try_collect::<Vec<_>>().await) }.boxed()
    }),
    ("clear_memory", |store| {
        store.clear_memory();
        futures::future::ready(Ok(())).boxed()
    }),
    ("shutdown", |store| {
        async move {
            store.shutdown().await;
            Ok(())
        }
        .boxed()
    }),
];

/// Operations on all tiers. Without Redis they need no runtime.
const OF_TIERS: &[(&str, Op)] = &[
    ("purge", |store| {
        async move { done(store.purge().await) }.boxed()
    }),
    ("purge_repositories", |store| {
        async move { done(store.purge_repositories(|_| true).await) }.boxed()
    }),
    ("warm", |store| {
        async move { done(store.warm(None).await) }.boxed()
    }),
];

type PlainOp = fn(Arc<dyn LayerInfoCache>) -> BoxFuture<'static, Done>;

/// The operations of a plain cache. Without Redis they need no runtime.
const PLAIN: &[(&str, PlainOp)] = &[
    ("contains", |cache| {
        async move { done(cache.contains(&member()).await) }.boxed()
    }),
    ("add", |cache| {
        async move { done(cache.add(&member()).await) }.boxed()
    }),
    ("remove", |cache| {
        async move { done(cache.remove(&member()).await) }.boxed()
    }),
    ("meta", |cache| {
        async move { done(cache.meta(&digest(1)).await) }.boxed()
    }),
    ("set_meta", |cache| {
        let meta = LayerMeta::new(blob(1).as_ref(), 7).unwrap();
        async move { done(cache.set_meta(&digest(1), &meta).await) }.boxed()
    }),
    ("remove_meta", |cache| {
        async move { done(cache.remove_meta(&digest(1)).await) }.boxed()
    }),
];

fn member() -> Link {
    Link::layer(name(), digest(1))
}

/// No Redis listens on the port.
fn no_redis() -> RedisConfig {
    RedisConfig::new("redis://127.0.0.1:1")
}

/// Returns plain caches, and whether they have a Redis.
fn plain_caches() -> [(Arc<dyn LayerInfoCache>, bool); 4] {
    let memory = MemoryConfig::default();
    let redis = || RedisCache::new(no_redis()).unwrap();
    [
        (Arc::new(MemoryCache::new(memory)), false),
        (Arc::new(TieredCache::in_memory(memory)), false),
        (Arc::new(redis()), true),
        (Arc::new(TieredCache::with_redis(memory, redis())), true),
    ]
}

/// Returns a store with a blob and a link in it.
fn filled() -> InMemory {
    let inner = InMemory::new();
    for (path, content) in [
        (blob(1), "content".to_owned()),
        (link(1), digest(1).to_string()),
        (Path::from("other"), "other".to_owned()),
    ] {
        let put = inner.put(&path, content.into()).now_or_never();
        put.unwrap().unwrap();
    }
    inner
}

fn store(with_redis: bool) -> Result<Store, Error> {
    let builder = CachedStore::builder(filled()).signer(Arc::new(FakeSigner));
    match with_redis {
        true => builder.redis(no_redis()),
        false => builder,
    }
    .build()
}

/// A runtime without timers.
fn without_timers(threads: usize) -> Runtime {
    let mut builder = match threads {
        0 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder.worker_threads(threads.max(1)).enable_io();
    builder.build().unwrap()
}

#[test]
fn without_a_runtime_each_call_says_what_to_do() {
    alone(|| {
        for with_redis in [false, true] {
            let make = || store(with_redis).unwrap();
            for (what, op) in NEED {
                let text = op(make()).now_or_never().unwrap().unwrap_err();
                assert!(text.contains("#[tokio::main]"), "{what}: {text}");
            }
            for (what, op) in NEED_NONE {
                assert_eq!(op(make()).now_or_never(), Some(Ok(())), "{what}");
            }
            for (what, op) in OF_TIERS {
                let answer = op(make()).now_or_never().unwrap();
                match with_redis {
                    true => assert!(answer.is_err(), "{what}"),
                    false => assert_eq!(answer, Ok(()), "{what}"),
                }
            }
        }
    });
}

/// Checks that an operation has failed with an error that contains `words` if it needs Redis.
#[track_caller]
fn check_plain((what, has_redis): (&str, bool), answer: Done, words: &str) {
    match has_redis {
        true => {
            let text = answer.unwrap_err();
            assert!(text.contains(words), "{what}: {text}");
        }
        false => assert_eq!(answer, Ok(()), "{what}"),
    }
}

#[test]
fn each_operation_of_a_plain_cache_says_what_to_do() {
    alone(|| {
        for (what, op) in PLAIN {
            for (cache, has_redis) in plain_caches() {
                let answer = op(cache).now_or_never().unwrap();
                check_plain((what, has_redis), answer, "#[tokio::main]");
            }
            for threads in [0, 2] {
                let runtime = without_timers(threads);
                for (cache, has_redis) in plain_caches() {
                    let answer = runtime.block_on(async { tokio::spawn(op(cache)).await });
                    check_plain((what, has_redis), answer.unwrap(), "enable_all");
                }
            }
        }
    });
}

#[test]
fn memory_answers_without_a_runtime() {
    alone(|| {
        let verifier = VerifierConfig::default().with_hits(1.0);
        let store = CachedStore::builder(filled()).verifier(verifier);
        let store = store.build().unwrap();
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(store.head(&blob(1))).unwrap();
        drop(runtime);
        let options = GetOptions::new().with_head(true);
        let path = blob(1);
        let result = store.get_opts(&path, options).now_or_never();
        let result = result.unwrap().unwrap();
        assert_eq!(result.extensions.get(), Some(&CacheStatus::Memory));
    });
}

#[test]
fn a_runtime_without_timers_is_refused_when_the_store_is_built() {
    alone(|| {
        for threads in [0, 2] {
            for with_redis in [false, true] {
                let built = without_timers(threads).block_on(async { store(with_redis) });
                let text = built.unwrap_err().to_string();
                assert!(text.contains("enable_all"), "{text}");
            }
        }
    });
}

/// The store is built before its runtime, so that it cannot know that runtime.
#[test]
fn in_a_runtime_without_timers_each_call_says_what_to_do() {
    alone(|| {
        for (threads, with_redis) in [(0, false), (2, false), (0, true), (2, true)] {
            let runtime = without_timers(threads);
            let run = |op: Op| {
                let store = store(with_redis).unwrap();
                runtime.block_on(async { tokio::spawn(op(store)).await })
            };
            for (what, op) in NEED {
                let text = run(*op).unwrap().unwrap_err();
                assert!(text.contains("enable_all"), "{what}: {text}");
            }
            for (what, op) in NEED_NONE {
                assert_eq!(run(*op).unwrap(), Ok(()), "{what}");
            }
            for (what, op) in OF_TIERS {
                let answer = run(*op).expect("no panic");
                assert_eq!(answer.is_err(), with_redis, "{what}");
            }
        }
    });
}

/// Memory alone needs timers, and no more.
#[test]
fn a_runtime_without_io_is_enough_without_redis() {
    alone(|| {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        for (what, op) in [NEED, NEED_NONE, OF_TIERS].concat() {
            let answer = runtime.block_on(async { op(store(false).unwrap()).await });
            assert_eq!(answer, Ok(()), "{what}");
        }
    });
}

/// Redis cannot be reached without I/O. Reads and creations go on without it.
#[test]
fn a_runtime_without_io_is_refused_for_redis() {
    alone(|| {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let built = runtime.block_on(async { store(true) });
        let text = built.unwrap_err().to_string();
        assert!(text.contains("enable_all"), "{text}");
    });
}
