//! What goes wrong between the nodes and Redis, and in it.

use crate::support::history::cluster::Cluster;
use crate::support::history::record::{History, now};
use crate::support::proxy::{Line, Proxy};
use crate::support::redis::Redis;
use crate::support::server::Signal;
use futures::future::join;
use std::time::{Duration, Instant};
use tokio::task::block_in_place;
use tokio::time::sleep;

/// Injects faults at random, one in the network and one in the server at a time.
pub(crate) struct Injector {
    network: Random,
    server: Random,
    history: History,
    /// Whether there is a dump.
    has_saved: bool,
}

/// How long nothing goes wrong.
const CALM: Duration = Duration::from_millis(2000);

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

    /// Until `end`; then all is healed.
    pub(crate) async fn run(&mut self, cluster: &mut Cluster, end: Instant) {
        while Instant::now() < end {
            // Long enough that all trust their memory again.
            let calm = Instant::now() + CALM;
            while Instant::now() < calm {
                // That a cache forgets is no fault.
                evict(
                    &cluster.redis,
                    ["repository::*", "blobs::*"][self.server.below(2)],
                );
                self.server.sleep(50, 400).await;
            }
            let storm = Instant::now() + self.server.millis(200, 2000);
            self.storm(cluster, storm.min(end)).await;
        }
    }

    async fn storm(&mut self, cluster: &mut Cluster, end: Instant) {
        let Self {
            network,
            server,
            history,
            has_saved,
        } = self;
        let network = async {
            while Instant::now() < end {
                network.sleep(10, 400).await;
                let begin = now();
                let what = break_network(network, &cluster.proxies).await;
                history.fault(begin, what);
            }
        };
        let server = async {
            while Instant::now() < end {
                server.sleep(10, 800).await;
                let begin = now();
                let what = break_server(server, &mut cluster.redis, has_saved).await;
                history.fault(begin, what);
            }
        };
        join(network, server).await;
    }
}

async fn break_network(random: &mut Random, proxies: &[Proxy]) -> String {
    let node = random.below(proxies.len());
    let proxy = &proxies[node];
    let (least, most) = (random.millis(1, 100), random.millis(100, 400));
    let delay = Line::Delay(least, most);
    let what = match random.below(10) {
        0 => {
            proxy.reset();
            "reset"
        }
        1 => {
            proxy.refuse(true);
            proxy.reset();
            "refuses connections"
        }
        2 => {
            proxy.freeze();
            "frozen"
        }
        3 => {
            proxy.set(Line::Flow, Line::Hold);
            "what it is sent is held"
        }
        4 => {
            proxy.set(Line::Hold, Line::Flow);
            "what it sends is held"
        }
        5 => {
            proxy.set(Line::Flow, Line::Swallow);
            "what it is sent is lost"
        }
        6 => {
            proxy.set(Line::Swallow, Line::Flow);
            "what it sends is lost"
        }
        7 => {
            proxy.set(delay, Line::Flow);
            "what it sends is late"
        }
        8 => {
            proxy.set(Line::Flow, delay);
            "what it is sent is late"
        }
        _ => {
            proxy.set(delay, delay);
            "all is late"
        }
    };
    random.sleep(5, 1200).await;
    proxy.heal();
    format!("network of node {node}: {what}")
}

async fn break_server(random: &mut Random, redis: &mut Redis, has_saved: &mut bool) -> String {
    let cli = |redis: &Redis, args: &[&str]| block_in_place(|| redis.cli(args));
    let what = match random.below(16) {
        0 | 1 => {
            redis.signal(Signal::Stop);
            random.sleep(50, 1200).await;
            redis.signal(Signal::Cont);
            "stood still"
        }
        2 => {
            redis.kill();
            redis.lose_dump();
            *has_saved = false;
            random.sleep(0, 300).await;
            redis.restart_on_same_port().await;
            "killed, started empty"
        }
        3 if *has_saved => {
            redis.kill();
            random.sleep(0, 300).await;
            redis.restart_on_same_port().await;
            "killed, started from the dump"
        }
        3..6 => {
            cli(redis, &["SAVE"]);
            *has_saved = true;
            "saved"
        }
        6 => {
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
        9 | 10 => {
            evict(redis, "lease::*");
            "evicted all leases"
        }
        11 | 12 => {
            evict(redis, "fence::*");
            "evicted all fences"
        }
        13 => {
            evict(redis, "layercache::{nodes}");
            "evicted the nodes"
        }
        14 => {
            evict(redis, "*");
            "evicted everything"
        }
        _ => {
            cli(redis, &["CONFIG", "SET", "maxmemory", "1"]);
            random.sleep(50, 1000).await;
            cli(redis, &["CONFIG", "SET", "maxmemory", "0"]);
            "was full"
        }
    };
    format!("Redis {what}")
}

fn evict(redis: &Redis, pattern: &str) {
    let script = "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('DEL', key) end";
    block_in_place(|| redis.cli(&["EVAL", script, "0", pattern]));
}
