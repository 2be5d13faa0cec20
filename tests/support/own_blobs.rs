//! Nodes with a layout in which each repository has its own copy of a blob.

use super::recording::Recording;
use super::world::{head, status};
use layercache::layout::{Layout, OciImages};
use layercache::{CacheStatus, CachedStore, Digest, Link, RedisConfig, RepositoryName};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};
use std::time::{Duration, Instant};

pub type Bare = Recording<InMemory>;
pub type Node = CachedStore<Bare>;

/// Returns the name of a repository.
pub fn name(i: usize) -> RepositoryName {
    format!("team/app{i}").parse().unwrap()
}

/// Returns the path of a repository's copy of a blob.
pub fn path(i: usize, digest: &Digest) -> Path {
    let link = Link::layer(name(i), *digest);
    OciImages::default().link_path(&link).unwrap()
}

/// Returns the key of the hash of a repository's copy of a blob.
pub fn hash(i: usize, digest: &Digest) -> String {
    format!("blobs::{}::{digest}", name(i))
}

pub fn node(bare: &Bare, config: RedisConfig) -> Node {
    let builder = CachedStore::builder(bare.clone()).layout(OciImages::default());
    builder.redis(config).build().unwrap()
}

pub async fn ask(node: &Node, path: &Path) -> (ObjectMeta, CacheStatus) {
    let result = node.get_opts(path, head()).await.unwrap();
    (result.meta.clone(), status(&result))
}

/// Asks until memory answers. Redis has the entry by then.
///
/// # Panics
/// If that takes too long.
pub async fn warm(node: &Node, path: &Path) {
    let end = Instant::now() + Duration::from_secs(20);
    while ask(node, path).await.1 != CacheStatus::Memory {
        assert!(Instant::now() < end, "{path} is never answered from memory");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
