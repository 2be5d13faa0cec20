//! Tests a failing backend: the cache passes its errors on unchanged and stores none of them.

use test_support as support;

use layercache::layout::{Distribution, Layout};
use layercache::{
    CachePolicy, CacheStatus, CachedStore, Digest, Error as CacheError, Freshness, Link,
    Repository, StoreBackend,
};
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{Error, GetOptions, ObjectStore, ObjectStoreExt, Result};
use std::error::Error as StdError;
use std::time::{Duration, Instant};
use support::metrics::Metrics;
use support::nodes::config;
use support::redis::Redis;
use support::trouble::{Bucket, TIMEOUT, Trouble};
use support::world::{head, status, with_policy};

type Store = CachedStore<AmazonS3>;

const CONTENT: &str = "content";
const DIGEST: Digest = Digest::Sha256([0xab; 32]);

/// Certain failures, failures after which a change may still happen, and requests without an
/// answer.
const TROUBLES: [Trouble; 8] = [
    Trouble::Status(500, "InternalError"),
    Trouble::Status(503, "SlowDown"),
    Trouble::Status(403, "AccessDenied"),
    Trouble::Status(401, "Unauthorized"),
    Trouble::Status(412, "PreconditionFailed"),
    Trouble::Status(404, "NoSuchBucket"),
    Trouble::Hang,
    Trouble::Reset,
];

struct World {
    bucket: Bucket,
    bare: AmazonS3,
    store: Store,
    blob: Path,
    link: Path,
}

impl World {
    async fn start() -> Self {
        let bucket = Bucket::start().await;
        let layout = Distribution::default();
        let link = Link::layer("a/b".parse().unwrap(), DIGEST);
        let world = Self {
            bare: bucket.client(),
            store: CachedStore::new(bucket.client()),
            bucket,
            blob: layout.blob_path(&DIGEST).unwrap(),
            link: layout.link_path(&link).unwrap(),
        };
        world.bare.put(&world.blob, CONTENT.into()).await.unwrap();
        let link = DIGEST.to_string();
        world.bare.put(&world.link, link.into()).await.unwrap();
        world
    }

    async fn head(&self, path: &Path) -> Result<(u64, CacheStatus)> {
        let result = self.store.get_opts(path, head()).await?;
        Ok((result.meta.size, status(&result)))
    }

    /// Asks until memory answers, because a fill runs after the answer that caused it.
    async fn warm(&self, path: &Path) {
        for _ in 0..100 {
            if self.head(path).await.unwrap().1 == CacheStatus::Memory {
                return;
            }
        }
        panic!("{path} is never answered from memory");
    }

    fn repository(&self) -> Repository<StoreBackend> {
        self.store.registry().repository("a/b".parse().unwrap())
    }
}

