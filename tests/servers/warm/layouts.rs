//! Tests warming with other layouts, and from a folder, whose lists have no order.

use super::{CONTENT, knows_blobs, knows_members, put_blobs, put_links};
use layercache::layout::{Layout, OciImages, Template};
use layercache::{CacheStatus, CachedStore, Link, MemoryConfig};
use object_store::ObjectStoreExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use test_support::nodes::digest;
use test_support::recording::Recording;

#[tokio::test]
async fn a_local_folder_is_warmed_in_any_order() {
    let folder = tempfile::tempdir().unwrap();
    let bare = LocalFileSystem::new_with_prefix(folder.path()).unwrap();
    put_blobs(&bare, 1200).await;
    for repository in ["library/alpine", "library-a/b", "library"] {
        put_links(&bare, &repository.parse().unwrap(), 50).await;
    }
    let store = CachedStore::new(Recording::new(bare));
    let warmed = store.warm(None).await.unwrap();
    assert_eq!((warmed.seen, warmed.filled), (1350, 1350));
    assert_eq!(store.get_ref().lists(), 1);
    assert_eq!(store.get_ref().reads(), 150, "the links");
    knows_blobs(&store, 1200, CacheStatus::Memory).await;
    knows_members(&store, 50, CacheStatus::Memory).await;
}

#[tokio::test]
async fn warming_an_oci_layout_reads_no_content() {
    let layout = OciImages::default();
    let bare = Recording::new(InMemory::new());
    for repository in ["library/alpine", "team/app"] {
        for digest in (0..20).map(digest) {
            let link = Link::layer(repository.parse().unwrap(), digest);
            let path = layout.link_path(&link).unwrap();
            bare.put(&path, CONTENT.into()).await.unwrap();
        }
    }
    bare.put(&"library/alpine/index.json".into(), "{}".into())
        .await
        .unwrap();
    let store = CachedStore::builder(bare).layout(layout).build().unwrap();
    let warmed = store.warm(None).await.unwrap();
    assert_eq!((warmed.filled, warmed.skipped), (40, 1));
    assert_eq!(store.get_ref().reads(), 0);
    knows_members(&store, 20, CacheStatus::Memory).await;
}

#[tokio::test]
async fn a_flat_store_is_warmed() {
    let layout: Template = "oci-blobs/{digest}".parse().unwrap();
    let bare = Recording::new(InMemory::new());
    for digest in (0..20).map(digest) {
        let path = layout.blob_path(&digest).unwrap();
        bare.put(&path, CONTENT.into()).await.unwrap();
    }
    let memory = MemoryConfig::default();
    let builder = CachedStore::builder(bare.clone()).layout(layout.clone());
    let store = builder.memory(memory).build().unwrap();
    assert_eq!(store.warm(None).await.unwrap().filled, 20);
    knows_blobs(&store, 20, CacheStatus::Memory).await;
}
