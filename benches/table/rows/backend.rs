//! Measures misses and verified reads, beside one call of a backend that takes 20 ms.

use crate::clock::{Pair, median, side_by_side};
use crate::support::meter::Meter;
use crate::support::nodes::{
    Bare, LENGTH, Node, SETTLED, bare, blob_path, config, config_at, digest, layers, name,
    node_with,
};
use crate::support::redis::Redis;
use crate::table::{Row, Table, Target};
use criterion::Bencher;
use layercache::layout::{Distribution, Layout};
use layercache::{Answer, CacheStatus, Digest, Freshness, LayerMeta, Link};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use redis::aio::MultiplexedConnection;
use std::cell::Cell;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};

/// How long the backend takes for a call. The timer counts whole milliseconds, for the yardstick
/// too.
const CALL: Duration = Duration::from_millis(20);

/// The number of layers of a manifest.
const LAYERS: usize = 50;

/// The number of manifests, which are used one after the other. The last fill of one is over long
/// before it is used again.
const MANIFESTS: u32 = 20;

pub(crate) fn measure(table: &mut Table) {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let bench = runtime.block_on(Bench::start());
    cold_stat(table, &runtime, &bench);
    verified_manifest(table, &runtime, &bench);
}

struct Bench {
    redis: Redis,
    bare: Bare,
    node: Node,
}

impl Bench {
    async fn start() -> Self {
        let (redis, bare) = (Redis::start().await, bare(CALL));
        let node = node_with(&bare, config(&redis));
        // After this the node is connected and has loaded its scripts.
        ask(&node, &put(&bare, 0).await, Freshness::Cached).await;
        tokio::time::sleep(SETTLED).await;
        Self { redis, bare, node }
    }
}

/// Puts a blob and its link into the store, without telling any node.
async fn put(bare: &Bare, i: u32) -> Digest {
    let (digest, store) = (digest(i), bare.inner());
    let link = Distribution::default().link_path(&Link::layer(name(), digest));
    let link = link.expect("a path");
    for (path, content) in [
        (blob_path(&digest), "content".to_owned()),
        (link, digest.to_string()),
    ] {
        store.put(&path, content.into()).await.expect("an object");
    }
    digest
}

async fn ask(node: &Node, digest: &Digest, freshness: Freshness) {
    let answer = layers(node).stat(digest, freshness).await;
    check(answer.expect("an answer"));
}

fn check(answer: Answer<Option<LayerMeta>>) {
    let length = answer.value.map(|meta| meta.length());
    assert_eq!((length, answer.status), (Some(LENGTH), CacheStatus::Miss));
}

/// Measures one call of the backend itself.
fn yardstick(bencher: &mut Bencher<'_>, runtime: &Runtime, bare: &Bare, path: &Path) {
    each(bencher, runtime, async || {
        let start = Instant::now();
        bare.head(path).await.expect("an object");
        start.elapsed()
    });
}

/// Adds up the times that the iterations return.
fn each(bencher: &mut Bencher<'_>, runtime: &Runtime, mut once: impl AsyncFnMut() -> Duration) {
    bencher.iter_custom(|iterations| {
        runtime.block_on(async {
            let mut total = Duration::ZERO;
            for _ in 0..iterations {
                total += once().await;
            }
            total
        })
    });
}

fn cold_stat(table: &mut Table, runtime: &Runtime, bench: &Bench) {
    let Bench { redis, bare, node } = bench;
    let path = blob_path(&digest(0));
    let next = Cell::new(1);
    let Pair {
        yardstick, ours, ..
    } = side_by_side(
        "cold stat",
        |bencher| yardstick(bencher, runtime, bare, &path),
        |bencher| {
            each(bencher, runtime, async || {
                let digest = put(bare, next.replace(next.get() + 1)).await;
                let start = Instant::now();
                ask(node, &digest, Freshness::Cached).await;
                start.elapsed()
            });
        },
    );
    let trip = runtime.block_on(round_trip(redis));
    let counts = runtime.block_on(async {
        let counter = Counter::start().await;
        let digest = put(&counter.bare, 1).await;
        counter
            .count(async |node| ask(node, &digest, Freshness::Cached).await)
            .await
    });
    table.add(Row {
        what: "cold `stat`, backend with 20 ms calls, less two Redis round trips",
        yardstick: "one backend call",
        target: Target::AtMost(1.1),
        ratio: (ours - 2.0 * trip) / yardstick,
        detail: format!(
            "({} − 2 × {} for a raw `PING`) against {}; {counts}",
            millis(ours),
            millis(trip),
            millis(yardstick),
        ),
        holds: counts
            == Counts {
                waited: 2,
                after: 1,
                calls: 2,
                at_a_time: 2,
            },
    });
}

