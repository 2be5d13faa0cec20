//! Makes a store whose memory knows all of its blobs.

use futures::FutureExt;
use layercache::layout::{Distribution, Layout};
use layercache::{CacheStatus, CachedStore, Digest, Freshness, Repository, StoreBackend};
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use tokio::runtime::{Builder, Runtime};

/// Returns a digest for each number.
pub(crate) fn digest(i: u32) -> Digest {
    Digest::Sha256(Sha256::digest(i.to_le_bytes()).into())
}

pub(crate) fn path(digest: &Digest) -> Path {
    Distribution::default().blob_path(digest).expect("a path")
}

pub(crate) fn repository(store: &CachedStore<InMemory>) -> Repository<StoreBackend> {
    store
        .registry()
        .repository("library/alpine".parse().expect("a name"))
}

/// Returns a store with this many blobs, and the runtime that it needs.
pub(crate) fn store(blobs: u32) -> (Runtime, Arc<CachedStore<InMemory>>) {
    store_beside(blobs, |_| ())
}

/// Does what [`store`] does, and calls `beside` for each blob as soon as memory knows it. What
/// `beside` allocates then has the same distances on the heap.
pub(crate) fn store_beside(
    blobs: u32,
    mut beside: impl FnMut(&Digest),
) -> (Runtime, Arc<CachedStore<InMemory>>) {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let store = runtime.block_on(async {
        let filled = CachedStore::new(InMemory::new());
        let links = repository(&filled);
        for digest in (0..blobs).map(digest) {
            let path = path(&digest);
            filled.put(&path, "content".into()).await.expect("a put");
            links.link(&digest).await.expect("a link");
        }
        // This node has made no changes, as most nodes have not.
        let store = Arc::new(CachedStore::new(filled.get_ref().fork()));
        let repository = repository(&store);
        for digest in (0..blobs).map(digest) {
            let is_known = || {
                let answer = repository.stat(&digest, Freshness::Cached).now_or_never();
                answer.is_some_and(|answer| answer.expect("a stat").status == CacheStatus::Memory)
            };
            while !is_known() {
                let _ = repository.stat(&digest, Freshness::Cached).await;
                tokio::task::yield_now().await;
            }
            beside(&digest);
        }
        store
    });
    (runtime, store)
}
