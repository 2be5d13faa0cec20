//! Tests warming: it fills the tiers from lists, and never with deleted objects.

mod changes;
mod layouts;
mod memory;
mod redis;

use test_support as support;

use layercache::layout::{Distribution, Layout};
use layercache::{CacheStatus, CachedStore, Digest, Freshness, Link, RepositoryName};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use support::nodes::{digest, name};
use support::recording::Recording;

/// The paths of the blobs and of the repositories' links.
const BLOBS: &str = "docker/registry/v2/blobs";

/// The content of each blob, whatever its digest.
const CONTENT: &str = "content";

fn blob(digest: &Digest) -> Path {
    Distribution::default().blob_path(digest).unwrap()
}

fn link(repository: &RepositoryName, digest: &Digest) -> Path {
    let link = Link::layer(repository.clone(), *digest);
    Distribution::default().link_path(&link).unwrap()
}

/// Puts this many blobs, without links.
async fn put_blobs(store: &impl ObjectStore, count: u32) {
    for digest in (0..count).map(digest) {
        store.put(&blob(&digest), CONTENT.into()).await.unwrap();
    }
}

/// Puts the links of this many blobs into a repository.
async fn put_links(store: &impl ObjectStore, repository: &RepositoryName, count: u32) {
    for digest in (0..count).map(digest) {
        let path = link(repository, &digest);
        store.put(&path, digest.to_string().into()).await.unwrap();
    }
}

/// Checks that a tier answers for each blob, without a read of the store.
async fn knows_blobs<S: ObjectStore>(
    store: &CachedStore<Recording<S>>,
    count: u32,
    expected: CacheStatus,
) {
    let (reads, blobs) = (store.get_ref().reads(), store.registry().blobs());
    for digest in (0..count).map(digest) {
        let answer = blobs.stat(&digest, Freshness::Cached).await.unwrap();
        let meta = answer.value.unwrap();
        assert_eq!((meta.length(), answer.status), (7, expected), "{digest}");
    }
    assert_eq!(store.get_ref().reads(), reads);
}

/// Checks that a tier answers for both facts of each blob, in the repository of the links.
async fn knows_members<S: ObjectStore>(
    store: &CachedStore<Recording<S>>,
    count: u32,
    expected: CacheStatus,
) {
    let (reads, repository) = (store.get_ref().reads(), store.registry().repository(name()));
    for digest in (0..count).map(digest) {
        let answer = repository.stat(&digest, Freshness::Cached).await.unwrap();
        let length = answer.value.map(|meta| meta.length());
        assert_eq!((length, answer.status), (Some(7), expected), "{digest}");
    }
    assert_eq!(store.get_ref().reads(), reads);
}

/// Returns the length of a blob from the cache or the store, if the blob is there.
async fn length<S: ObjectStore>(store: &CachedStore<Recording<S>>, i: u32) -> Option<u64> {
    let answer = store
        .registry()
        .blobs()
        .stat(&digest(i), Freshness::Cached)
        .await;
    answer.unwrap().value.map(|meta| meta.length())
}

/// Returns whether a blob is a member, from the cache or the store.
async fn is_member<S: ObjectStore>(store: &CachedStore<Recording<S>>, i: u32) -> bool {
    let repository = store.registry().repository(name());
    let answer = repository.contains(&digest(i), Freshness::Cached).await;
    answer.unwrap().value
}