fn verified_manifest(table: &mut Table, runtime: &Runtime, bench: &Bench) {
    let Bench { bare, node, .. } = bench;
    let path = blob_path(&digest(0));
    let manifests = runtime.block_on(async {
        let mut manifests = Vec::new();
        for i in 0..MANIFESTS {
            manifests.push(manifest(bare, i).await);
        }
        manifests
    });
    let next = Cell::new(0);
    let Pair {
        yardstick,
        ours,
        ratio,
    } = side_by_side(
        "verified manifest",
        |bencher| yardstick(bencher, runtime, bare, &path),
        |bencher| {
            each(bencher, runtime, async || {
                let manifest = &manifests[next.replace((next.get() + 1) % manifests.len())];
                let start = Instant::now();
                verify(node, manifest).await;
                start.elapsed()
            });
        },
    );
    let counts = runtime.block_on(async {
        let counter = Counter::start().await;
        let manifest = manifest(&counter.bare, 0).await;
        counter
            .count(async |node| verify(node, &manifest).await)
            .await
    });
    table.add(Row {
        what: "manifest of 50 layers, `Verified` (`stat_many`), backend with 20 ms calls",
        yardstick: "one backend call",
        target: Target::AtMost(2.0),
        ratio,
        detail: format!("{} against {}; {counts}", millis(ours), millis(yardstick)),
        holds: counts
            == Counts {
                waited: 1,
                after: 1,
                calls: 2 * LAYERS,
                at_a_time: 2 * LAYERS,
            },
    });
}

async fn manifest(bare: &Bare, i: u32) -> Vec<Digest> {
    let first = 1_000_000 + i * LAYERS as u32;
    let mut digests = Vec::with_capacity(LAYERS);
    for i in first..first + LAYERS as u32 {
        digests.push(put(bare, i).await);
    }
    digests
}

async fn verify(node: &Node, manifest: &[Digest]) {
    let answers = layers(node).stat_many(manifest, Freshness::Verified).await;
    let answers = answers.expect("answers");
    assert_eq!(answers.len(), LAYERS);
    answers.into_iter().for_each(check);
}

/// The counts of one operation.
#[derive(Debug, PartialEq, Eq)]
struct Counts {
    waited: usize,
    after: usize,
    calls: usize,
    at_a_time: usize,
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            waited,
            after,
            calls,
            at_a_time,
        } = self;
        write!(
            f,
            "{waited} round trips before the answer and {after} after it, {calls} calls, {at_a_time} at a time"
        )
    }
}

/// A node of its own, with a meter in front of its Redis.
struct Counter {
    _redis: Redis,
    meter: Meter,
    bare: Bare,
    node: Node,
}

impl Counter {
    async fn start() -> Self {
        let redis = Redis::start().await;
        let meter = Meter::start(redis.port()).await;
        let bare = bare(CALL);
        let node = node_with(&bare, config_at(meter.url()));
        ask(&node, &put(&bare, 0).await, Freshness::Cached).await;
        tokio::time::sleep(SETTLED).await;
        Self {
            _redis: redis,
            meter,
            bare,
            node,
        }
    }

    async fn count(&self, call: impl AsyncFnOnce(&Node)) -> Counts {
        self.meter.settled().await;
        self.meter.reset();
        let before = self.bare.reads();
        call(&self.node).await;
        let waited = self.meter.over();
        self.meter.settled().await;
        Counts {
            waited,
            after: self.meter.begun().len() - waited,
            calls: self.bare.reads() - before,
            at_a_time: self.bare.most_reads_at_a_time(),
        }
    }
}

/// Returns the nanoseconds of one raw round trip.
async fn round_trip(redis: &Redis) -> f64 {
    let client = redis::Client::open(redis.url()).expect("an address");
    let connecting = client.get_multiplexed_async_connection().await;
    let mut connection: MultiplexedConnection = connecting.expect("a connection");
    let mut times = Vec::new();
    for _ in 0..500 {
        let start = Instant::now();
        let pong: String = redis::cmd("PING")
            .query_async(&mut connection)
            .await
            .expect("an answer");
        times.push(start.elapsed().as_nanos() as f64);
        assert_eq!(pong, "PONG");
    }
    median(times.into_iter())
}

fn millis(nanos: f64) -> String {
    format!("{:.2} ms", nanos / 1e6)
}
