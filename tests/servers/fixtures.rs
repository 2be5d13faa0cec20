//! Tests that the library understands what a real Go registry stored and cached (`fixtures/`).

use test_support as support;

use layercache::layout::{Distribution, Layout, Meaning};
use layercache::{
    Answer, CacheStatus, CachedStore, Digest, Freshness, LayerMeta, Link, LinkKind, RedisConfig,
    Repository, StoreBackend,
};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{GetOptions, GetResult, ObjectStore, ObjectStoreExt};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use support::image::sha256;
use support::redis::Redis;
use tempfile::TempDir;

/// A copy of the storage tree, so that a test cannot change the fixtures.
struct Tree {
    folder: TempDir,
    files: Vec<Path>,
}

impl Tree {
    fn copy() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut files = Vec::new();
        copy(&fixture("registry"), folder.path(), "", &mut files);
        Self { folder, files }
    }

    fn store(&self) -> LocalFileSystem {
        LocalFileSystem::new_with_prefix(self.folder.path()).unwrap()
    }

    /// Returns a store with an empty cache.
    fn cached(&self) -> CachedStore<LocalFileSystem> {
        CachedStore::new(self.store())
    }

    fn read(&self, path: &Path) -> Vec<u8> {
        fs::read(self.folder.path().join(path.as_ref())).unwrap()
    }

    fn blobs(&self) -> Vec<(&Path, Digest)> {
        let blob = |path| match Distribution::default().meaning(path)? {
            Meaning::Blob(digest) => Some((path, digest)),
            _ => None,
        };
        self.files.iter().filter_map(blob).collect()
    }

    fn links(&self) -> Vec<(&Path, Link)> {
        let link = |path| match Distribution::default().meaning(path)? {
            Meaning::Link(link) => Some((path, link)),
            _ => None,
        };
        self.files.iter().filter_map(link).collect()
    }

    /// Returns the paths without a meaning for the cache: the links of tags.
    fn others(&self) -> Vec<&Path> {
        let other = |path: &&Path| Distribution::default().meaning(path).is_none();
        self.files.iter().filter(other).collect()
    }

    /// Returns where a blob is and how long it is, from the files alone.
    fn blob(&self, digest: &Digest) -> (Path, u64) {
        let blobs = self.blobs();
        let (path, _) = blobs.iter().find(|(_, other)| other == digest).unwrap();
        ((*path).clone(), self.read(path).len() as u64)
    }
}

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures")).join(name)
}

fn copy(from: &std::path::Path, to: &std::path::Path, above: &str, files: &mut Vec<Path>) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        let path = format!("{above}{name}");
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(to.join(&name)).unwrap();
            copy(&entry.path(), &to.join(&name), &format!("{path}/"), files);
        } else {
            fs::copy(entry.path(), to.join(&name)).unwrap();
            files.push(Path::from(path));
        }
    }
}

fn repository<S: ObjectStore>(store: &CachedStore<S>, link: &Link) -> Repository<StoreBackend> {
    let repository = store.registry().repository(link.repository.clone());
    repository.of_kind(link.kind)
}

async fn stat<S: ObjectStore>(store: &CachedStore<S>, link: &Link) -> Answer<Option<LayerMeta>> {
    let repository = repository(store, link);
    let answer = repository.stat(&link.digest, Freshness::Cached).await;
    answer.unwrap()
}

fn status(result: &GetResult) -> CacheStatus {
    *result.extensions.get().expect("a status in every result")
}

#[test]
fn the_fixture_has_the_expected_objects() {
    let tree = Tree::copy();
    let (layers, manifests): (Vec<_>, Vec<_>) = tree
        .links()
        .into_iter()
        .partition(|(_, link)| link.kind == LinkKind::Layer);
    assert_eq!(tree.blobs().len(), 8, "four layers, two of all else");
    assert_eq!(layers.len(), 7, "one layer is in both repositories");
    assert_eq!(manifests.len(), 2);
    assert_eq!(tree.others().len(), 6, "three tags, two objects each");
    for (path, digest) in tree.blobs() {
        assert_eq!(sha256(&tree.read(path)), digest.to_string());
    }
}

