//! Races between nodes, on a real Redis and through the public API: one test for each way in which
//! a cache of two tiers is known to answer what is no longer so.
//!
//! | module | what overtakes what |
//! |---|---|
//! | `fills` | a fill arrives after what it says has changed |
//! | `changes` | a change is cut off, overtaken by another, or cannot be told |
//! | `channel` | what nodes tell each other is lost, not understood, or not meant for them |
//! | `servers` | the server is no primary any more, or another one |
//! | `entries` | what is kept lives too long, is torn, or is taken for something else |

mod changes;
mod channel;
mod entries;
mod fills;
mod servers;
use test_support as support;

use layercache::{CacheStatus, RedisConfig};
use std::time::Duration;
use support::nodes::{
    Bare, LENGTH, Node, Said, bare, config, digest, eventually, node, put, stat, until_in_memory,
};
use support::redis::Redis;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

const KNOWN: Said = (Some(LENGTH), CacheStatus::Memory);
const TOLD: Said = (Some(LENGTH), CacheStatus::Redis);
const READ: Said = (Some(LENGTH), CacheStatus::Miss);

/// The blob and its link, in a store that each node reaches in a way of its own.
async fn world<const N: usize>() -> (Redis, [Bare; N]) {
    let bare = bare(Duration::ZERO);
    put(&bare, &digest(1)).await;
    (Redis::start().await, std::array::from_fn(|_| bare.apart()))
}

/// The same, with a node on each way.
async fn nodes<const N: usize>() -> (Redis, [Bare; N], [Node; N]) {
    let (redis, ways) = world().await;
    let nodes = std::array::from_fn(|i| node(&ways[i], &redis));
    (redis, ways, nodes)
}

/// What a node that dies leaves behind lapses soon.
fn short_lived(redis: &Redis) -> RedisConfig {
    let time = Duration::from_millis(1500);
    config(redis).with_lease_ttl(time).with_fence_ttl(time)
}

/// What is not given back stays for as long as the test lasts.
fn long_lived(redis: &Redis) -> RedisConfig {
    config(redis).with_lease_ttl(Duration::from_secs(60))
}

async fn all_know<'a>(nodes: impl IntoIterator<Item = &'a Node>) {
    for node in nodes {
        until_in_memory(node, &digest(1)).await;
    }
}

async fn nobody_knows<'a>(nodes: impl IntoIterator<Item = &'a Node>) {
    for (i, node) in nodes.into_iter().enumerate() {
        let (found, status) = stat(node, &digest(1)).await;
        assert_eq!(found, None, "node {i} was told by {status:?}");
    }
}

/// A question that has been asked of the store, whose answer is held until `way.hold(false)`. One
/// that is asked after another begins when all that the other fills has been filled.
async fn reading(way: &Bare, node: &Node) -> JoinHandle<Said> {
    let reads = way.reads();
    way.hold(true);
    let node = node.clone();
    let answer = tokio::spawn(async move { stat(&node, &digest(1)).await });
    eventually("no tier knows, and the store is asked", || {
        way.reads() == reads + 2
    })
    .await;
    answer
}

/// Where a node lives that is to die: what runs there, on one thread, ends as it is.
struct Mortal(Option<Runtime>);

impl Mortal {
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

    /// It dies; Redis has seen the last of it when this returns.
    async fn dies(self, redis: &Redis) {
        let nodes = || {
            redis
                .cli(&["CLIENT", "LIST", "TYPE", "pubsub"])
                .lines()
                .count()
        };
        let before = nodes();
        drop(self);
        eventually("its connection ends", || nodes() < before).await;
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
