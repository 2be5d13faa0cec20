//! How to put a cache of blob metadata in front of an S3 bucket. With `REDIS_URL` two nodes share
//! the cache.
//!
//! ```sh
//! export AWS_BUCKET=registry AWS_REGION=us-east-1 AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=…
//! export AWS_ENDPOINT=http://127.0.0.1:9000 AWS_ALLOW_HTTP=true   # for MinIO and similar servers
//! export REDIS_URL=redis://127.0.0.1                              # optional
//! cargo run --release --example wrap_s3
//! ```
//!
//! It writes one small object below `layercache-example/` and deletes it at the end.

use layercache::layout::{Distribution, Layout};
use layercache::{CacheStatus, CachedStore, Digest, RedisConfig};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{GetOptions, ObjectStore, ObjectStoreExt};
use sha2::Sha256;
use std::env;
use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio::time::sleep;

type Store = CachedStore<PrefixStore<AmazonS3>>;

/// The variables that must be set.
const NEEDED: [&str; 3] = ["AWS_BUCKET", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let missing: Vec<_> = NEEDED
        .into_iter()
        .filter(|name| env::var_os(name).is_none())
        .collect();
    if !missing.is_empty() {
        eprintln!("set {} first", missing.join(", "));
        eprintln!("for MinIO also AWS_ENDPOINT=http://127.0.0.1:9000 and AWS_ALLOW_HTTP=true");
        eprintln!("a Redis between two nodes is optional: REDIS_URL=redis://127.0.0.1");
        return Ok(ExitCode::FAILURE);
    }
    run().await?;
    Ok(ExitCode::SUCCESS)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let redis = env::var("REDIS_URL").ok();
    let node = open(redis.as_deref())?;
    println!("{node}");

    let content = "a layer";
    let digest = Digest::Sha256(<Sha256 as sha2::Digest>::digest(content).into());
    let path = Distribution::default()
        .blob_path(&digest)
        .ok_or("no path")?;
    node.put(&path, content.into()).await?;

    println!("\nhead of {path}");
    for _ in 0..3 {
        head("this node", &node, &path).await?;
    }
    let Some(redis) = redis else {
        node.delete(&path).await?;
        return Ok(());
    };

    // A second node. In production it is another process on another machine.
    let other = open(Some(&redis))?;
    // Until it is connected and has received its own heartbeat, it neither asks Redis nor answers
    // from its memory.
    sleep(Duration::from_millis(500)).await;
    for _ in 0..3 {
        head("another node", &other, &path).await?;
    }

    // When this returns, no node answers with the deleted object.
    node.delete(&path).await?;
    let is_gone = matches!(
        other.head(&path).await,
        Err(object_store::Error::NotFound { .. })
    );
    println!("\ndeleted by this node, gone on the other: {is_gone}");

    // After this, changes of other nodes do not wait for these two nodes.
    node.shutdown().await;
    other.shutdown().await;
    Ok(())
}

/// Opens the bucket that the environment names, below a prefix, with a cache in memory. With
/// `redis` the cache has Redis as its second tier.
fn open(redis: Option<&str>) -> Result<Store, Box<dyn Error>> {
    let s3 = AmazonS3Builder::from_env().build()?;
    let mut builder = CachedStore::builder(PrefixStore::new(s3, "layercache-example"));
    if let Some(url) = redis {
        builder = builder.redis(RedisConfig::new(url).with_prefix("layercache-example:"));
    }
    Ok(builder.build()?)
}

/// Asks for a blob, and prints which tier answered.
async fn head(who: &str, store: &Store, path: &Path) -> Result<(), Box<dyn Error>> {
    let began = Instant::now();
    let result = store
        .get_opts(path, GetOptions::new().with_head(true))
        .await?;
    let took = began.elapsed();
    let status = result.extensions.get::<CacheStatus>().ok_or("no status")?;
    println!(
        "  {who:12}  {} bytes in {took:8.1?}, says {status:?}",
        result.meta.size
    );
    Ok(())
}
