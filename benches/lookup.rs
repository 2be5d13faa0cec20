//! What a memory hit costs, beside one `get` of a bare moka cache. Compare the rows of one run.

use divan::{Bencher, black_box};
use futures::FutureExt;
use layercache::layout::{Distribution, Layout};
use layercache::{CacheStatus, CachedStore, Digest, Freshness, LayerMeta};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{GetOptions, ObjectStore, ObjectStoreExt};
use std::sync::Arc;
use tokio::runtime::{Builder, Runtime};

const BLOBS: u16 = 10_000;

fn main() {
    divan::main();
}

fn digest(i: u16) -> Digest {
    let mut hash = [0; 32];
    hash[..2].copy_from_slice(&i.to_le_bytes());
    hash[2..4].copy_from_slice(&i.wrapping_mul(40_503).to_le_bytes());
    Digest::Sha256(hash)
}

fn blob_path(digest: &Digest) -> Path {
    Distribution::default().blob_path(digest).expect("a path")
}

/// A store whose every blob is in memory.
fn warm_store() -> (Runtime, Arc<CachedStore<InMemory>>) {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let store = Arc::new(CachedStore::new(InMemory::new()));
    runtime.block_on(async {
        let repository = store.registry().repository("a/b".parse().expect("a name"));
        for i in 0..BLOBS {
            let path = blob_path(&digest(i));
            store.put(&path, "content".into()).await.expect("a put");
            repository.link(&digest(i)).await.expect("a link");
        }
        // Only now: each of these changes may have taken another blob's stripe along.
        for i in 0..BLOBS {
            let stat = async || repository.stat(&digest(i), Freshness::Cached).await;
            while stat().await.expect("a stat").status != CacheStatus::Memory {
                tokio::task::yield_now().await;
            }
        }
    });
    (runtime, store)
}

/// The yardstick.
#[divan::bench(sample_size = 1000)]
fn moka_get(bencher: Bencher<'_, '_>) {
    let cache = moka::sync::Cache::new(u64::from(BLOBS) * 2);
    for i in 0..BLOBS {
        let meta = LayerMeta::new(blob_path(&digest(i)).as_ref(), 7).expect("a meta");
        cache.insert(digest(i), meta);
    }
    let mut i = 0;
    bencher.bench_local(|| {
        i = (i + 7919) % BLOBS;
        black_box(cache.get(&digest(i)))
    });
}

#[divan::bench(sample_size = 1000)]
fn stat(bencher: Bencher<'_, '_>) {
    let (_runtime, store) = warm_store();
    let repository = store.registry().repository("a/b".parse().expect("a name"));
    let mut i = 0;
    bencher.bench_local(|| {
        i = (i + 7919) % BLOBS;
        let digest = digest(i);
        black_box(repository.stat(&digest, Freshness::Cached).now_or_never())
    });
}

#[divan::bench(sample_size = 1000)]
fn head(bencher: Bencher<'_, '_>) {
    let (_runtime, store) = warm_store();
    let store: Arc<dyn ObjectStore> = store;
    let paths: Vec<_> = (0..BLOBS).map(|i| blob_path(&digest(i))).collect();
    let mut i = 0;
    bencher.bench_local(|| {
        i = (i + 7919) % BLOBS;
        let options = GetOptions::new().with_head(true);
        let result = store
            .get_opts(&paths[usize::from(i)], options)
            .now_or_never();
        black_box(result.is_some())
    });
}
