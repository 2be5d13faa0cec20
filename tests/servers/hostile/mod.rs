//! Tests hostile data in Redis, in its channels and in requests. The answers are the store's.
//! Broken values are counted and replaced. Only parsed names become keys.
//!
//! | module | hostile data |
//! |---|---|
//! | `values` | the values of facts |
//! | `keys` | leases, fences, the peer set, the record of servers |
//! | `channel` | messages to nodes |
//! | `clients` | requests to a registry |

mod channel;
mod clients;
mod keys;
use test_support as support;
mod values;

use layercache::{CacheStatus, RedisConfig};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use support::nodes::{Bare, Found, LENGTH, Node, node_with};

const MEMORY_HIT: Found = (Some(LENGTH), CacheStatus::Memory);
const REDIS_HIT: Found = (Some(LENGTH), CacheStatus::Redis);
const MISS: Found = (Some(LENGTH), CacheStatus::Miss);

/// A node with metrics of its own.
struct Counted {
    node: Node,
    metrics: PrometheusHandle,
}

impl Counted {
    fn new(bare: &Bare, config: RedisConfig) -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        Self {
            metrics: recorder.handle(),
            node: metrics::with_local_recorder(&recorder, || node_with(bare, config)),
        }
    }

    /// Returns how many broken values of this fact it has read.
    fn broken(&self, fact: &str) -> u64 {
        let name = format!("layercache_broken_values_total{{fact=\"{fact}\"}} ");
        let metrics = self.metrics.render();
        let count = metrics.lines().find_map(|line| line.strip_prefix(&name));
        count.expect("a count").parse().unwrap()
    }
}
