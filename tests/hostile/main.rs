//! Whatever stands in Redis, is published there, or is sent by a client: answers are the store's, what
//! is broken is counted and replaced, and nothing becomes a key that was not parsed.
//!
//! | module | what is hostile |
//! |---|---|
//! | `values` | what the facts say |
//! | `keys` | leases, fences, the set of nodes, the server's name |
//! | `channel` | what nodes are told |
//! | `clients` | what a registry is asked |

mod channel;
mod clients;
mod keys;
use test_support as support;
mod values;

use layercache::{CacheStatus, RedisConfig};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use support::nodes::{Bare, LENGTH, Node, Said, node_with};

const KNOWN: Said = (Some(LENGTH), CacheStatus::Memory);
const TOLD: Said = (Some(LENGTH), CacheStatus::Redis);
const READ: Said = (Some(LENGTH), CacheStatus::Miss);

/// A node whose metrics are its own.
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

    /// How many broken values of this fact it has read.
    fn broken(&self, fact: &str) -> u64 {
        let name = format!("layercache_broken_values_total{{fact=\"{fact}\"}} ");
        let metrics = self.metrics.render();
        let count = metrics.lines().find_map(|line| line.strip_prefix(&name));
        count.expect("a count").parse().unwrap()
    }
}
