//! Puts the cache around each kind of store that needs no server, and runs the whole of
//! `object_store::integration` through it.
//!
//! Each stack runs twice: with the layout of docker/distribution, in which the suite's paths have
//! no meaning, and with a layout in which every path is a blob.

use super::every_path::EveryPath;
use super::redis::Redis;
use super::suite::{Bare, multipart_suite, suite};
use layercache::layout::{Distribution, Layout};
use layercache::{CachedStore, RedisConfig};
use object_store::ObjectStore;
use object_store::limit::LimitStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::prefix::PrefixStore;

/// Puts the cache around a store, with or without Redis.
pub fn cached<S: ObjectStore>(
    inner: S,
    layout: impl Layout,
    redis: Option<&Redis>,
) -> CachedStore<S> {
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

pub async fn over_memory(redis: Option<&Redis>) {
    let store = cached(InMemory::new(), Distribution::default(), redis);
    suite(&store, Bare::Memory).await;
    multipart_suite(&store, &store).await;
    let store = cached(InMemory::new(), EveryPath::default(), redis);
    suite(&store, Bare::Memory).await;
    multipart_suite(&store, &store).await;
}

pub async fn over_a_filesystem(redis: Option<&Redis>) {
    let (_folder, bare) = files();
    suite(&cached(bare, Distribution::default(), redis), Bare::Files).await;
    let (_folder, bare) = files();
    suite(&cached(bare, EveryPath::default(), redis), Bare::Files).await;
}

pub async fn with_prefix_store_inside_and_outside(redis: Option<&Redis>) {
    let inside = PrefixStore::new(InMemory::new(), "below");
    let store = cached(inside, EveryPath::default(), redis);
    suite(&store, Bare::Memory).await;
    multipart_suite(&store, &store).await;

    let inside = cached(InMemory::new(), EveryPath::default(), redis);
    let store = PrefixStore::new(inside, "below");
    suite(&store, Bare::Memory).await;
    multipart_suite(&store, &store).await;
}

pub async fn with_limit_store_inside_and_outside(redis: Option<&Redis>) {
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
