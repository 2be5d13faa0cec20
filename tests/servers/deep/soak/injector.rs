//! Injects faults, one after the other and sometimes two at a time, with calm times between them.

use super::ledger::{Kind, Ledger};
use futures::future::join;
use std::time::{Duration, Instant};
use test_support::history::record::now;
use test_support::proxy::{Line, Proxy};
use test_support::redis::Redis;
use test_support::server::Signal;
use tokio::task::block_in_place;
use tokio::time::sleep;

/// Injects faults at random, each kind equally often.
pub(crate) struct Injector<'a> {
    random: fastrand::Rng,
    ledger: &'a Ledger,
    redis: &'a mut Redis,
    s3: &'a Proxy,
}

impl<'a> Injector<'a> {
    pub(crate) fn new(seed: u64, ledger: &'a Ledger, redis: &'a mut Redis, s3: &'a Proxy) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            ledger,
            redis,
            s3,
        }
    }

    /// Injects faults until `end`, and at least one of each kind. Then it ends all faults of the
    /// network.
    pub(crate) async fn run(&mut self, end: Instant) {
        let mut is_first = true;
        while is_first || Instant::now() < end {
            let mut kinds = Kind::ALL;
            self.random.shuffle(&mut kinds);
            for kind in kinds {
                if !is_first && Instant::now() >= end {
                    break;
                }
                // Sometimes the pause is so long that no effect of the last fault is left.
                match self.random.u32(..4) {
                    0 if !is_first => self.pause(6000, 12_000).await,
                    _ => self.pause(300, 2500).await,
                }
                match self.random.u32(..3) {
                    0 if !is_first => self.two(kind).await,
                    _ if kind.is_of_s3() => self.break_s3(kind).await,
                    _ => self.break_redis(kind).await,
                }
            }
            is_first = false;
        }
        self.s3.restore();
    }

    /// Injects this fault and one of the other server at the same time.
    async fn two(&mut self, kind: Kind) {
        let others: Vec<_> = Kind::ALL
            .into_iter()
            .filter(|other| other.is_of_s3() != kind.is_of_s3())
            .collect();
        let other = others[self.random.usize(..others.len())];
        let (of_redis, of_s3) = match kind.is_of_s3() {
            true => (other, kind),
            false => (kind, other),
        };
        let mut beside = S3 {
            random: self.random.fork(),
            ledger: self.ledger,
            proxy: self.s3,
        };
        join(self.break_redis(of_redis), beside.fault(of_s3)).await;
    }

    async fn break_s3(&mut self, kind: Kind) {
        let mut s3 = S3 {
            random: self.random.fork(),
            ledger: self.ledger,
            proxy: self.s3,
        };
        s3.fault(kind).await;
    }

    async fn break_redis(&mut self, kind: Kind) {
        let begin = now();
        match kind {
            Kind::RedisKilled => {
                self.redis.kill();
                self.pause(0, 3000).await;
                self.redis.restart_on_same_port().await;
            }
            Kind::RedisFrozen => {
                self.redis.signal(Signal::Stop);
                self.pause(200, 5000).await;
                self.redis.signal(Signal::Cont);
            }
            Kind::RedisFilled => {
                block_in_place(|| fill(self.redis));
                self.pause(200, 3000).await;
                block_in_place(|| self.redis.cli(&["UNLINK", JUNK]));
            }
            _ => {
                for _ in 0..self.random.u32(1..6) {
                    let which = ["normal", "pubsub"][self.random.usize(..2)];
                    block_in_place(|| self.redis.cli(&["CLIENT", "KILL", "TYPE", which]));
                    self.pause(10, 200).await;
                }
            }
        }
        self.ledger.fault(kind, begin);
    }

    async fn pause(&mut self, least: u64, most: u64) {
        sleep(Duration::from_millis(self.random.u64(least..most))).await;
    }
}

/// Injects faults of S3, also while faults of Redis are injected.
struct S3<'a> {
    random: fastrand::Rng,
    ledger: &'a Ledger,
    proxy: &'a Proxy,
}

impl S3<'_> {
    async fn fault(&mut self, kind: Kind) {
        let begin = now();
        match kind {
            Kind::S3Late => {
                let least = Duration::from_millis(self.random.u64(1..100));
                let line = Line::Delay(least, least * 3);
                self.proxy.set(line, line);
                self.pause(500, 4000).await;
            }
            Kind::S3Reset => {
                for _ in 0..self.random.u32(1..12) {
                    self.proxy.reset();
                    self.pause(10, 250).await;
                }
            }
            Kind::S3Refuses => {
                self.proxy.refuse(true);
                self.proxy.reset();
                self.pause(200, 3000).await;
            }
            _ => {
                let lines = [Line::Hold, Line::Flow];
                let there = lines[self.random.usize(..2)];
                self.proxy.set(there, Line::Hold);
                self.pause(200, 2500).await;
            }
        }
        self.proxy.restore();
        self.ledger.fault(kind, begin);
    }

    async fn pause(&mut self, least: u64, most: u64) {
        sleep(Duration::from_millis(self.random.u64(least..most))).await;
    }
}

const JUNK: &str = "junk";

/// Fills Redis until it accepts no more data.
fn fill(redis: &Redis) {
    let script = "local junk = string.rep('x', 100000)
        for _ = 1, 20 do redis.call('RPUSH', KEYS[1], junk) end";
    // A full server refuses a script that would write, and that ends the loop.
    while redis.try_cli(&["EVAL", script, "1", JUNK]).is_ok() {}
}
