//! Measures one figure of the table: one kind of request, over a number of connections, to one of
//! the two registries.

use super::client::Ask;
use super::stage::{Side, Stage};
use super::{cpu, load};
use crate::support::redis::Redis;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How long requests run before the measurement.
const WARM_UP: Duration = Duration::from_millis(500);

/// How long a server without requests is watched.
const REST: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Copy)]
pub struct Cell {
    pub per_second: f64,
    /// CPU time of the server process for each request.
    pub cpu: Duration,
    pub p50: Duration,
    pub p99: Duration,
    /// Per request, as is the next field.
    pub redis_commands: f64,
    pub backend_calls: f64,
}

/// A server that is measured.
#[derive(Debug)]
pub struct Watch<'a> {
    stage: &'a Stage,
    side: &'a Side,
    /// The commands per second that Redis gets from a server without requests: heartbeats.
    at_rest: f64,
}

impl<'a> Watch<'a> {
    pub async fn over(stage: &'a Stage, side: &'a Side) -> Self {
        // After this time the server has done all work of its start.
        load::run(&side.address(), &stage.layers("HEAD"), 1, WARM_UP).await;
        let begin = (Instant::now(), commands(&stage.redis));
        sleep(REST).await;
        let came = commands(&stage.redis) - begin.1;
        Self {
            stage,
            side,
            at_rest: came as f64 / begin.0.elapsed().as_secs_f64(),
        }
    }

    /// Sends requests for `time`, after a warm-up that is not measured.
    pub async fn measure(&self, asks: &[Ask], connections: usize, time: Duration) -> Cell {
        let (address, pid) = (self.side.address(), self.side.pid());
        let Stage { redis, proxy, .. } = self.stage;
        load::run(&address, asks, connections, WARM_UP).await;
        proxy.take_calls();
        let (used, sent) = (cpu::time_of(pid), commands(redis));
        let outcome = load::run(&address, asks, connections, time).await;
        let used = cpu::time_of(pid) - used;
        let sent = (commands(redis) - sent) as f64 - self.at_rest * outcome.took.as_secs_f64();
        let each = |sum: f64| sum / outcome.requests as f64;
        Cell {
            per_second: outcome.per_second(),
            cpu: Duration::from_secs_f64(each(used.as_secs_f64())),
            p50: outcome.quantile(0.5),
            p99: outcome.quantile(0.99),
            redis_commands: each(sent.max(0.0)),
            backend_calls: each(proxy.take_calls().len() as f64),
        }
    }
}

/// Returns how many commands Redis has run so far, without those of this measurement.
fn commands(redis: &Redis) -> u64 {
    let info = redis.cli(&["INFO", "commandstats"]);
    let calls = info.lines().filter_map(|line| {
        let (name, stats) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let is_ours = matches!(name, "info" | "hello") || name.starts_with("command");
        (!is_ours).then(|| stats.split(',').next()?.parse::<u64>().ok())?
    });
    calls.sum()
}
