//! Tests the command `layercache` as a process, with real servers.

mod check;
mod ends;
mod purge;
mod stat;
mod topologies;
mod warm;
mod watch;

use test_support as support;

use layercache::layout::{Distribution, Layout};
use layercache::{
    CacheStatus, CachedStore, Digest, Freshness, Link, RedisConfig, Repository, RepositoryName,
    StoreBackend,
};
use object_store::ObjectStoreExt;
use object_store::local::LocalFileSystem;
use std::time::Duration;
use support::command::{CommandOutput, command, output_of, run, run_with};
use support::nodes::{config, digest};
use support::redis::Redis;
use tempfile::TempDir;
use tokio::time::sleep;

type Node = CachedStore<LocalFileSystem>;

/// A folder of a registry, and a Redis.
struct Stage {
    folder: TempDir,
    redis: Redis,
}

impl Stage {
    async fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            redis: Redis::start().await,
        }
    }

    fn path(&self) -> &str {
        self.folder.path().to_str().unwrap()
    }

    fn node(&self) -> Node {
        self.node_with(config(&self.redis))
    }

    fn node_with(&self, config: RedisConfig) -> Node {
        let store = LocalFileSystem::new_with_prefix(self.folder.path()).unwrap();
        CachedStore::builder(store).redis(config).build().unwrap()
    }

    /// Puts this many blobs into a repository through the node, so that all tiers know them.
    async fn push(&self, node: &Node, repository: &str, count: u32) {
        for i in 0..count {
            let path = Distribution::default().blob_path(&digest(i)).unwrap();
            node.put(&path, "content".into()).await.unwrap();
            let repository = node.registry().repository(name(repository));
            repository.link(&digest(i)).await.unwrap();
            settle(&repository, &digest(i)).await;
        }
    }

    /// Deletes a layer's link without telling the cache.
    fn unlink(&self, repository: &str, digest: &Digest) {
        let link = Link::layer(name(repository), *digest);
        let path = Distribution::default().link_path(&link).unwrap();
        std::fs::remove_file(self.folder.path().join(path.as_ref())).unwrap();
    }

    /// Deletes a blob without telling the cache.
    fn collect(&self, digest: &Digest) {
        let path = Distribution::default().blob_path(digest).unwrap();
        std::fs::remove_file(self.folder.path().join(path.as_ref())).unwrap();
    }

    /// Runs the command with the folder and the Redis.
    async fn run(&self, args: &[&str]) -> CommandOutput {
        let url = self.redis.url();
        let all = [args, &["--redis", &url, "--storage", self.path()]].concat();
        run(&all).await
    }
}

/// Asks until memory answers. The fill runs after the answer, and the command reads the cache
/// afterwards.
async fn settle(repository: &Repository<StoreBackend>, digest: &Digest) {
    for _ in 0..200 {
        let answer = repository.stat(digest, Freshness::Cached).await.unwrap();
        if answer.status == CacheStatus::Memory {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("{digest} is never in memory");
}

fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}
