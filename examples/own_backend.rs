//! How to use the cache without `object_store`: a registry that keeps its memberships in its own
//! database.
//!
//! ```sh
//! cargo run --release --example own_backend
//! ```

use async_trait::async_trait;
use layercache::{
    Backend, BoxError, Digest, Freshness, LayerMeta, Link, LinkState, Registry, WritableBackend,
};
use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Two tables. A query takes 20 ms. `Mutex`, `HashSet` and `HashMap` stand for your database.
#[derive(Debug, Default)]
struct Database {
    links: Mutex<HashSet<Link>>,
    blobs: Mutex<HashMap<Digest, LayerMeta>>,
}

impl Database {
    async fn query<T>(&self, what: &str, run: impl FnOnce() -> T) -> T {
        println!("    database: {what}");
        sleep(Duration::from_millis(20)).await;
        run()
    }
}

/// The questions that the cache asks when no tier knows the answer. It asks both at the same time.
#[async_trait]
impl Backend for Database {
    async fn link_state(&self, link: &Link) -> Result<LinkState, BoxError> {
        let is_linked = || lock(&self.links).contains(link);
        Ok(match self.query("is it linked?", is_linked).await {
            true => LinkState::Linked(None),
            false => LinkState::Absent,
        })
    }

    async fn describe(&self, digest: &Digest) -> Result<Option<LayerMeta>, BoxError> {
        let find = || lock(&self.blobs).get(digest).cloned();
        Ok(self.query("where is it?", find).await)
    }
}

/// The changes that the cache makes. Before each change it invalidates the old value on all nodes.
#[async_trait]
impl WritableBackend for Database {
    async fn create_link(&self, link: &Link) -> Result<(), BoxError> {
        self.query("insert the link", || lock(&self.links).insert(link.clone()))
            .await;
        Ok(())
    }

    async fn remove_link(&self, link: &Link) -> Result<(), BoxError> {
        self.query("delete the link", || lock(&self.links).remove(link))
            .await;
        Ok(())
    }

    async fn delete_blob(&self, digest: &Digest) -> Result<(), BoxError> {
        self.query("delete the blob", || lock(&self.blobs).remove(digest))
            .await;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let digest =
        "sha256:e28d98ac666afd34f089b971a663264d54d67a60ddc82996d48d8f3c204eb75f".parse()?;
    let database = Database::default();
    lock(&database.blobs).insert(digest, LayerMeta::new("shard-7/e28d98ac", 1024)?);

    // `.redis(RedisConfig::new(url))` adds a Redis, which other nodes share.
    let registry = Registry::builder(database).build()?;
    let repository = registry.repository("library/alpine".parse()?);

    println!("link");
    repository.link(&digest).await?;
    for _ in 0..2 {
        println!("stat");
        let began = Instant::now();
        let answer = repository.stat(&digest, Freshness::Cached).await?;
        let took = began.elapsed();
        let meta = answer.value.ok_or("it is linked")?;
        println!(
            "  {} bytes at {}, says {:?}, {took:.1?}",
            meta.length(),
            meta.path(),
            answer.status
        );
    }
    println!("unlink");
    repository.unlink(&digest).await?;
    println!("stat");
    let answer = repository.stat(&digest, Freshness::Cached).await?;
    println!("  {:?}, says {:?}", answer.value, answer.status);
    Ok(())
}

/// Locks a table. A table is still valid after one of its users has panicked.
fn lock<T>(table: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    table
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
