//! Runs the whole of `object_store::integration` through every stack with Redis or S3.

use test_support as support;

use layercache::CachedStore;
use layercache::layout::Distribution;
use object_store::aws::AmazonS3;
use object_store::integration::*;
use object_store::limit::LimitStore;
use object_store::prefix::PrefixStore;
use support::every_path::EveryPath;
use support::minio::Minio;
use support::redis::Redis;
use support::stacks::{self, cached};
use support::suite::{Bare, multipart_suite, suite};

#[tokio::test]
async fn over_memory() {
    let redis = Redis::start().await;
    stacks::over_memory(Some(&redis)).await;
}

#[tokio::test]
async fn over_a_filesystem() {
    let redis = Redis::start().await;
    stacks::over_a_filesystem(Some(&redis)).await;
}

#[tokio::test]
async fn with_prefix_store_inside_and_outside() {
    let redis = Redis::start().await;
    stacks::with_prefix_store_inside_and_outside(Some(&redis)).await;
}

#[tokio::test]
async fn with_limit_store_inside_and_outside() {
    let redis = Redis::start().await;
    stacks::with_limit_store_inside_and_outside(Some(&redis)).await;
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
