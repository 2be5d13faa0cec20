//! Tests races between nodes, on a real Redis and through the public API. There is one test for
//! each known way in which a cache of two tiers answers with something outdated.
//!
//! | module | race |
//! |---|---|
//! | `fills` | a fill arrives after its value has changed |
//! | `changes` | a change is cancelled, overtaken by another change, or cannot be announced |
//! | `channel` | a message between nodes is lost, not understood, or meant for other nodes |
//! | `servers` | the server is no longer the primary, or is another server |
//! | `entries` | an entry lives too long, is incomplete, or is taken for another entry |

mod changes;
mod channel;
mod entries;
mod fills;
mod servers;
use test_support as support;

use layercache::{CacheStatus, RedisConfig};
use std::time::Duration;
use support::nodes::{
    Bare, Found, LENGTH, Node, bare, config, digest, eventually, node, put, stat, until_in_memory,
};
use support::redis::Redis;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

const MEMORY_HIT: Found = (Some(LENGTH), CacheStatus::Memory);
const REDIS_HIT: Found = (Some(LENGTH), CacheStatus::Redis);
const MISS: Found = (Some(LENGTH), CacheStatus::Miss);

/// Returns a Redis and a store with the blob and its link. Each node reaches the store through a
/// wrapper of its own.
async fn world<const N: usize>() -> (Redis, [Bare; N]) {
    let bare = bare(Duration::ZERO);
    put(&bare, &digest(1)).await;
    (Redis::start().await, std::array::from_fn(|_| bare.apart()))
}

/// Returns what [`world`] returns, with one node on each wrapper.
async fn nodes<const N: usize>() -> (Redis, [Bare; N], [Node; N]) {
    let (redis, stores) = world().await;
    let nodes = std::array::from_fn(|i| node(&stores[i], &redis));
    (redis, stores, nodes)
}

/// Returns a configuration whose leases and fences expire soon after their node dies.
fn short_lived(redis: &Redis) -> RedisConfig {
    let time = Duration::from_millis(1500);
    config(redis).with_lease_ttl(time).with_fence_ttl(time)
}

/// Returns a configuration whose leases outlast the test if they are not given back.
fn long_lived(redis: &Redis) -> RedisConfig {
    config(redis).with_lease_ttl(Duration::from_secs(60))
}

async fn all_know<'a>(nodes: impl IntoIterator<Item = &'a Node>) {
    for node in nodes {
        until_in_memory(node, &digest(1)).await;
    }
}

async fn no_node_knows<'a>(nodes: impl IntoIterator<Item = &'a Node>) {
    for (i, node) in nodes.into_iter().enumerate() {
        let (found, status) = stat(node, &digest(1)).await;
        assert_eq!(found, None, "node {i} got an answer from {status:?}");
    }
}

/// Starts a read and waits until it reaches the store, which holds its answer until
/// `store.hold(false)`. If this read follows another one, it starts after all fills of the other one.
async fn reading(store: &Bare, node: &Node) -> JoinHandle<Found> {
    let reads = store.reads();
    store.hold(true);
    let node = node.clone();
    let answer = tokio::spawn(async move { stat(&node, &digest(1)).await });
    eventually("no tier knows, and the read reaches the store", || {
        store.reads() == reads + 2
    })
    .await;
    answer
}

/// A runtime with one thread, for a node that the test kills. Its tasks stop wherever they are.
struct NodeRuntime(Option<Runtime>);

impl NodeRuntime {
    fn new() -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        Self(Some(runtime.unwrap()))
    }

    async fn run<T: Send + 'static>(&self, life: impl Future<Output = T> + Send + 'static) -> T {
        let runtime = self.0.as_ref().expect("alive");
        runtime.spawn(life).await.unwrap()
    }

    /// Ends the runtime, and waits until Redis has seen the end of the node's connection.
    async fn kill(self, redis: &Redis) {
        let nodes = || {
            redis
                .cli(&["CLIENT", "LIST", "TYPE", "pubsub"])
                .lines()
                .count()
        };
        let before = nodes();
        drop(self);
        eventually("Redis sees the end of the connection", || nodes() < before).await;
    }
}

impl Drop for NodeRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