#[tokio::test]
async fn every_blob_is_a_miss_and_then_a_memory_hit() {
    let tree = Tree::copy();
    let store = tree.cached();
    let blobs = store.registry().blobs();
    for (path, digest) in tree.blobs() {
        for status in [CacheStatus::Miss, CacheStatus::Memory] {
            let answer = blobs.stat(&digest, Freshness::Cached).await.unwrap();
            let meta = answer.value.expect("a blob that is there");
            assert_eq!(meta.path(), path.as_ref());
            assert_eq!(meta.length(), tree.read(path).len() as u64);
            assert_eq!(answer.status, status, "{path}");
        }
    }
}

#[tokio::test]
async fn every_link_is_a_membership_miss_and_then_a_memory_hit() {
    let tree = Tree::copy();
    for (path, link) in tree.links() {
        let store = tree.cached();
        let (blob, length) = tree.blob(&link.digest);
        for status in [CacheStatus::Miss, CacheStatus::Memory] {
            let stat = stat(&store, &link).await;
            let meta = stat.value.expect("a blob that is linked");
            assert_eq!((meta.path(), meta.length()), (blob.as_ref(), length));
            assert_eq!(stat.status, status, "{path}");
        }
        let repository = repository(&store, &link);
        let contains = repository.contains(&link.digest, Freshness::Cached).await;
        let contains = contains.unwrap();
        assert!(contains.value);
        assert_eq!(contains.status, CacheStatus::Memory);
    }
}

#[tokio::test]
async fn a_blob_is_no_member_of_a_repository_without_its_link() {
    let tree = Tree::copy();
    let store = tree.cached();
    let links: Vec<_> = tree.links().into_iter().map(|(_, link)| link).collect();
    // Every blob is cached, so only its membership can be missing.
    for (_, digest) in tree.blobs() {
        let blobs = store.registry().blobs();
        blobs.stat(&digest, Freshness::Cached).await.unwrap();
    }
    let mut absent = 0;
    for (_, digest) in tree.blobs() {
        for link in &links {
            let link = Link {
                digest,
                ..link.clone()
            };
            let linked = stat(&store, &link).await.value.is_some();
            assert_eq!(linked, links.contains(&link), "{link:?}");
            absent += usize::from(!linked);
        }
    }
    assert!(absent > 0);
}

#[tokio::test]
async fn a_head_equals_the_head_of_the_store() {
    let tree = Tree::copy();
    let (bare, store) = (tree.store(), tree.cached());
    for path in &tree.files {
        let known = Distribution::default().meaning(path).is_some();
        let expected = match known {
            true => [CacheStatus::Miss, CacheStatus::Memory],
            false => [CacheStatus::Bypass; 2],
        };
        for status_then in expected {
            let head = || GetOptions::new().with_head(true);
            let theirs = bare.get_opts(path, head()).await.unwrap();
            let ours = store.get_opts(path, head()).await.unwrap();
            assert_eq!(ours.meta, theirs.meta);
            assert_eq!(ours.attributes, theirs.attributes);
            assert_eq!(ours.range, 0..ours.meta.size);
            assert_eq!(status(&ours), status_then, "{path}");
        }
    }
}

#[tokio::test]
async fn content_equals_the_file() {
    let tree = Tree::copy();
    let store = tree.cached();
    for path in &tree.files {
        let read = async || {
            let result = store.get(path).await.unwrap();
            let status = status(&result);
            assert_eq!(result.bytes().await.unwrap(), tree.read(path), "{path}");
            status
        };
        let Some(Meaning::Link(_)) = Distribution::default().meaning(path) else {
            assert_eq!(read().await, CacheStatus::Bypass, "{path}");
            assert_eq!(read().await, CacheStatus::Bypass, "{path}");
            continue;
        };
        assert_eq!(read().await, CacheStatus::Miss, "{path}");
        // A task of its own caches what was read, soon after the answer.
        let remembered = async {
            while read().await != CacheStatus::Memory {
                tokio::task::yield_now().await;
            }
        };
        let soon = tokio::time::timeout(Duration::from_secs(5), remembered).await;
        soon.unwrap_or_else(|_| panic!("not remembered: {path}"));
    }
}

