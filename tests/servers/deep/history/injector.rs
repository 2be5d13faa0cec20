//! Injects faults in Redis and in the network to it: storms, with calm times between them.

use futures::future::join;
use std::time::{Duration, Instant};
use test_support::history::cluster::Cluster;
use test_support::history::record::{History, now};
use test_support::proxy::{Line, Proxy};
use test_support::redis::Redis;
use test_support::server::Signal;
use tokio::task::block_in_place;
use tokio::time::sleep;

/// How long a calm time is. Only evictions happen then. It is long enough for all nodes to trust
/// their memory again.
const CALM: Duration = Duration::from_millis(1800);

/// Injects faults at random.
pub(crate) struct Injector {
    network: Random,
    server: Random,
    history: History,
    /// Whether Redis has saved a dump.
    has_saved: bool,
}

struct Random(fastrand::Rng);

impl Random {
    async fn sleep(&mut self, least: u64, most: u64) {
        sleep(self.millis(least, most)).await;
    }

    fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.0.u64(least..most))
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0.usize(..limit)
    }
}

impl Injector {
    pub(crate) fn new(history: &History, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        Self {
            network: Random(random.fork()),
            server: Random(random.fork()),
            history: history.clone(),
            has_saved: false,
        }
    }

    /// Injects faults until `end`.
    pub(crate) async fn run(&mut self, cluster: &mut Cluster, end: Instant) {
        while Instant::now() < end {
            self.evictions(&cluster.redis, Instant::now() + CALM, false)
                .await;
            let until = Instant::now() + self.server.millis(300, 2500);
            match self.server.below(4) {
                0 => self.storm(cluster, until).await,
                1 => self.server(&mut cluster.redis, until).await,
                _ => self.network_and_evictions(cluster, until).await,
            }
        }
    }

    async fn storm(&mut self, cluster: &mut Cluster, until: Instant) {
        let (mut network, mut server) = self.apart();
        let network = network.network(&cluster.proxies, until);
        join(network, server.server(&mut cluster.redis, until)).await;
        self.has_saved = server.has_saved;
    }

    async fn network_and_evictions(&mut self, cluster: &Cluster, until: Instant) {
        let nodes_too = self.server.below(2) == 0;
        let (mut network, mut server) = self.apart();
        let network = network.network(&cluster.proxies, until);
        join(network, server.evictions(&cluster.redis, until, nodes_too)).await;
        self.has_saved = server.has_saved;
    }

    /// Returns two injectors that can run at the same time.
    fn apart(&mut self) -> (Self, Self) {
        let mut part = || Self {
            network: Random(self.network.0.fork()),
            server: Random(self.server.0.fork()),
            history: self.history.clone(),
            has_saved: self.has_saved,
        };
        (part(), part())
    }

    async fn network(&mut self, proxies: &[Proxy], until: Instant) {
        while Instant::now() < until {
            self.network.sleep(10, 300).await;
            let begin = now();
            let node = self.network.below(proxies.len());
            let what = break_network(&mut self.network, &proxies[node]).await;
            self.history
                .fault(begin, format!("network of node {node}: {what}"));
        }
    }

    async fn server(&mut self, redis: &mut Redis, until: Instant) {
        while Instant::now() < until {
            self.server.sleep(10, 600).await;
            let begin = now();
            let what = self.break_server(redis).await;
            self.history.fault(begin, format!("Redis {what}"));
        }
    }

    /// An eviction is no fault: no operation may fail because of it.
    async fn evictions(&mut self, redis: &Redis, until: Instant, nodes_too: bool) {
        while Instant::now() < until {
            let begin = now();
            let what = match self.server.below(13) {
                0..3 => "repository::*",
                3..5 => "blobs::*",
                5..8 => "fence::*",
                8..10 => "lease::*",
                10 => "layercache::{nodes}::servers",
                11 if nodes_too => "layercache::{nodes}",
                _ => {
                    block_in_place(|| redis.cli(&["SAVE"]));
                    self.has_saved = true;
                    continue;
                }
            };
            evict(redis, what);
            self.history.fault(begin, format!("Redis evicted {what}"));
            self.server.sleep(20, 200).await;
        }
    }

    async fn break_server(&mut self, redis: &mut Redis) -> &'static str {
        let random = &mut self.server;
        let cli = |redis: &Redis, args: &[&str]| block_in_place(|| redis.cli(args));
        match random.below(12) {
            0 | 1 => {
                redis.signal(Signal::Stop);
                random.sleep(50, 1200).await;
                redis.signal(Signal::Cont);
                "stood still"
            }
            2 => {
                redis.kill();
                redis.lose_dump();
                self.has_saved = false;
                random.sleep(0, 300).await;
                redis.restart_on_same_port().await;
                "was killed and started empty"
            }
            3..6 if self.has_saved => {
                redis.kill();
                redis.restart_on_same_port().await;
                "was killed and started from the dump"
            }
            3..7 => {
                cli(redis, &["CLIENT", "KILL", "TYPE", "pubsub"]);
                "killed its subscribers"
            }
            7 => {
                cli(redis, &["CLIENT", "KILL", "TYPE", "normal"]);
                "killed its other clients"
            }
            8 => {
                cli(redis, &["SCRIPT", "FLUSH"]);
                "lost its scripts"
            }
            9 => {
                evict(redis, "layercache::{nodes}");
                "evicted the nodes"
            }
            10 => {
                evict(redis, "*");
                "evicted everything"
            }
            _ => {
                cli(redis, &["CONFIG", "SET", "maxmemory", "1"]);
                random.sleep(50, 1000).await;
                cli(redis, &["CONFIG", "SET", "maxmemory", "0"]);
                "was full"
            }
        }
    }
}

async fn break_network(random: &mut Random, proxy: &Proxy) -> &'static str {
    let (least, more) = (random.millis(1, 600), random.millis(1, 300));
    let delay = Line::Delay(least, least + more);
    let (to_server, to_client, what) = match random.below(12) {
        0 | 1 => {
            for _ in 0..random.below(10) {
                proxy.reset();
                random.sleep(10, 100).await;
            }
            return "reset, some times";
        }
        2 => {
            proxy.refuse(true);
            proxy.reset();
            (Line::Flow, Line::Flow, "refuses connections")
        }
        3 => (Line::Hold, Line::Hold, "frozen"),
        4 | 5 => (Line::Flow, Line::Hold, "what it is sent is held"),
        6 => (Line::Hold, Line::Flow, "what it sends is held"),
        7 => (Line::Flow, Line::Swallow, "what it is sent is lost"),
        8 => (Line::Swallow, Line::Flow, "what it sends is lost"),
        9 => (delay, Line::Flow, "what it sends is late"),
        10 => (Line::Flow, delay, "what it is sent is late"),
        _ => (delay, delay, "all is late"),
    };
    proxy.set(to_server, to_client);
    random.sleep(50, 1500).await;
    proxy.restore();
    what
}

fn evict(redis: &Redis, pattern: &str) {
    let script = "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('DEL', key) end";
    block_in_place(|| redis.cli(&["EVAL", script, "0", pattern]));
}
