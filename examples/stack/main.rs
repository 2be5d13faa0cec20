//! Stacks a `CachedStore` and the wrappers of `object_store` in different orders, and shows what
//! the order changes.
//!
//! ```sh
//! cargo run --release --example stack
//! ```

mod counted;

use counted::Counted;
use futures::future::join;
use layercache::CachedStore;
use layercache::layout::{Distribution, Layout};
use object_store::limit::LimitStore;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use object_store::{ObjectStore, ObjectStoreExt};
use std::error::Error;
use std::time::{Duration, Instant};

const HEADS: usize = 10;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    println!("{HEADS} heads of one blob. How many reach the store?\n");
    let below = Distribution::new(Path::from("tenant/docker/registry/v2"));

    let counted = Counted::default();
    let store = CachedStore::new(counted.clone());
    count_reads(&counted, &store, "CachedStore(store)").await?;

    let counted = Counted::default();
    let store = CachedStore::new(PrefixStore::new(counted.clone(), "tenant"));
    count_reads(&counted, &store, "CachedStore(PrefixStore(store))").await?;

    // The cache sees paths with the prefix, which the layout does not know.
    let counted = Counted::default();
    let store = PrefixStore::new(CachedStore::new(counted.clone()), "tenant");
    count_reads(&counted, &store, "PrefixStore(CachedStore(store))").await?;

    let counted = Counted::default();
    let cached = CachedStore::builder(counted.clone())
        .layout(below)
        .build()?;
    let store = PrefixStore::new(cached, "tenant");
    count_reads(
        &counted,
        &store,
        "PrefixStore(CachedStore(store)), with the prefix in its layout",
    )
    .await?;

    println!("\nOne call at a time, and a slow call is running. How long does a hit take?\n");
    let store = LimitStore::new(CachedStore::new(slow()), 1);
    hit_beside(&store, "LimitStore(CachedStore(store)), limits callers").await?;

    let store = CachedStore::new(LimitStore::new(slow(), 1));
    hit_beside(&store, "CachedStore(LimitStore(store)), limits the store").await?;
    Ok(())
}

async fn count_reads(
    counted: &Counted,
    store: &dyn ObjectStore,
    order: &str,
) -> Result<(), Box<dyn Error>> {
    let blob = blob()?;
    store.put(&blob, "a layer".into()).await?;
    let before = counted.reads();
    for _ in 0..HEADS {
        store.head(&blob).await?;
    }
    println!("  {:2}  {order}", counted.reads() - before);
    Ok(())
}

async fn hit_beside(store: &dyn ObjectStore, order: &str) -> Result<(), Box<dyn Error>> {
    let blob = blob()?;
    store.put(&blob, "a layer".into()).await?;
    store.head(&blob).await?;
    // A call runs until its content is read to the end.
    let content = async { store.get(&blob).await?.bytes().await };
    let hit = async {
        let began = Instant::now();
        store.head(&blob).await.map(|_| began.elapsed())
    };
    // `join` polls its first argument first, so the slow call begins before the hit.
    let (content, took) = join(content, hit).await;
    content?;
    println!("  {:>8.1?}  {order}", took?);
    Ok(())
}

/// A store that is slow, as S3 is.
fn slow() -> ThrottledStore<InMemory> {
    let config = ThrottleConfig {
        wait_get_per_call: Duration::from_millis(50),
        ..ThrottleConfig::default()
    };
    ThrottledStore::new(InMemory::new(), config)
}

fn blob() -> Result<Path, Box<dyn Error>> {
    let digest = format!("sha256:{}", "ab".repeat(32)).parse()?;
    Ok(Distribution::default()
        .blob_path(&digest)
        .ok_or("no path")?)
}
