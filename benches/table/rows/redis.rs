//! Measures a Redis hit, beside the two raw commands that it consists of.
//!
//! Redis answers every read. There are more blobs than one round reads, each is read once, and
//! memory is cleared between the rounds, outside of the measured time. The time includes the fill
//! of memory after a hit.

use crate::clock::{Pair, side_by_side};
use crate::support::meter::Meter;
use crate::support::redis::Redis;
use crate::table::{Row, Table, Target};
use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, Pipeline, RedisResult, Value};
use criterion::Bencher;
use layercache::internals::FIELDS;
use layercache::{
    CacheStatus, CachedStore, Digest, Freshness, RedisConfig, Repository, StoreBackend,
};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

/// The number of blobs, all of one repository.
const BLOBS: usize = 16_384;
const REPOSITORY: &str = "library/alpine";
/// The number of tasks that ask at the same time.
const TASKS: usize = 64;
/// The number of blobs in one `stat_many`.
const MANY: usize = 100;

/// The work that any cache has to do around a raw pair: see [`time_loads`].
const KEPT: &str =
    "raw pairs that are kept in a raw moka, one load for a key, each in a task of its own";

pub(crate) fn measure(table: &mut Table) {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let bench = Arc::new(runtime.block_on(Bench::start()));
    one_task(table, &runtime, &bench);
    many_tasks(table, &runtime, &bench);
    many_at_once(table, &runtime, &bench);
}

struct Bench {
    _redis: Redis,
    raw: MultiplexedConnection,
    store: CachedStore<InMemory>,
    /// A node behind a proxy that counts, on the same Redis.
    counted: CachedStore<InMemory>,
    meter: Meter,
    blobs: Arc<Vec<Blob>>,
}

/// A blob, and its names in the raw commands.
struct Blob {
    digest: Digest,
    text: String,
    hash: String,
}

impl Bench {
    async fn start() -> Self {
        let redis = Redis::start().await;
        let inner = InMemory::new();
        let blobs: Vec<_> = (0..BLOBS).map(Blob::new).collect();
        for blob in &blobs {
            blob.put(&inner).await;
        }
        let meter = Meter::start(redis.port()).await;
        let bench = Self {
            raw: connect(&redis).await,
            counted: node(&InMemory::new(), meter.url()),
            store: node(&inner, redis.url()),
            meter,
            _redis: redis,
            blobs: Arc::new(blobs),
        };
        let digests: Vec<_> = bench.blobs.iter().map(|blob| blob.digest).collect();
        let repository = bench.repository();
        loop {
            bench.store.clear_memory();
            let answers = repository.stat_many(&digests, Freshness::Cached);
            let answers = answers.await.expect("answers");
            if answers
                .iter()
                .all(|answer| answer.status == CacheStatus::Redis)
            {
                return bench;
            }
        }
    }

    fn repository(&self) -> Repository<StoreBackend> {
        let name = REPOSITORY.parse().expect("a name");
        self.store.registry().repository(name)
    }

    /// Returns the round trips of `ask`, which gets a repository of a node with an empty memory.
    async fn round_trips(&self, ask: impl AsyncFnOnce(Repository<StoreBackend>)) -> u64 {
        let name = REPOSITORY.parse().expect("a name");
        let repository = self.counted.registry().repository(name);
        // After this answer the node is connected.
        self.counted.clear_memory();
        stat(&repository, &self.blobs[BLOBS - 1]).await;
        self.counted.clear_memory();
        self.meter.settled().await;
        self.meter.reset();
        ask(repository).await;
        self.meter.begun().len() as u64
    }
}

/// Returns a node with rare heartbeats, so that only the reads are counted.
fn node(inner: &InMemory, url: String) -> CachedStore<InMemory> {
    let config = RedisConfig::new(url)
        .with_timeout(Duration::from_secs(5))
        .with_trust_timeout(Duration::from_secs(60));
    let store = CachedStore::builder(inner.fork()).redis(config);
    store.build().expect("a configuration")
}