/// Returns an error's kind, text and causes, without the parts that differ between attempts.
fn error_text(error: &(dyn StdError + 'static)) -> String {
    let kind = error.downcast_ref::<Error>().map(std::mem::discriminant);
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    let words: Vec<_> = causes.map(ToString::to_string).collect();
    let words = words.join(" < ");
    // Removes times, such as that of "… in 1.234567ms".
    let words = words.split(' ').filter(|word| {
        let is_time = word.ends_with('s') || word.ends_with("s,");
        !(is_time && word.starts_with(|first: char| first.is_ascii_digit()))
    });
    format!("{kind:?} {}", words.collect::<Vec<_>>().join(" "))
}

/// Sends every kind of read, one after the other.
async fn ask_all(store: &dyn ObjectStore, blob: &Path, link: &Path) -> Vec<(String, Result<()>)> {
    let mut results = Vec::new();
    for path in [blob, link] {
        let ways: [(&str, GetOptions); 3] = [
            ("head", head()),
            ("get", GetOptions::new()),
            ("part", GetOptions::new().with_range(Some(0..3))),
        ];
        for (way, options) in ways {
            let result = async { store.get_opts(path, options).await?.bytes().await.map(drop) };
            results.push((format!("{way} {path}"), result.await));
        }
        let ranges = store
            .get_ranges(path, std::slice::from_ref(&(0..3)))
            .await
            .map(drop);
        results.push((format!("ranges {path}"), ranges));
    }
    results
}

#[tokio::test]
async fn backend_errors_are_returned_unchanged_and_not_cached() {
    for trouble in TROUBLES {
        let world = World::start().await;
        world.bucket.set_trouble(trouble);
        let mut bare = ask_all(&world.bare, &world.blob, &world.link).await;
        // The content says whether an object is a link, so the cache asks the store for the content
        // of a link.
        bare[4] = (
            bare[4].0.clone(),
            world.bare.get(&world.link).await.map(drop),
        );
        for _ in 0..2 {
            let before = world.bucket.requests();
            let cached = ask_all(&world.store, &world.blob, &world.link).await;
            assert_eq!(
                world.bucket.requests() - before,
                8,
                "{trouble:?}one request each"
            );
            for ((what, bare), (_, cached)) in bare.iter().zip(cached) {
                let (bare, cached) = (bare.as_ref().unwrap_err(), cached.unwrap_err());
                match (bare, &cached) {
                    // Several callers may share the answer to a head, so its `NotFound` has no
                    // further cause.
                    (Error::NotFound { path: bare, .. }, Error::NotFound { path, .. }) => {
                        assert_eq!(bare, path, "{what} in {trouble:?}");
                    }
                    _ => assert_eq!(
                        error_text(bare),
                        error_text(&cached),
                        "{what} in {trouble:?}"
                    ),
                }
            }
        }
        world.bucket.set_trouble(Trouble::None);
        let results = ask_all(&world.store, &world.blob, &world.link).await;
        assert!(
            results.iter().all(|(_, result)| result.is_ok()),
            "{results:?}"
        );
        for path in [&world.blob, &world.link] {
            world.warm(path).await;
        }
    }
}

#[tokio::test]
async fn failed_changes_return_the_backend_error() {
    for trouble in TROUBLES {
        let world = World::start().await;
        world.bucket.set_trouble(trouble);
        let bare = world
            .bare
            .put(&world.blob, CONTENT.into())
            .await
            .unwrap_err();
        for path in [&world.blob, &world.link] {
            let text = if path == &world.blob {
                CONTENT.into()
            } else {
                DIGEST.to_string().into()
            };
            let cached = world.store.put(path, text).await.unwrap_err();
            let masked = error_text(&cached).replace(path.as_ref(), world.blob.as_ref());
            assert_eq!(error_text(&bare), masked, "{trouble:?}");
        }
        let bare = world.bare.delete(&world.blob).await.unwrap_err();
        let cached = world.store.delete(&world.blob).await.unwrap_err();
        let kind = std::mem::discriminant::<Error>;
        assert_eq!(kind(&bare), kind(&cached), "{trouble:?}: {bare}, {cached}");
        // A delete that timed out may still happen.
        if trouble != Trouble::Hang {
            world.bucket.set_trouble(Trouble::None);
            assert_eq!(world.head(&world.blob).await.unwrap().0, 7);
        }
    }
}

#[tokio::test]
async fn the_typed_api_returns_the_store_error() {
    let world = World::start().await;
    world
        .bucket
        .set_trouble(Trouble::Status(403, "AccessDenied"));
    let repository = world.repository();
    for freshness in [Freshness::Cached, Freshness::Verified] {
        let stat = repository.stat(&DIGEST, freshness).await.unwrap_err();
        let contains = repository.contains(&DIGEST, freshness).await.unwrap_err();
        let blob = world
            .store
            .registry()
            .blobs()
            .stat(&DIGEST, freshness)
            .await;
        for error in [stat, contains, blob.unwrap_err()] {
            let CacheError::Backend { source } = &error else {
                panic!("{error:?}");
            };
            let source = source.downcast_ref::<Error>().unwrap();
            assert!(matches!(source, Error::PermissionDenied { .. }), "{source}");
        }
    }
}

#[tokio::test]
async fn verified_and_refresh_ask_the_backend_and_a_failure_keeps_cached_facts() {
    for trouble in TROUBLES
        .into_iter()
        .filter(|trouble| *trouble != Trouble::Status(404, "NoSuchBucket"))
    {
        let world = World::start().await;
        for path in [&world.blob, &world.link] {
            world.warm(path).await;
        }
        let repository = world.repository();
        repository.stat(&DIGEST, Freshness::Cached).await.unwrap();
        for _ in 0..2 {
            let before = world.bucket.requests();
            repository.stat(&DIGEST, Freshness::Verified).await.unwrap();
            assert_eq!(world.bucket.requests() - before, 2, "both facts");
            for policy in [CachePolicy::Refresh, CachePolicy::Bypass] {
                let before = world.bucket.requests();
                let request = with_policy(head(), policy);
                world.store.get_opts(&world.blob, request).await.unwrap();
                assert_eq!(world.bucket.requests() - before, 1, "{policy:?}");
            }
        }
        for path in [&world.blob, &world.link] {
            world.warm(path).await;
        }

        world.bucket.set_trouble(trouble);
        let bare = world.bare.head(&world.blob).await.unwrap_err();
        repository
            .stat(&DIGEST, Freshness::Verified)
            .await
            .unwrap_err();
        for policy in [CachePolicy::Refresh, CachePolicy::Bypass] {
            let request = with_policy(head(), policy);
            let error = world
                .store
                .get_opts(&world.blob, request)
                .await
                .unwrap_err();
            assert_eq!(error_text(&bare), error_text(&error), "{policy:?}");
        }
        let before = world.bucket.requests();
        for path in [&world.blob, &world.link] {
            let known = world.head(path).await.unwrap();
            assert_eq!(known.1, CacheStatus::Memory, "{trouble:?} of {path}");
        }
        let known = repository.stat(&DIGEST, Freshness::Cached).await.unwrap();
        assert_eq!(known.status, CacheStatus::Memory);
        assert_eq!(world.bucket.requests(), before);
    }
}

#[tokio::test]
async fn a_throttled_load_is_retried_once_for_all_callers() {
    let world = World::start().await;
    let store = CachedStore::new(world.bucket.client_that_tries(5));
    let before = world.bucket.requests();
    world.bucket.set_trouble(Trouble::Few(2, 503, "SlowDown"));
    let heads = (0..50).map(|_| store.head(&world.blob));
    for result in futures::future::join_all(heads).await {
        assert_eq!(result.unwrap().size, 7);
    }
    assert_eq!(world.bucket.requests() - before, 3);
}

/// The store is not consistent: written objects are not visible for a while.
#[tokio::test]
async fn an_object_that_becomes_visible_late_is_found() {
    let world = World::start().await;
    let repository = world.repository();
    world.bucket.set_trouble(Trouble::Blind);
    for _ in 0..2 {
        world.store.put(&world.blob, CONTENT.into()).await.unwrap();
        repository.link(&DIGEST).await.unwrap();
        for path in [&world.blob, &world.link] {
            for result in [
                world.head(path).await.map(drop),
                world.store.get(path).await.map(drop),
            ] {
                assert!(matches!(result, Err(Error::NotFound { .. })), "{result:?}");
            }
        }
        let stat = repository.stat(&DIGEST, Freshness::Verified).await.unwrap();
        assert_eq!(stat.value, None);
    }
    world.bucket.set_trouble(Trouble::None);
    let stat = repository.stat(&DIGEST, Freshness::Cached).await.unwrap();
    assert_eq!(stat.value.unwrap().length(), 7);
    for path in [&world.blob, &world.link] {
        world.warm(path).await;
    }
}

#[tokio::test]
async fn invalid_backend_answers_are_returned_and_not_cached() {
    let world = World::start().await;
    // Only the empty blob has length 0.
    world.bucket.set_trouble(Trouble::Length(0));
    for _ in 0..3 {
        assert_eq!(
            world.head(&world.blob).await.unwrap(),
            (0, CacheStatus::Miss)
        );
    }
    world.bucket.set_trouble(Trouble::NoLength);
    let bare = world.bare.head(&world.blob).await.unwrap_err();
    for _ in 0..2 {
        let cached = world.head(&world.blob).await.unwrap_err();
        assert_eq!(error_text(&bare), error_text(&cached));
    }
    world.bucket.set_trouble(Trouble::Cut);
    for path in [&world.blob, &world.link] {
        for _ in 0..2 {
            let cached = async { world.store.get(path).await?.bytes().await }.await;
            let bare = async { world.bare.get(path).await?.bytes().await }.await;
            assert_eq!(
                error_text(&bare.unwrap_err()),
                error_text(&cached.unwrap_err()),
                "{path}"
            );
        }
    }
    world.bucket.set_trouble(Trouble::None);
    world.warm(&world.link).await;

    world.store.clear_memory();
    world.bucket.set_trouble(Trouble::NoTag);
    let bare = world.bare.head(&world.blob).await.unwrap();
    world.warm(&world.blob).await;
    assert_eq!(world.store.head(&world.blob).await.unwrap(), bare);

    // The cache cannot detect another wrong length until the content arrives with the right one.
    world.store.clear_memory();
    world.bucket.set_trouble(Trouble::Length(5));
    world.warm(&world.blob).await;
    assert_eq!(world.head(&world.blob).await.unwrap().0, 5);
    world.bucket.set_trouble(Trouble::None);
    let content = world.store.get(&world.blob).await.unwrap().bytes().await;
    assert_eq!(content.unwrap(), CONTENT);
    assert_eq!(
        world.head(&world.blob).await.unwrap(),
        (7, CacheStatus::Miss)
    );
}

fn node(world: &World, redis: &Redis) -> (Metrics, Store) {
    Metrics::of(|| {
        let builder = CachedStore::builder(world.bucket.client());
        builder.redis(config(redis)).build().unwrap()
    })
}

/// Waits until there are no leases.
async fn until_no_lease(redis: &Redis, why: &str) {
    let end = Instant::now() + Duration::from_secs(2);
    while !redis.cli(&["KEYS", "lease::*"]).trim().is_empty() {
        assert!(Instant::now() < end, "a lease is left: {why}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn backend_failures_leave_no_lease() {
    let (world, redis) = (World::start().await, Redis::start().await);
    let nodes = [node(&world, &redis).1, node(&world, &redis).1];
    for trouble in
        TROUBLES
            .into_iter()
            .chain([Trouble::Length(0), Trouble::Length(5), Trouble::Cut])
    {
        world.bucket.set_trouble(trouble);
        let why = format!("{trouble:?}");
        for (what, result) in ask_all(&nodes[0], &world.blob, &world.link).await {
            drop(result);
            until_no_lease(&redis, &format!("{what} in {why}")).await;
        }
        nodes[0].purge().await.unwrap();
        world.bucket.set_trouble(Trouble::None);
        for path in [&world.blob, &world.link] {
            assert!(nodes[1].head(path).await.is_ok(), "{why}");
        }
        nodes[0].purge().await.unwrap();
    }
}

#[tokio::test]
async fn cancelled_callers_leave_no_lease() {
    let (world, redis) = (World::start().await, Redis::start().await);
    let (_, store) = node(&world, &redis);
    store.head(&world.blob).await.unwrap();
    store.purge().await.unwrap();
    world.bucket.set_trouble(Trouble::Hang);
    for path in [&world.blob, &world.link] {
        let get = tokio::time::timeout(TIMEOUT / 5, store.get(path)).await;
        assert!(get.is_err(), "the call hangs");
        until_no_lease(&redis, path.as_ref()).await;
    }
}

/// Any client can ask for an object that never existed. The node need not tell the other nodes of
/// it.
#[tokio::test]
async fn a_not_found_repairs_only_cached_entries() {
    let (world, redis) = (World::start().await, Redis::start().await);
    let (metrics, store) = node(&world, &redis);
    let repairs = || metrics.get("layercache_repairs_total");
    let never = Distribution::default()
        .blob_path(&Digest::Sha256([1; 32]))
        .unwrap();
    for _ in 0..3 {
        for result in [
            store.get(&never).await.map(drop),
            store
                .get_ranges(&never, std::slice::from_ref(&(0..3)))
                .await
                .map(drop),
        ] {
            assert!(matches!(result, Err(Error::NotFound { .. })), "{result:?}");
        }
    }
    assert_eq!(repairs(), 0);
    until_no_lease(&redis, "not there").await;

    // Here only Redis has the entry.
    store.head(&world.blob).await.unwrap();
    let end = Instant::now() + Duration::from_secs(2);
    while redis.cli(&["KEYS", "blobs::*"]).trim().is_empty() {
        assert!(Instant::now() < end, "never filled");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    store.clear_memory();
    world.bucket.set_trouble(Trouble::Blind);
    assert!(store.get(&world.blob).await.is_err());
    assert_eq!(repairs(), 1);
    assert_eq!(redis.cli(&["KEYS", "blobs::*"]).trim(), "");
}
