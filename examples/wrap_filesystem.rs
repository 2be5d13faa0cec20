//! How to put a cache of blob metadata in front of a folder.
//!
//! ```sh
//! cargo run --release --example wrap_filesystem            # in a folder that is deleted afterwards
//! cargo run --release --example wrap_filesystem -- FOLDER  # in a folder that stays
//! ```

use layercache::layout::{Distribution, Layout};
use layercache::{CacheStatus, CachedStore, Digest, Freshness};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{GetOptions, ObjectStore, ObjectStoreExt};
use sha2::Sha256;
use std::error::Error;
use std::time::Instant;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let temporary = tempfile::tempdir()?;
    let folder = std::env::args_os().nth(1);
    let folder = folder.unwrap_or_else(|| temporary.path().into());
    std::fs::create_dir_all(&folder)?;

    // This line is all that the cache needs.
    let store = CachedStore::new(LocalFileSystem::new_with_prefix(folder)?);
    println!("{store}");

    // Use it as any other `object_store`. The path of a blob is the one that docker/distribution
    // gives it.
    let content = "a layer";
    let digest = Digest::Sha256(<Sha256 as sha2::Digest>::digest(content).into());
    let path = Distribution::default()
        .blob_path(&digest)
        .ok_or("no path")?;
    store.put(&path, content.into()).await?;

    println!("\nhead of {path}");
    for _ in 0..3 {
        head(&store, &path).await?;
    }

    // The typed API uses the same cache. It also answers who may read a blob, which is a separate
    // question.
    println!("\nis it in library/alpine?");
    let repository = store.registry().repository("library/alpine".parse()?);
    for linked in [false, true] {
        if linked {
            repository.link(&digest).await?;
        }
        let answer = repository.stat(&digest, Freshness::Cached).await?;
        let length = answer.map(|meta| meta.map(|meta| meta.length()));
        println!(
            "  linked: {linked:5}  {:?}, says {:?}",
            length.value, length.status
        );
    }

    // A deleted object is not found any more, even if the cache had it.
    store.delete(&path).await?;
    println!("\nafter the delete");
    match store.head(&path).await {
        Err(object_store::Error::NotFound { .. }) => println!("  head: not found"),
        other => return Err(format!("it is still there: {other:?}").into()),
    }
    Ok(())
}

/// Asks for a blob, and prints which tier answered.
async fn head(store: &dyn ObjectStore, path: &Path) -> Result<(), Box<dyn Error>> {
    let began = Instant::now();
    let result = store
        .get_opts(path, GetOptions::new().with_head(true))
        .await?;
    let took = began.elapsed();
    let status = result.extensions.get::<CacheStatus>().ok_or("no status")?;
    println!(
        "  {} bytes in {took:8.1?}, says {status:?}",
        result.meta.size
    );
    Ok(())
}