#[tokio::test]
async fn a_moved_tag_is_visible_at_once() {
    let tree = Tree::copy();
    let store = tree.cached();
    let tags = tree.others();
    assert!(!tags.is_empty());
    for path in tags {
        store.get(path).await.unwrap();
        let moved = format!("sha256:{}", "ab".repeat(32));
        fs::write(tree.folder.path().join(path.as_ref()), &moved).unwrap();
        let content = store.get(path).await.unwrap().bytes().await.unwrap();
        assert_eq!(content, moved, "{path}");
    }
}

/// Returns a node with a long Redis timeout, for a busy machine.
fn with_redis<S: ObjectStore>(store: S, redis: &Redis) -> CachedStore<S> {
    let config = RedisConfig::new(redis.url()).with_timeout(Duration::from_secs(5));
    CachedStore::builder(store).redis(config).build().unwrap()
}

/// Checks answers over an empty store, so that every positive answer comes from Redis.
async fn facts_of_a_go_registry_are_answered(redis: &Redis) {
    let tree = Tree::copy();
    let store = with_redis(InMemory::new(), redis);
    let (layers, manifests): (Vec<_>, Vec<_>) = tree
        .links()
        .into_iter()
        .partition(|(_, link)| link.kind == LinkKind::Layer);
    assert!(!layers.is_empty() && !manifests.is_empty());

    for (path, link) in &layers {
        let (blob, length) = tree.blob(&link.digest);
        let mut statuses = Vec::new();
        // Memory answers once the node has seen that the channel works.
        while statuses.last() != Some(&CacheStatus::Memory) {
            let stat = stat(&store, link).await;
            let meta = stat.value.expect("a layer that Redis knows");
            assert_eq!((meta.path(), meta.length()), (blob.as_ref(), length));
            statuses.push(stat.status);
            assert!(statuses.len() < 1000, "{path}: {statuses:?}");
        }
        let by_memory = statuses.pop();
        assert!(!statuses.is_empty() && by_memory == Some(CacheStatus::Memory));
        assert!(statuses.iter().all(|status| *status == CacheStatus::Redis));
    }
    // The Go registry caches hashes of manifests but not their memberships, so the node asks the
    // store for those.
    for (path, link) in &manifests {
        let key = format!("blobs::{}", link.digest);
        assert_eq!(redis.cli(&["EXISTS", &key]), "1");
        let stat = stat(&store, link).await;
        assert_eq!(
            (stat.value, stat.status),
            (None, CacheStatus::Miss),
            "{path}"
        );
    }
}

#[tokio::test]
async fn facts_from_a_command_dump_are_answered() {
    let redis = Redis::start().await;
    redis.load(&fixture("redis.txt"));
    facts_of_a_go_registry_are_answered(&redis).await;
}

#[tokio::test]
async fn facts_from_an_rdb_dump_are_answered() {
    let redis = Redis::start_from(&fixture("dump.rdb")).await;
    facts_of_a_go_registry_are_answered(&redis).await;
}

#[tokio::test]
async fn a_layer_is_not_served_to_another_repository() {
    let tree = Tree::copy();
    let redis = Redis::start().await;
    redis.load(&fixture("redis.txt"));
    let store = with_redis(tree.store(), &redis);
    let links: Vec<_> = tree.links().into_iter().map(|(_, link)| link).collect();
    let mut refused = 0;
    for link in links.iter().filter(|link| link.kind == LinkKind::Layer) {
        for name in ["library/tiny", "team/app"] {
            let link = Link::layer(name.parse().unwrap(), link.digest);
            let linked = stat(&store, &link).await.value.is_some();
            assert_eq!(linked, links.contains(&link), "{link:?}");
            refused += usize::from(!linked);
        }
    }
    assert_eq!(refused, 5, "every layer but the shared one");
}
