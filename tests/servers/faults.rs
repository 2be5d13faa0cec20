//! Tests nodes that die, a Redis that loses data, is full or evicts, and a network that works one
//! way only. No node answers anything stale, and afterwards all nodes work again.

use test_support as support;

use futures::future::join_all;
use layercache::layout::{Distribution, Layout};
use layercache::{
    CacheStatus, CachedStore, Digest, Freshness, Repository, RepositoryName, StoreBackend,
};
use reqwest::Client;
use std::time::{Duration, Instant};
use support::bucket::Bucket;
use support::history::cluster::{Cluster, TRUST};
use support::history::flaky::Flaky;
use support::history::record::{History, Outcome};
use support::history::report::judge;
use support::history::traffic::{Load, Traffic};
use support::image::sha256;
use support::proxy::Line;
use support::redis::Redis;
use support::registry::Registry;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// The longest time that a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// Two nodes of the example on one Redis and one bucket, and a blob that both have in memory.
struct World {
    nodes: [Registry; 2],
    redis: Redis,
    bucket: Bucket,
    client: Client,
    digest: String,
}

impl World {
    async fn start() -> Self {
        let (redis, bucket) = (Redis::start().await, Bucket::start().await);
        let (url, env) = (redis.url(), bucket.env());
        let args = [
            "--storage",
            Bucket::STORAGE,
            "--redis",
            &url,
            "--redis-timeout",
            "2s",
        ];
        let world = Self {
            nodes: [
                Registry::start(&args, &env).await,
                Registry::start(&args, &env).await,
            ],
            redis,
            bucket,
            client: Client::new(),
            digest: sha256(b"content"),
        };
        let hex = world.digest.strip_prefix("sha256:").unwrap();
        let data = format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]);
        world.bucket.put(&data, "content");
        world.put_link();
        for node in 0..2 {
            world.is_cached_again(node).await;
        }
        world
    }

    fn link(&self) -> String {
        let hex = self.digest.strip_prefix("sha256:").unwrap();
        format!("docker/registry/v2/repositories/a/b/_layers/sha256/{hex}/link")
    }

    fn put_link(&self) {
        self.bucket.put(&self.link(), self.digest.clone());
    }

    fn url(&self, node: usize) -> String {
        format!("{}/v2/a/b/blobs/{}", self.nodes[node].url(), self.digest)
    }

    async fn head(&self, node: usize) -> (u16, String) {
        let answer = self.client.head(self.url(node)).send().await.unwrap();
        let by = answer.headers()["cache-status"].to_str().unwrap();
        (answer.status().as_u16(), by.to_owned())
    }

    async fn is_cached_again(&self, node: usize) {
        let end = Instant::now() + PATIENCE;
        loop {
            let (status, by) = self.head(node).await;
            if status == 200 && by.ends_with("memory") {
                return;
            }
            assert!(
                Instant::now() < end,
                "never answered from memory: {status} {by}"
            );
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Starts a delete through the first node, and waits until it has reached the bucket.
    async fn delete_under_way(&self) -> JoinHandle<reqwest::Result<u16>> {
        self.bucket.hold_deletes(true);
        let request = self.client.delete(self.url(0));
        let delete = tokio::spawn(async move { Ok(request.send().await?.status().as_u16()) });
        let arrived = timeout(PATIENCE, self.bucket.deletes(1)).await;
        arrived.expect("the delete has reached the bucket");
        delete
    }

    fn fences(&self) -> Vec<String> {
        let keys = self.redis.cli(&["KEYS", "fence::*"]);
        keys.lines().map(str::to_owned).collect()
    }

    /// Returns the remaining TTL of the only fence, in milliseconds.
    fn fence(&self) -> i64 {
        let [fence] = &self.fences()[..] else {
            panic!("no fence, or many: {:?}", self.fences());
        };
        self.redis.cli(&["PTTL", fence]).parse().unwrap()
    }
}

/// Whether or not the node's delete still happens, the removed entry stays out of Redis until the
/// fence expires.
#[tokio::test]
async fn a_node_killed_during_a_delete_leaves_nothing_stale() {
    for happens in [true, false] {
        let mut world = World::start().await;
        let delete = world.delete_under_way().await;
        // The node has removed the entry before the bucket answers.
        let set = "repository::a/b::blobs";
        assert_eq!(world.redis.cli(&["SCARD", set]), "0");
        if happens {
            world.bucket.remove(&world.link());
        }
        world.nodes[0].server().kill();
        assert!(delete.await.unwrap().is_err(), "the client got an answer");

        let end = Instant::now() + Duration::from_secs(3);
        while Instant::now() < end {
            let (status, by) = world.head(1).await;
            assert_eq!(status, if happens { 404 } else { 200 }, "{by}");
            sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(
            world.redis.cli(&["SCARD", set]),
            "0",
            "filled behind a fence"
        );
        let left = world.fence();
        assert!(left > 0, "the fence expires by itself");
        sleep(Duration::from_millis(50)).await;
        assert!(world.fence() < left, "the fence is not renewed");

        world.put_link();
        // The fence would last half a minute. The test shortens the rest.
        world.redis.cli(&["PEXPIRE", &world.fences()[0], "300"]);
        world.is_cached_again(1).await;
        assert_eq!(world.fences(), Vec::<String>::new());
    }
}

/// The fence of a delete is lost. Another node reads before the delete happens, and fills the
/// cache.
#[tokio::test]
async fn a_redis_restarted_empty_during_a_delete_restores_nothing() {
    let mut world = World::start().await;
    let delete = world.delete_under_way().await;
    world.redis.kill();
    world.redis.restart_on_same_port().await;
    world.is_cached_again(1).await;
    world.bucket.hold_deletes(false);
    let status = timeout(PATIENCE, delete).await.unwrap().unwrap().unwrap();
    assert_eq!(status, 202);
    for node in [1, 0] {
        assert_eq!(world.head(node).await.0, 404);
    }
}

fn name() -> RepositoryName {
    "library/alpine".parse().unwrap()
}

fn digest(i: u32) -> Digest {
    let mut hash = [9; 32];
    hash[..4].copy_from_slice(&i.to_be_bytes());
    Digest::Sha256(hash)
}

type Node = CachedStore<Flaky>;

fn layers(node: &Node) -> Repository<StoreBackend> {
    node.registry().repository(name())
}

async fn contains(node: &Node, digest: &Digest) -> (bool, CacheStatus) {
    let answer = layers(node).contains(digest, Freshness::Cached).await;
    let answer = answer.unwrap();
    (answer.value, answer.status)
}

async fn until_in_memory(node: &Node, digest: &Digest) {
    let end = Instant::now() + PATIENCE;
    while contains(node, digest).await != (true, CacheStatus::Memory) {
        assert!(Instant::now() < end, "never answered from memory");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until a change no longer waits for the trust of other nodes to end.
async fn until_settled(cluster: &Cluster) {
    let end = Instant::now() + PATIENCE;
    for node in &cluster.nodes {
        loop {
            let begin = Instant::now();
            let changed = layers(node).unlink(&digest(u32::MAX)).await;
            if changed.is_ok() && begin.elapsed() < TRUST / 2 {
                break;
            }
            assert!(Instant::now() < end, "changes stay slow: {changed:?}");
            sleep(TRUST / 10).await;
        }
    }
}

#[tokio::test]
async fn a_full_redis_accepts_puts_and_deletes() {
    let cluster = Cluster::start(2, Flaky::new(1, 0), Redis::start().await).await;
    let [first, second] = &cluster.nodes[..] else {
        unreachable!()
    };
    layers(first).link(&digest(1)).await.unwrap();
    for node in [first, second] {
        until_in_memory(node, &digest(1)).await;
    }
    until_settled(&cluster).await;
    let policy = ["CONFIG", "SET", "maxmemory-policy", "noeviction"];
    cluster.redis.cli(&policy);
    cluster.redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    // Longer than trust lasts, so a full Redis must accept heartbeats too.
    sleep(TRUST * 2).await;
    assert_eq!(
        contains(second, &digest(1)).await,
        (true, CacheStatus::Memory)
    );
    for i in 1..20 {
        layers(first).unlink(&digest(i)).await.unwrap();
        assert!(!contains(second, &digest(i)).await.0);
        layers(second).link(&digest(i)).await.unwrap();
        assert!(contains(first, &digest(i)).await.0);
    }
}

/// The node receives nothing any more, but Redis receives everything that it sends.
#[tokio::test]
async fn a_node_without_messages_loses_trust_before_a_delete_returns() {
    let cluster = Cluster::start(2, Flaky::new(1, 0), Redis::start().await).await;
    let [first, second] = &cluster.nodes[..] else {
        unreachable!()
    };
    layers(first).link(&digest(1)).await.unwrap();
    for round in 0..5 {
        until_in_memory(second, &digest(1)).await;
        until_settled(&cluster).await;
        until_in_memory(second, &digest(1)).await;
        cluster.proxies[1].set(Line::Flow, Line::Hold);
        let begin = Instant::now();
        layers(first).unlink(&digest(1)).await.unwrap();
        let waited = begin.elapsed();
        let (found, by) = contains(second, &digest(1)).await;
        assert!(!found, "round {round}: {by:?} after {waited:?}");
        assert!(
            waited > TRUST,
            "{waited:?}: the node may still have trusted its memory"
        );
        assert!(waited < TRUST * 3, "{waited:?}");
        cluster.proxies[1].restore();
        let end = Instant::now() + PATIENCE;
        // A creation would succeed without Redis, so this waits for a removal.
        while layers(second).unlink(&digest(1)).await.is_err() {
            assert!(Instant::now() < end, "the cluster has not recovered");
            sleep(TRUST / 10).await;
        }
        layers(second).link(&digest(1)).await.unwrap();
    }
}

/// The network may fail after any step of a connection attempt. The node gives up that attempt and
/// connects anew.
#[tokio::test]
async fn a_network_failure_on_an_open_connection_is_detected() {
    let cluster = Cluster::start(12, Flaky::new(1, 0), Redis::start().await).await;
    until_settled(&cluster).await;
    let late = Line::Delay(Duration::from_millis(5), Duration::from_millis(6));
    let nodes = cluster.nodes.iter().zip(&cluster.proxies).zip(1..);
    let recoveries = nodes.map(async |((node, proxy), i)| {
        proxy.set(Line::Flow, late);
        proxy.reset();
        sleep(Duration::from_millis(2)).await;
        let connects = tokio::spawn({
            let node = node.clone();
            async move { contains(&node, &digest(1)).await }
        });
        sleep(Duration::from_millis(4) * i).await;
        proxy.set(Line::Flow, Line::Swallow);
        connects.await.unwrap();
        proxy.restore();
        let recovers = async {
            while layers(node).unlink(&digest(i)).await.is_err() {
                sleep(TRUST / 10).await;
            }
        };
        let recovered = timeout(PATIENCE / 2, recovers).await;
        recovered.unwrap_or_else(|_| panic!("node {i} has not recovered"));
    });
    join_all(recoveries).await;
}

/// The key that says whose data it is gets evicted first, because only a connecting node reads it.
#[tokio::test]
async fn an_old_dump_without_its_server_identity_is_purged() {
    for evicted in [
        &["layercache::{nodes}::servers"][..],
        &["layercache::{nodes}::servers", "layercache::{nodes}"],
    ] {
        let mut cluster = Cluster::start(2, Flaky::new(1, 0), Redis::start().await).await;
        layers(&cluster.nodes[0]).link(&digest(1)).await.unwrap();
        until_in_memory(&cluster.nodes[1], &digest(1)).await;
        until_settled(&cluster).await;
        cluster.redis.cli(&["SAVE"]);
        let unlinked = layers(&cluster.nodes[0]).unlink(&digest(1)).await;
        unlinked.unwrap();
        for proxy in &cluster.proxies {
            proxy.refuse(true);
        }
        cluster.redis.kill();
        cluster.redis.restart_on_same_port().await;
        cluster.redis.cli(&[&["DEL"], evicted].concat());
        let set = "repository::library/alpine::blobs";
        assert_eq!(cluster.redis.cli(&["EXISTS", set]), "1", "the dump has it");
        for proxy in &cluster.proxies {
            proxy.restore();
        }
        let end = Instant::now() + TRUST * 8;
        while Instant::now() < end {
            for node in &cluster.nodes {
                let (found, by) = contains(node, &digest(1)).await;
                assert!(!found, "from {by:?}, without {evicted:?}");
            }
            sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(cluster.redis.cli(&["EXISTS", set]), "0", "the set exists");
    }
}

/// A small Redis with an eviction policy for caches also evicts leases and fences.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn evicted_leases_and_fences_cause_no_stale_answer() {
    const TIME: Duration = Duration::from_secs(12);
    let args = ["--maxmemory", "3mb", "--maxmemory-policy", "allkeys-lru"];
    let redis = Redis::start_with(&args).await;
    let store = Flaky::new(1, 200);
    let cluster = Cluster::start(3, store.clone(), redis).await;
    let history = History::default();
    let load = Load {
        blobs: 3,
        readers: 4,
        changers: 2,
        has_quiet: false,
    };
    let traffic = Traffic::start(&cluster.nodes, &cluster.store, &history, 1, load).await;
    let end = Instant::now() + TIME;
    let floods: Vec<_> = (0..6u32)
        .map(|flood| tokio::spawn(fill(cluster.nodes[flood as usize % 3].clone(), flood, end)))
        .collect();
    let mut filled = 0;
    for flood in floods {
        filled += flood.await.unwrap();
    }
    traffic.wait_until_well().await;
    traffic.stop().await;
    let stats = cluster.redis.cli(&["INFO", "stats"]);
    let evicted = stats
        .lines()
        .find_map(|line| line.strip_prefix("evicted_keys:"));
    let evicted: usize = evicted.unwrap().trim().parse().unwrap();
    let records = history.take();
    println!("{filled} fills, {evicted} evicted");
    judge("a small Redis", &records);
    assert!(evicted >= 1000, "only {evicted} evicted, {filled} filled");
    let deletes = records.changes.iter();
    let deletes = deletes.filter(|change| change.outcome == Outcome::Done && !change.present);
    assert!(deletes.count() >= 100);
}

/// Asks for new blobs all the time, each of which exists, and returns their number.
async fn fill(node: Node, flood: u32, end: Instant) -> u32 {
    let (layout, store) = (Distribution::default(), node.get_ref());
    let mut count = 0;
    while Instant::now() < end {
        let digest = digest(flood * 1_000_000 + count);
        let path = layout.blob_path(&digest).unwrap();
        store.put_now(&path, "content").await;
        let stat = node.registry().blobs();
        // The store may fail here.
        let _ = stat.stat(&digest, Freshness::Cached).await;
        count += 1;
    }
    count
}
