//! Starts nodes on one store and one Redis, each behind a proxy of its own.

use super::flaky::Flaky;
use crate::proxy::Proxy;
use crate::redis::Redis;
use layercache::{CachedStore, MemoryConfig, RedisConfig};
use std::time::Duration;

/// Several nodes in this process.
#[derive(Debug)]
pub struct Cluster {
    pub nodes: Vec<CachedStore<Flaky>>,
    /// One proxy for each node.
    pub proxies: Vec<Proxy>,
    pub store: Flaky,
    pub redis: Redis,
}

// All times are short, so that many faults and recoveries fit into a test.
const TIMEOUT: Duration = Duration::from_millis(200);
const CHANGE_TIMEOUT: Duration = Duration::from_secs(1);
pub const TRUST: Duration = Duration::from_millis(400);
const LEASE: Duration = Duration::from_secs(1);
const FENCE: Duration = Duration::from_secs(2);

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
            cluster.nodes.push(node(&cluster.store, &url));
            cluster.proxies.push(proxy);
        }
        cluster
    }
}

/// Makes a node on this store that uses the Redis at `url`.
pub fn node(store: &Flaky, url: &str) -> CachedStore<Flaky> {
    let config = RedisConfig::new(url)
        .with_timeout(TIMEOUT)
        .with_change_timeout(CHANGE_TIMEOUT)
        .with_trust_timeout(TRUST)
        .with_lease_ttl(LEASE)
        .with_fence_ttl(FENCE);
    let builder = CachedStore::builder(store.clone());
    let builder = builder.memory(MemoryConfig::default()).redis(config);
    builder.build().unwrap()
}
