//! Makes nodes in this process that share a Redis and a store.

use super::recording::Recording;
use super::redis::Redis;
use layercache::layout::{Distribution, Layout};
use layercache::{
    CacheStatus, CachedStore, Digest, Freshness, Link, RedisConfig, Repository, RepositoryName,
    StoreBackend,
};
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use std::time::{Duration, Instant};

pub type Bare = Recording<ThrottledStore<InMemory>>;
pub type Node = CachedStore<Bare>;

/// A node's answer: the length of a blob that is in the repository, and the tier that answered.
pub type Found = (Option<u64>, CacheStatus);

/// How long the nodes trust their memory. It is shorter than the default, so that tests end soon.
pub const TRUST: Duration = Duration::from_millis(600);

/// Longer than trust lasts. Nodes that have been connected for this long know each other.
pub const SETTLED: Duration = Duration::from_millis(900);

/// The longest time that a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The length of every blob in these tests.
pub const LENGTH: u64 = 7;

/// The key of the set of the repository's layers.
pub const SET: &str = "repository::library/alpine::blobs";

pub fn bare(latency: Duration) -> Bare {
    let config = ThrottleConfig {
        wait_get_per_call: latency,
        ..Default::default()
    };
    Recording::new(ThrottledStore::new(InMemory::new(), config))
}

/// Returns a configuration for a busy machine, because these tests do not test the deadline.
pub fn config(redis: &Redis) -> RedisConfig {
    config_at(redis.url())
}

/// Returns the configuration of [`config`] for any address.
pub fn config_at(url: impl Into<String>) -> RedisConfig {
    let config = RedisConfig::new(url).with_trust_timeout(TRUST);
    config.with_timeout(Duration::from_secs(5))
}

pub fn node(bare: &Bare, redis: &Redis) -> Node {
    node_with(bare, config(redis))
}

pub fn node_with(bare: &Bare, config: RedisConfig) -> Node {
    let builder = CachedStore::builder(bare.clone());
    builder.redis(config).build().unwrap()
}

pub fn name() -> RepositoryName {
    "library/alpine".parse().unwrap()
}

pub fn layers(node: &Node) -> Repository<StoreBackend> {
    node.registry().repository(name())
}

pub fn digest(i: u32) -> Digest {
    let mut hash = [7; 32];
    hash[..4].copy_from_slice(&i.to_be_bytes());
    Digest::Sha256(hash)
}

pub fn blob_path(digest: &Digest) -> Path {
    Distribution::default().blob_path(digest).unwrap()
}

/// Returns the path of a layer's link in the repository.
pub fn link_path(digest: &Digest) -> Path {
    let link = Link::layer(name(), *digest);
    Distribution::default().link_path(&link).unwrap()
}

/// Returns the key of a blob's hash.
pub fn hash(digest: &Digest) -> String {
    format!("blobs::{digest}")
}

/// Returns the key of a membership's lease or fence; `what` is `lease` or `fence`.
pub fn beside(what: &str, digest: &Digest) -> String {
    format!("{what}::{{{SET}}}::{digest}")
}

/// Puts a blob and its link into the store, without telling any node.
pub async fn put(bare: &Bare, digest: &Digest) {
    let store = CachedStore::new(bare.clone());
    store
        .put(&blob_path(digest), "content".into())
        .await
        .unwrap();
    layers(&store).link(digest).await.unwrap();
}

pub async fn stat(node: &Node, digest: &Digest) -> Found {
    let answer = layers(node).stat(digest, Freshness::Cached).await.unwrap();
    (answer.value.map(|meta| meta.length()), answer.status)
}

/// Asks a node again and again until it gives this answer, because a fill runs after its answer.
///
/// # Panics
/// If that takes too long.
pub async fn until(node: &Node, digest: &Digest, expected: Found) {
    let end = Instant::now() + PATIENCE;
    loop {
        let answer = stat(node, digest).await;
        if answer == expected {
            return;
        }
        assert!(Instant::now() < end, "{answer:?}, never {expected:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub async fn until_in_memory(node: &Node, digest: &Digest) {
    until(node, digest, (Some(LENGTH), CacheStatus::Memory)).await;
}

/// Waits until a node makes changes again.
///
/// # Panics
/// If that takes too long.
pub async fn eventually_changes(node: &Node) {
    let end = Instant::now() + PATIENCE;
    while let Err(error) = layers(node).unlink(&digest(u32::MAX)).await {
        assert!(Instant::now() < end, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A dump of a Redis that knows a link. A test cannot tell from the link whether a server has
/// loaded the dump, because a node may have connected first and purged the link. So the dump holds
/// a key of its own.
pub struct Dump;

impl Dump {
    const KEY: &str = "dump-marker";

    /// # Panics
    /// If the server does not come to know a link.
    pub async fn save(redis: &Redis) -> Self {
        eventually("a link to dump", || redis.cli(&["SCARD", SET]) == "1").await;
        redis.cli(&["SET", Self::KEY, ""]);
        redis.cli(&["SAVE"]);
        redis.cli(&["DEL", Self::KEY]);
        Self
    }

    /// # Panics
    /// If the server has not loaded the dump.
    pub fn is_back(&self, redis: &Redis) {
        assert_eq!(redis.cli(&["EXISTS", Self::KEY]), "1");
    }
}

/// Adds a node to the peer set that was seen just now and will never answer.
pub fn add_silent_node(redis: &Redis) {
    let time = redis.cli(&["TIME"]);
    let mut time = time.lines().map(|part| part.parse::<u64>().unwrap());
    let millis = time.next().unwrap() * 1000 + time.next().unwrap() / 1000;
    let node = format!("12345:{}", TRUST.as_millis());
    redis.cli(&["ZADD", "layercache::{nodes}", &millis.to_string(), &node]);
}

/// Waits until a background effect shows.
///
/// # Panics
/// If it takes too long.
pub async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
