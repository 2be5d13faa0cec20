//! Nodes on one store and one Redis, each behind a proxy of its own.

use super::flaky::Flaky;
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use layercache::{CachedStore, MemoryConfig, RedisConfig};
use std::time::Duration;

/// Several nodes in this process.
#[derive(Debug)]
pub struct Cluster {
    pub nodes: Vec<CachedStore<Flaky>>,
    /// Of each node.
    pub proxies: Vec<Proxy>,
    pub store: Flaky,
    pub redis: Redis,
}

impl Cluster {
    pub async fn start(nodes: usize, store: Flaky, redis: Redis) -> Self {
        let mut cluster = Self {
            nodes: Vec::new(),
            proxies: Vec::new(),
            store,
            redis,
        };
        for _ in 0..nodes {
            let proxy = Proxy::start(cluster.redis.port()).await;
            let url = format!("redis://127.0.0.1:{}", proxy.port());
            let config = RedisConfig::new(url).with_timeout(Duration::from_millis(200));
            let builder = CachedStore::builder(cluster.store.clone());
            let builder = builder.memory(MemoryConfig::default()).redis(config);
            cluster.nodes.push(builder.unwrap().build());
            cluster.proxies.push(proxy);
        }
        cluster
    }
}
