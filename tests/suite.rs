//! Runs the whole of `object_store::integration` through every stack.
//!
//! Each stack runs twice: with the layout of docker/distribution, in which the suite's paths have
//! no meaning, and with a layout in which every path is a blob.

use test_support as support;

use layercache::layout::{Distribution, Layout};
use layercache::{CachedStore, RedisConfig};
use object_store::aws::AmazonS3;
use object_store::integration::*;
use object_store::limit::LimitStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{Error, ObjectStore};
use support::every_path::EveryPath;
use support::minio::Minio;
use support::redis::Redis;

/// The kind of the bare store.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bare {
    Memory,
    /// Supports neither `PutMode::Update` nor attributes.
    Files,
    S3,
}

async fn suite(store: &dyn ObjectStore, bare: Bare) {
    put_get_delete_list(store).await;
    list_with_offset_exclusivity(store).await;
    get_opts(store).await;
    list_uses_directories_correctly(store).await;
    list_with_delimiter(store).await;
    rename_and_copy(store).await;
    copy_if_not_exists(store).await;
    copy_rename_nonexistent_object(store).await;
    stream_get(store).await;
    put_opts(store, bare != Bare::Files).await;
    multipart_race_condition(store, true).await;
    multipart_out_of_order(store).await;
    if bare != Bare::Files {
        put_get_attributes(store).await;
    }
    let missing = Some(Path::from("there/is/nothing"));
    let error = get_nonexistent_object(store, missing).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
}

async fn multipart_suite(store: &dyn ObjectStore, parts: &dyn MultipartStore) {
    multipart(store, parts).await;
    multipart_with_opts(store, parts).await;
    multipart_put_part_out_of_order(store, parts).await;
}

fn cached<S: ObjectStore>(inner: S, layout: impl Layout, redis: Option<&Redis>) -> CachedStore<S> {
    let builder = CachedStore::builder(inner).layout(layout);
    match redis {
        Some(redis) => {
            // Each stack on the same Redis has a prefix of its own.
            let prefix = format!("{}:", uuid::Uuid::new_v4());
            // The suite needs all its changes, so a slow machine must not have them refused.
            let timeout = std::time::Duration::from_secs(5);
            let config = RedisConfig::new(redis.url());
            let config = config.with_prefix(prefix).with_timeout(timeout);
            builder.redis(config).build().unwrap()
        }
        None => builder.build().unwrap(),
    }
}

fn files() -> (tempfile::TempDir, LocalFileSystem) {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalFileSystem::new_with_prefix(folder.path()).unwrap();
    (folder, store)
}

#[tokio::test]
async fn over_memory() {
    let redis = Redis::start().await;
    for redis in [None, Some(&redis)] {
        let store = cached(InMemory::new(), Distribution::default(), redis);
        suite(&store, Bare::Memory).await;
        multipart_suite(&store, &store).await;
        let store = cached(InMemory::new(), EveryPath::default(), redis);
        suite(&store, Bare::Memory).await;
        multipart_suite(&store, &store).await;
    }
}

#[tokio::test]
async fn over_a_filesystem() {
    let redis = Redis::start().await;
    for redis in [None, Some(&redis)] {
        let (_folder, bare) = files();
        suite(&cached(bare, Distribution::default(), redis), Bare::Files).await;
        let (_folder, bare) = files();
        suite(&cached(bare, EveryPath::default(), redis), Bare::Files).await;
    }
}

#[tokio::test]
async fn with_prefix_store_inside_and_outside() {
    let redis = Redis::start().await;
    for redis in [None, Some(&redis)] {
        let inside = PrefixStore::new(InMemory::new(), "below");
        let store = cached(inside, EveryPath::default(), redis);
        suite(&store, Bare::Memory).await;
        multipart_suite(&store, &store).await;

        let inside = cached(InMemory::new(), EveryPath::default(), redis);
        let store = PrefixStore::new(inside, "below");
        suite(&store, Bare::Memory).await;
        multipart_suite(&store, &store).await;
    }
}

#[tokio::test]
async fn with_limit_store_inside_and_outside() {
    let redis = Redis::start().await;
    for redis in [None, Some(&redis)] {
        // With so low a limit, a load that needed more permits than its caller would never end.
        for limit in [2, 10] {
            let inside = LimitStore::new(InMemory::new(), limit);
            let store = cached(inside, EveryPath::default(), redis);
            suite(&store, Bare::Memory).await;

            let inside = cached(InMemory::new(), EveryPath::default(), redis);
            let store = LimitStore::new(inside, limit);
            suite(&store, Bare::Memory).await;
        }
    }
}

/// Returns a new bucket, whose HTTP responses carry the mark that `response_extensions` looks for.
async fn bucket(minio: &Minio) -> AmazonS3 {
    let builder = minio.builder(&minio.bucket().await);
    let builder = builder.with_http_connector(MarkerHttpConnector::default());
    builder.build().unwrap()
}

async fn s3_suite(store: &CachedStore<AmazonS3>) {
    suite(store, Bare::S3).await;
    multipart_suite(store, store).await;
    list_paginated(store, store).await;
    response_extensions(store, true).await;
}

#[tokio::test]
async fn over_s3() {
    let minio = Minio::shared().await;
    let store = cached(bucket(&minio).await, Distribution::default(), None);
    s3_suite(&store).await;
}

#[tokio::test]
async fn over_s3_with_every_path_cached() {
    let minio = Minio::shared().await;
    let store = cached(bucket(&minio).await, EveryPath::default(), None);
    s3_suite(&store).await;
}

#[tokio::test]
async fn over_s3_with_every_path_cached_and_redis() {
    let (minio, redis) = (Minio::shared().await, Redis::start().await);
    let store = cached(bucket(&minio).await, EveryPath::default(), Some(&redis));
    s3_suite(&store).await;
}

#[tokio::test]
async fn over_s3_with_prefix_and_limit_store_inside() {
    let (minio, redis) = (Minio::shared().await, Redis::start().await);
    let inside = LimitStore::new(minio.new_store().await, 8);
    let inside = PrefixStore::new(inside, "below");
    let store = cached(inside, EveryPath::default(), Some(&redis));
    suite(&store, Bare::S3).await;
}

#[tokio::test]
async fn over_s3_with_prefix_and_limit_store_outside() {
    let (minio, redis) = (Minio::shared().await, Redis::start().await);
    let inside = cached(minio.new_store().await, EveryPath::default(), Some(&redis));
    let store = PrefixStore::new(LimitStore::new(inside, 8), "below");
    suite(&store, Bare::S3).await;
}