impl Blob {
    fn new(i: usize) -> Self {
        let mut hash = [0x5a; 32];
        hash[..8].copy_from_slice(&(i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        let digest = Digest::Sha256(hash);
        Self {
            digest,
            text: digest.to_string(),
            hash: format!("blobs::{digest}"),
        }
    }

    async fn put(&self, store: &dyn ObjectStore) {
        let hex = self.digest.hex();
        let root = "docker/registry/v2";
        let data = format!("{root}/blobs/sha256/{}/{hex}/data", &hex[..2]);
        let link = format!("{root}/repositories/{REPOSITORY}/_layers/sha256/{hex}/link");
        for (path, content) in [(data, "content".to_owned()), (link, self.text.clone())] {
            let path = Path::from(path);
            store.put(&path, content.into()).await.expect("an object");
        }
    }
}

/// Opens a connection like that of the cache: RESP3, pushes received inline, a deadline for a
/// response.
async fn connect(redis: &Redis) -> MultiplexedConnection {
    let client = Client::open(format!("{}/?protocol=resp3", redis.url()));
    let config = AsyncConnectionConfig::new()
        .set_response_timeout(Some(Duration::from_secs(5)))
        .set_push_sender(|_| Ok::<_, std::convert::Infallible>(()));
    let client = client.expect("an address");
    let connecting = client.get_multiplexed_async_connection_with_config(&config);
    connecting.await.expect("a connection")
}

/// Sends the yardstick: both commands in one pipeline, with the fields that the cache reads.
async fn raw_pair(connection: &mut MultiplexedConnection, set: &str, blob: &Blob) -> Vec<Value> {
    let mut pipeline = Pipeline::with_capacity(2);
    pipeline.cmd("SISMEMBER").arg(set).arg(&blob.text);
    pipeline.cmd("HMGET").arg(&blob.hash).arg(&FIELDS);
    let request = pipeline.ignore_errors().query_async(connection);
    let replies: RedisResult<Vec<RedisResult<Value>>> = request.await;
    let mut replies = replies.expect("replies");
    match (replies.pop(), replies.pop()) {
        (Some(Ok(Value::Array(fields))), Some(Ok(Value::Int(1)))) => fields,
        other => panic!("{other:?}"),
    }
}

async fn stat(repository: &Repository<StoreBackend>, blob: &Blob) {
    let answer = repository.stat(&blob.digest, Freshness::Cached).await;
    let answer = answer.expect("an answer");
    assert_eq!(answer.status, CacheStatus::Redis);
    assert!(answer.value.is_some());
}

fn set() -> String {
    format!("repository::{REPOSITORY}::blobs")
}

/// Measures rounds of raw pairs, with `tasks` at a time.
fn time_raw(bencher: &mut Bencher<'_>, runtime: &Runtime, bench: &Bench, tasks: usize) {
    bencher.iter_custom(|iterations| {
        rounds(iterations, |count| {
            let started = Instant::now();
            let workers = (0..tasks).map(|task| {
                let (mut raw, blobs) = (bench.raw.clone(), Arc::clone(&bench.blobs));
                runtime.spawn(async move {
                    let set = set();
                    for blob in blobs[..count].iter().skip(task).step_by(tasks) {
                        raw_pair(&mut raw, &set, blob).await;
                    }
                })
            });
            join(runtime, workers);
            started.elapsed()
        })
    });
}

/// Measures rounds of raw pairs with the work of any cache that keeps the answers, sends one load
/// for a key whatever the number of callers, and completes a load without its caller, so in a task
/// of its own.
fn time_loads(bencher: &mut Bencher<'_>, runtime: &Runtime, bench: &Bench, tasks: usize) {
    let cache = moka::sync::Cache::<Digest, Arc<Vec<Value>>>::new(BLOBS as u64 * 2);
    let loads = Arc::new(Mutex::new(HashMap::<Digest, watch::Receiver<_>>::new()));
    bencher.iter_custom(|iterations| {
        rounds(iterations, |count| {
            cache.invalidate_all();
            let started = Instant::now();
            let workers = (0..tasks).map(|task| {
                let (raw, blobs) = (bench.raw.clone(), Arc::clone(&bench.blobs));
                let (cache, loads) = (cache.clone(), Arc::clone(&loads));
                runtime.spawn(async move {
                    for at in (task..count).step_by(tasks) {
                        let digest = blobs[at].digest;
                        assert!(cache.get(&digest).is_none());
                        let (end, mut ended) = watch::channel(None);
                        loads.lock().expect("loads").insert(digest, ended.clone());
                        let (mut raw, blobs) = (raw.clone(), Arc::clone(&blobs));
                        let (cache, loads) = (cache.clone(), Arc::clone(&loads));
                        tokio::spawn(async move {
                            let fields = Arc::new(raw_pair(&mut raw, &set(), &blobs[at]).await);
                            cache.insert(digest, Arc::clone(&fields));
                            loads.lock().expect("loads").remove(&digest);
                            end.send_replace(Some(fields));
                        });
                        let answer = ended.wait_for(Option::is_some).await.expect("an answer");
                        black_box(answer.clone());
                    }
                })
            });
            join(runtime, workers);
            started.elapsed()
        })
    });
}

/// Measures rounds of `stat`, with `tasks` at a time.
fn time_ours(bencher: &mut Bencher<'_>, runtime: &Runtime, bench: &Bench, tasks: usize) {
    bencher.iter_custom(|iterations| {
        rounds(iterations, |count| {
            bench.store.clear_memory();
            let started = Instant::now();
            let workers = (0..tasks).map(|task| {
                let (repository, blobs) = (bench.repository(), Arc::clone(&bench.blobs));
                runtime.spawn(async move {
                    for blob in blobs[..count].iter().skip(task).step_by(tasks) {
                        stat(&repository, blob).await;
                    }
                })
            });
            join(runtime, workers);
            started.elapsed()
        })
    });
}

/// Runs this many iterations, in rounds of at most the number of blobs.
fn rounds(iterations: u64, mut round: impl FnMut(usize) -> Duration) -> Duration {
    let (mut left, mut took) = (iterations as usize, Duration::ZERO);
    while left > 0 {
        let count = left.min(BLOBS);
        took += round(count);
        left -= count;
    }
    took
}

fn join(runtime: &Runtime, workers: impl Iterator<Item = tokio::task::JoinHandle<()>>) {
    let workers: Vec<_> = workers.collect();
    runtime.block_on(async {
        for worker in workers {
            worker.await.expect("a worker");
        }
    });
}

fn one_task(table: &mut Table, runtime: &Runtime, bench: &Bench) {
    let pair = side_by_side(
        "redis_hit",
        |bencher| time_raw(bencher, runtime, bench, 1),
        |bencher| time_ours(bencher, runtime, bench, 1),
    );
    let loads = side_by_side(
        "redis_hit_loads",
        |bencher| time_loads(bencher, runtime, bench, 1),
        |bencher| time_ours(bencher, runtime, bench, 1),
    );
    let count = 200;
    let trips = runtime.block_on(bench.round_trips(async |repository| {
        for blob in &bench.blobs[..count] {
            stat(&repository, blob).await;
        }
    }));
    table.add(Row {
        what: "`stat`, Redis hit, 1 task",
        yardstick: "the raw pipelined pair SISMEMBER + HMGET",
        target: Target::AtMost(1.15),
        ratio: pair.ratio,
        detail: format!(
            "{}; {trips} round trips for {count} of them; {:.2} × of {KEPT}",
            micros(&pair),
            loads.ratio
        ),
        holds: trips == count as u64,
    });
}

fn many_tasks(table: &mut Table, runtime: &Runtime, bench: &Bench) {
    let pair = side_by_side(
        "redis_hit_64",
        |bencher| time_raw(bencher, runtime, bench, TASKS),
        |bencher| time_ours(bencher, runtime, bench, TASKS),
    );
    let a_second = |nanos: f64| 1e9 / nanos;
    let loads = side_by_side(
        "redis_hit_64_loads",
        |bencher| time_loads(bencher, runtime, bench, TASKS),
        |bencher| time_ours(bencher, runtime, bench, TASKS),
    );
    table.add(Row {
        what: "`stat`, Redis hit, 64 tasks",
        yardstick: "throughput of the raw pairs of 64 tasks",
        target: Target::AtLeast(0.9),
        ratio: 1.0 / pair.ratio,
        detail: format!(
            "{:.0} → {:.0} a second; {:.2} × of {KEPT}",
            a_second(pair.yardstick),
            a_second(pair.ours),
            1.0 / loads.ratio
        ),
        holds: true,
    });
}

/// Measures calls of `ask`, all in one task of the runtime, as in a server.
fn time_calls<F>(
    bencher: &mut Bencher<'_>,
    runtime: &Runtime,
    bench: &Arc<Bench>,
    ask: impl Fn(Arc<Bench>) -> F + Copy + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    bencher.iter_custom(|iterations| {
        let bench = Arc::clone(bench);
        let calls = async move {
            let started = Instant::now();
            for _ in 0..iterations {
                bench.store.clear_memory();
                ask(Arc::clone(&bench)).await;
            }
            started.elapsed()
        };
        runtime.block_on(async { runtime.spawn(calls).await.expect("calls") })
    });
}

async fn one_by_one(bench: Arc<Bench>) {
    let repository = bench.repository();
    for blob in &bench.blobs[..MANY] {
        stat(&repository, blob).await;
    }
}

async fn all_at_once(bench: Arc<Bench>) {
    stat_all(&bench.repository(), &bench.blobs[..MANY]).await;
}

/// Sends the commands of `stat_many`, and ignores their answers.
async fn raw_many(bench: Arc<Bench>) {
    let blobs = &bench.blobs[..MANY];
    let mut pipeline = Pipeline::with_capacity(MANY + 1);
    pipeline.cmd("SMISMEMBER").arg(set());
    for blob in blobs {
        pipeline.arg(&blob.text);
    }
    for blob in blobs {
        pipeline.cmd("HMGET").arg(&blob.hash).arg(&FIELDS);
    }
    let request = pipeline.ignore_errors();
    let replies: RedisResult<Vec<RedisResult<Value>>> =
        request.query_async(&mut bench.raw.clone()).await;
    assert_eq!(replies.expect("replies").len(), MANY + 1);
}

async fn stat_all(repository: &Repository<StoreBackend>, blobs: &[Blob]) {
    let digests: Vec<_> = blobs.iter().map(|blob| blob.digest).collect();
    let answers = repository.stat_many(&digests, Freshness::Cached).await;
    let answers = answers.expect("answers");
    assert_eq!(answers.len(), blobs.len());
    for answer in answers {
        assert!(answer.status == CacheStatus::Redis && answer.value.is_some());
    }
}

fn many_at_once(table: &mut Table, runtime: &Runtime, bench: &Arc<Bench>) {
    let pair = side_by_side(
        "redis_many",
        |bencher| time_calls(bencher, runtime, bench, one_by_one),
        |bencher| time_calls(bencher, runtime, bench, all_at_once),
    );
    let raw = side_by_side(
        "redis_many_raw",
        |bencher| time_calls(bencher, runtime, bench, one_by_one),
        |bencher| time_calls(bencher, runtime, bench, raw_many),
    );
    let trips = runtime.block_on(bench.round_trips(async |repository| {
        stat_all(&repository, &bench.blobs[..MANY]).await;
    }));
    table.add(Row {
        what: "`stat_many(100)`, Redis hit",
        yardstick: "100 × `stat` in sequence",
        target: Target::AtMost(0.05),
        ratio: pair.ratio,
        detail: format!(
            "{}; {trips} round trip for all; the raw SMISMEMBER and 100 HMGET in one pipeline are {:.2} ×",
            micros(&pair),
            raw.ratio
        ),
        holds: trips == 1,
    });
}

fn micros(pair: &Pair) -> String {
    format!("{:.1} → {:.1} µs", pair.yardstick / 1e3, pair.ours / 1e3)
}
