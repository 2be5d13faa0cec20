//! Tests three nodes of the example on one Redis and one folder, over HTTP.

use test_support as support;

use reqwest::Client;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::image::{content, sha256};
use support::redis::Redis;
use support::registry::Registry;
use support::server::Signal;
use tempfile::TempDir;

struct Cluster {
    nodes: Vec<Registry>,
    client: Client,
    _redis: Redis,
    _data: TempDir,
}

/// Longer than trust lasts. Nodes that have been connected for this long know each other.
const SETTLED: Duration = Duration::from_millis(2300);

async fn cluster() -> Cluster {
    cluster_of(3, true).await
}

async fn cluster_of(nodes: usize, with_redis: bool) -> Cluster {
    let (data, redis) = (tempfile::tempdir().unwrap(), Redis::start().await);
    let (storage, url) = (data.path().to_str().unwrap(), redis.url());
    let mut args = vec!["--storage", storage];
    if with_redis {
        args.extend(["--redis", &url, "--redis-timeout", "2s"]);
    }
    let start = (0..nodes).map(|_| Registry::start(&args, &[]));
    let nodes = futures::future::join_all(start).await;
    tokio::time::sleep(SETTLED).await;
    Cluster {
        nodes,
        client: Client::new(),
        _redis: redis,
        _data: data,
    }
}

impl Cluster {
    async fn push(&self, node: usize, seed: u64) -> String {
        let blob = content(seed, 1000);
        let digest = sha256(&blob);
        let url = format!(
            "{}/v2/a/b/blobs/uploads/?digest={digest}",
            self.nodes[node].url()
        );
        let answer = self.client.post(url).body(blob).send().await.unwrap();
        assert_eq!(answer.status(), 201);
        digest
    }

    fn blob(&self, node: usize, digest: &str) -> String {
        format!("{}/v2/a/b/blobs/{digest}", self.nodes[node].url())
    }

    async fn head(&self, node: usize, digest: &str) -> (u16, String) {
        head(&self.client, &self.blob(node, digest)).await
    }

    async fn warm(&self, node: usize, digest: &str) {
        let end = Instant::now() + Duration::from_secs(10);
        while !self.head(node, digest).await.1.ends_with("memory") {
            assert!(Instant::now() < end, "never answered from memory");
        }
    }

    async fn delete(&self, node: usize, digest: &str) {
        let answer = self.client.delete(self.blob(node, digest)).send().await;
        assert_eq!(answer.unwrap().status(), 202);
    }
}

async fn head(client: &Client, url: &str) -> (u16, String) {
    let answer = client.head(url).send().await.unwrap();
    let by = answer.headers()["cache-status"]
        .to_str()
        .unwrap()
        .to_owned();
    (answer.status().as_u16(), by)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_head_after_an_accepted_delete_finds_the_blob() {
    const DELETES: u64 = 40;
    let cluster = cluster().await;
    let checked = Arc::new(AtomicUsize::new(0));
    for seed in 0..DELETES {
        let deleter = seed as usize % 3;
        let digest = cluster.push(deleter, seed).await;
        let (is_deleted, is_over) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(false)),
        );
        let readers: Vec<_> = (0..6)
            .map(|i| {
                let (client, url) = (cluster.client.clone(), cluster.blob(i % 3, &digest));
                let (is_deleted, is_over) = (Arc::clone(&is_deleted), Arc::clone(&is_over));
                let checked = Arc::clone(&checked);
                tokio::spawn(async move {
                    while !is_over.load(Ordering::SeqCst) {
                        let after = is_deleted.load(Ordering::SeqCst);
                        let (status, by) = head(&client, &url).await;
                        if after {
                            assert_eq!(status, 404, "stale answer: {by}");
                            checked.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(30)).await;
        cluster.delete(deleter, &digest).await;
        is_deleted.store(true, Ordering::SeqCst);
        let (enough, end) = (
            10 * (seed as usize + 1),
            Instant::now() + Duration::from_secs(10),
        );
        while checked.load(Ordering::SeqCst) < enough
            && readers.iter().all(|reader| !reader.is_finished())
        {
            assert!(Instant::now() < end, "too few answers to check");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        is_over.store(true, Ordering::SeqCst);
        for reader in readers {
            reader.await.unwrap();
        }
    }
    assert!(checked.load(Ordering::SeqCst) >= 10 * DELETES as usize);
}

/// Prints what the other nodes' acknowledgements cost. The test passes if that is far below T.
#[tokio::test]
async fn a_delete_with_live_peers_takes_little_longer_than_alone() {
    const DELETES: u64 = 41;
    let cluster = cluster().await;
    let alone = cluster_of(1, false).await;
    let mut times = [Vec::new(), Vec::new()];
    for seed in 0..DELETES {
        for (cluster, times) in [&cluster, &alone].into_iter().zip(&mut times) {
            let digest = cluster.push(0, seed).await;
            let start = Instant::now();
            cluster.delete(0, &digest).await;
            times.push(start.elapsed());
        }
    }
    let [together, alone] = times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2]
    });
    println!(
        "a delete, median of {DELETES}: three nodes and Redis {together:?}, one alone {alone:?}"
    );
    assert!(together < alone + Duration::from_millis(200));
}

#[tokio::test]
async fn a_frozen_node_has_lost_its_trust_when_it_continues() {
    let mut cluster = cluster().await;
    let digest = cluster.push(0, 1).await;
    // The node that freezes comes last: on a busy machine it may lose its trust while the others
    // are warmed.
    for node in [0, 2, 1] {
        cluster.warm(node, &digest).await;
    }
    cluster.nodes[1].server().signal(Signal::Stop);
    let start = Instant::now();
    cluster.delete(0, &digest).await;
    let waited = start.elapsed();
    assert!(
        waited >= Duration::from_millis(1500),
        "{waited:?}: the node may still trust its memory"
    );
    assert!(waited < Duration::from_secs(4), "{waited:?}");
    cluster.nodes[1].server().signal(Signal::Cont);
    let (status, by) = cluster.head(1, &digest).await;
    assert_eq!(status, 404, "{by}");
}

#[tokio::test]
async fn a_killed_node_does_not_block_the_changes_of_others() {
    let mut cluster = cluster().await;
    let digest = cluster.push(0, 1).await;
    cluster.warm(2, &digest).await;
    cluster.nodes[1].server().kill();
    for seed in 2..5 {
        cluster.push(2, seed).await;
    }
    cluster.delete(0, &digest).await;
    assert_eq!(cluster.head(2, &digest).await.0, 404);
    // A change does not wait for the dead node any more.
    let start = Instant::now();
    cluster.push(2, 9).await;
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
}
