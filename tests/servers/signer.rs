//! Tests signed URLs of a real S3 server: those for reads leave the cache alone, and those for
//! writes keep the object out of it.

use test_support as support;

use layercache::{CacheStatus, CachedStore, Limits};
use object_store::aws::AmazonS3;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::signer::{Method, SignedUrlOptions, Signer, Url};
use object_store::{GetOptions, ObjectStore, ObjectStoreExt};
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::minio::Minio;
use support::nodes::{PATIENCE, config, eventually};
use support::redis::Redis;
use tokio::time::{sleep, timeout};

const HOUR: Duration = Duration::from_secs(3600);

fn blob() -> Path {
    let hex = "ab".repeat(32);
    Path::from(format!("docker/registry/v2/blobs/sha256/ab/{hex}/data"))
}

async fn head(store: &dyn ObjectStore) -> (u64, CacheStatus) {
    let options = GetOptions::new().with_head(true);
    let result = store.get_opts(&blob(), options).await.unwrap();
    (result.meta.size, *result.extensions.get().unwrap())
}

/// Asks a few times, with time for a fill in between.
async fn settled_head(store: &dyn ObjectStore) -> (u64, CacheStatus) {
    for _ in 0..5 {
        if head(store).await.1 == CacheStatus::Memory {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    head(store).await
}

#[tokio::test]
async fn a_signed_read_changes_nothing_in_the_cache() {
    let minio = Minio::shared().await;
    let store = CachedStore::new(minio.new_store().await);
    store.put(&blob(), "content".into()).await.unwrap();
    assert_eq!(settled_head(&store).await, (7, CacheStatus::Memory));
    let url = store.signed_url(Method::GET, &blob(), HOUR).await.unwrap();
    let content = reqwest::get(url).await.unwrap().text().await.unwrap();
    assert_eq!(content, "content");
    assert_eq!(head(&store).await, (7, CacheStatus::Memory));
}

#[tokio::test]
async fn a_signed_write_keeps_the_object_out_of_the_cache_until_it_expires() {
    let minio = Minio::shared().await;
    for kind in ["one", "with options", "many"] {
        let store = CachedStore::new(minio.new_store().await);
        store.put(&blob(), "content".into()).await.unwrap();
        assert_eq!(settled_head(&store).await, (7, CacheStatus::Memory));
        let url = sign(&store, kind).await;
        for length in [3, 4] {
            let put = reqwest::Client::new()
                .put(url.clone())
                .body("x".repeat(length));
            assert!(put.send().await.unwrap().status().is_success());
            let (size, status) = settled_head(&store).await;
            assert_eq!((size, status), (length as u64, CacheStatus::Miss), "{kind}");
        }
    }
}

/// A signed URL is valid for a long time, and no change waits for its expiry.
#[tokio::test]
async fn many_signed_writes_block_no_change() {
    let bare = Minio::shared().await.new_store().await;
    let builder = CachedStore::builder(bare).limits(Limits::default().with_changes(1));
    let store = builder.build().unwrap();
    let signs_and_puts = async {
        for kind in ["one", "with options", "many"] {
            sign(&store, kind).await;
        }
        store.put(&blob(), "content".into()).await.unwrap();
    };
    let done = timeout(PATIENCE, signs_and_puts).await;
    done.expect("a change waits for a signed URL");
}

/// The node may die as soon as it has returned the URL, so Redis must know the expiry before.
#[tokio::test]
async fn a_later_expiry_is_in_redis_before_its_url_is_returned() {
    let (minio, redis) = (Minio::shared().await, Redis::start().await);
    let [store, _] = nodes(&redis, &minio).await;
    for hours in [1, 2, 3] {
        let path = blob();
        let signed = store.signed_url(Method::PUT, &path, HOUR * hours);
        signed.await.unwrap();
        let left: u128 = redis.cli(&["PTTL", &fence()]).parse().unwrap();
        assert!(left > (HOUR * hours).as_millis(), "{hours}: {left}");
    }
}

#[tokio::test]
async fn an_unlimited_expiry_overflows_no_clock() {
    let store = CachedStore::new(Minio::shared().await.new_store().await);
    let path = blob();
    store.put(&path, "content".into()).await.unwrap();
    let signed = store.signed_url(Method::PUT, &path, Duration::MAX);
    signed.await.unwrap();
    assert_eq!(settled_head(&store).await, (7, CacheStatus::Miss));
}

/// Nodes that hold their bucket as an `Arc<dyn ObjectStore>`, and what signs for it beside it.
#[tokio::test]
async fn a_signer_beside_the_store_keeps_the_cache_away_as_well() {
    let minio = Minio::shared().await;
    let bucket = minio.bucket().await;
    for kind in ["one", "with options", "many"] {
        let redis = Redis::start().await;
        let bare = Arc::new(minio.store(&bucket));
        let (store, signer) = (Arc::clone(&bare) as Arc<dyn ObjectStore>, bare);
        let builder = CachedStore::builder(store).redis(config(&redis));
        let store = builder.signer(signer).build().unwrap();
        let end = Instant::now() + PATIENCE;
        while let Err(error) = store.put(&blob(), "content".into()).await {
            assert!(Instant::now() < end, "{error}");
        }
        while head(&store).await != (7, CacheStatus::Memory) {
            assert!(Instant::now() < end, "never in memory");
            sleep(Duration::from_millis(20)).await;
        }
        let signer = store.signer().unwrap();
        let url = signer.signed_url(Method::GET, &blob(), HOUR).await.unwrap();
        let content = reqwest::get(url).await.unwrap().text().await.unwrap();
        assert_eq!(content, "content");
        assert_eq!(head(&store).await, (7, CacheStatus::Memory), "a read");

        let url = sign(signer.as_ref(), kind).await;
        let left: u128 = redis.cli(&["PTTL", &fence()]).parse().unwrap();
        assert!(left > HOUR.as_millis(), "{kind}: {left}");
        let put = reqwest::Client::new().put(url).body("xyz");
        assert!(put.send().await.unwrap().status().is_success());
        assert_eq!(settled_head(&store).await, (3, CacheStatus::Miss), "{kind}");
    }
}

#[tokio::test]
async fn a_store_without_a_signer_says_so() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    assert!(CachedStore::new(store).signer().is_none());
}

async fn sign(store: &dyn Signer, kind: &str) -> Url {
    let path = blob();
    match kind {
        "one" => store.signed_url(Method::PUT, &path, HOUR).await.unwrap(),
        "with options" => {
            let options = SignedUrlOptions::default();
            let signed = store.signed_url_opts(Method::PUT, &path, HOUR, &options);
            signed.await.unwrap()
        }
        _ => {
            let paths = [path];
            let signed = store.signed_urls(Method::PUT, &paths, HOUR);
            signed.await.unwrap().remove(0)
        }
    }
}

/// Returns two nodes on one bucket and one Redis.
async fn nodes(redis: &Redis, minio: &Minio) -> [CachedStore<AmazonS3>; 2] {
    let bucket = minio.bucket().await;
    [(); 2].map(|()| {
        let config = config(redis).with_fence_ttl(Duration::from_millis(1500));
        let builder = CachedStore::builder(minio.store(&bucket));
        builder.redis(config).build().unwrap()
    })
}

fn fence() -> String {
    format!("fence::{{blobs::sha256:{}}}", "ab".repeat(32))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_lost_fence_is_restored_before_the_upload() {
    let minio = Minio::shared().await;
    for loss in ["evicted", "flushed", "restarted"] {
        let mut redis = Redis::start().await;
        let [signing, other] = nodes(&redis, &minio).await;
        let end = Instant::now() + PATIENCE;
        while let Err(error) = signing.put(&blob(), "content".into()).await {
            assert!(Instant::now() < end, "{error}");
        }
        while head(&other).await != (7, CacheStatus::Memory) {
            assert!(Instant::now() < end, "never in memory");
            sleep(Duration::from_millis(20)).await;
        }
        let urls = [
            sign(&signing, "one").await,
            sign(&signing, "with options").await,
            sign(&signing, "many").await,
        ];
        assert_eq!(redis.cli(&["SCARD", &fence()]), "1", "one for each key");
        let left: u64 = redis.cli(&["PTTL", &fence()]).parse().unwrap();
        assert!(left > 3_600_000, "it stands until the URL expires: {left}");

        match loss {
            "evicted" => drop(redis.cli(&["DEL", &fence()])),
            "flushed" => drop(redis.cli(&["FLUSHALL"])),
            _ => redis.restart_on_same_port().await,
        }
        // The object may be cached until the fence stands again.
        settled_head(&other).await;
        // The fence gets its full TTL only after the other nodes have been notified.
        eventually("it is put up again", || {
            redis.cli(&["PTTL", &fence()]).parse::<i64>().unwrap() > 3_600_000
        })
        .await;
        for (length, url) in (10..).zip(urls) {
            let put = reqwest::Client::new().put(url).body("x".repeat(length));
            assert!(put.send().await.unwrap().status().is_success());
            for store in [&other, &signing] {
                assert_eq!(settled_head(store).await.0, length as u64, "{loss}");
            }
        }
    }
}
