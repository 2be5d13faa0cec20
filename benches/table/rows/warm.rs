//! Measures `warm` from a list of 200,000 blobs, beside writing the same facts that are known
//! already.

use crate::clock::median;
use crate::support::redis::Redis;
use crate::table::{Row, Table, Target};
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use layercache::layout::{Distribution, Layout, Meaning};
use layercache::{CachedStore, Digest, LayerMeta, MemoryConfig, RedisConfig, WarmProgress};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};
use tokio::runtime::Runtime;

const BLOBS: u64 = 200_000;

/// How often the two alternate.
const ROUNDS: usize = 5;

/// How many facts the yardstick writes in one pipeline.
const PIPELINE: usize = 1000;

/// The TTL of all entries.
const TTL: Duration = Duration::from_secs(3600);

pub(crate) fn measure(table: &mut Table) {
    let runtime = Runtime::new().expect("a runtime");
    let bucket = Bucket::new();
    table.add(memory(&runtime, &bucket));
    table.add(redis(&runtime, &bucket));
}

fn memory(runtime: &Runtime, bucket: &Bucket) -> Row {
    let facts = bucket.facts();
    let (mut raw, mut ours, mut holds) = (Vec::new(), Vec::new(), true);
    let mut from_list = Vec::new();
    for _ in 0..ROUNDS {
        from_list.push(insert_from_list(runtime, bucket));
        let cache = raw_cache();
        let begun = Instant::now();
        for (digest, meta) in &facts {
            cache.insert(*digest, meta.clone());
        }
        raw.push(begun.elapsed());
        drop(cache);

        let store = bucket.cached().build().expect("settings that work");
        let (warmed, taken) = warm(runtime, &store);
        ours.push(taken);
        holds &= is_complete(&warmed) && bucket.takes_lists(1);
        holds &= bucket.knows_all(runtime, &store, &facts);
    }
    row(
        "`warm` from a list of 200,000 blobs, memory alone",
        "inserting the same keys and metas into one raw moka cache",
        (&raw, &ours),
        format!(
            "{:.2} µs where the raw cache's keys and metas are made from the list as well; no read of the store",
            micros(&from_list)
        ),
        holds,
    )
}

type Raw = moka::sync::Cache<Digest, LayerMeta, foldhash::fast::RandomState>;

fn raw_cache() -> Raw {
    moka::sync::Cache::builder()
        .max_capacity(BLOBS * 2)
        .time_to_live(TTL)
        .build_with_hasher(foldhash::fast::RandomState::default())
}

/// Measures the part of the cost that remains without a protection against blobs that are deleted
/// meanwhile.
fn insert_from_list(runtime: &Runtime, bucket: &Bucket) -> Duration {
    let cache = raw_cache();
    let begun = Instant::now();
    runtime.block_on(async {
        let mut objects = bucket.list(None);
        while let Some(object) = objects.next().await {
            let (digest, meta) = fact(&object.expect("an object"));
            cache.insert(digest, meta);
        }
    });
    let taken = begun.elapsed();
    bucket.takes_lists(1);
    taken
}

fn redis(runtime: &Runtime, bucket: &Bucket) -> Row {
    let facts = bucket.facts();
    let server = runtime.block_on(Redis::start());
    let (mut raw, mut ours, mut holds) = (Vec::new(), Vec::new(), true);
    let (mut raw_cpu, mut our_cpu) = (Vec::new(), Vec::new());
    let (mut leased, mut leased_cpu) = (Vec::new(), Vec::new());
    let mut connection = runtime.block_on(async {
        let client = redis::Client::open(server.url()).expect("an address");
        client
            .get_multiplexed_async_connection()
            .await
            .expect("a connection")
    });
    for _ in 0..ROUNDS {
        let mut write_all = |with_leases: bool| {
            server.cli(&["FLUSHALL"]);
            let (before, begun) = (cpu(&server), Instant::now());
            runtime.block_on(async {
                for facts in facts.chunks(PIPELINE) {
                    write(&mut connection, facts, with_leases).await;
                }
            });
            let taken = begun.elapsed();
            (taken, (cpu(&server) - before) * 1e6 / BLOBS as f64)
        };
        let (taken, used) = write_all(false);
        raw.push(taken);
        raw_cpu.push(used);
        let (taken, used) = write_all(true);
        leased.push(taken);
        leased_cpu.push(used);

        server.cli(&["FLUSHALL"]);
        let config = RedisConfig::new(server.url()).with_timeout(Duration::from_secs(5));
        let store = runtime.block_on(async {
            let builder = bucket.cached().redis(config);
            builder.build().expect("settings that work")
        });
        // The node fills memory too, as soon as it may trust it.
        std::thread::sleep(Duration::from_millis(1500));
        let before = cpu(&server);
        let (warmed, taken) = warm(runtime, &store);
        our_cpu.push((cpu(&server) - before) * 1e6 / BLOBS as f64);
        ours.push(taken);
        let keys = server.cli(&["DBSIZE"]);
        let keys: u64 = keys.trim().parse().expect("a number of keys");
        // Beside the blobs there is the peer set.
        holds &= is_complete(&warmed) && bucket.takes_lists(1 + BLOBS as usize / 1000);
        holds &= keys >= BLOBS && bucket.knows_all(runtime, &store, &facts);
        runtime.block_on(store.shutdown());
    }
    let detail = format!(
        "{:.1} and {:.1} µs of the server's CPU a blob; the raw writes with a raw lease around each {:.2} and {:.1} µs; memory is filled as well; no read of the store",
        median(raw_cpu.into_iter()),
        median(our_cpu.into_iter()),
        micros(&leased),
        median(leased_cpu.into_iter())
    );
    row(
        "`warm` from a list of 200,000 blobs, with Redis",
        "raw pipelined writes of the same facts (`HSET`, `PEXPIRE`), 1,000 at a time",
        (&raw, &ours),
        detail,
        holds,
    )
}

fn row(
    what: &'static str,
    yardstick: &'static str,
    (raw, ours): (&[Duration], &[Duration]),
    detail: String,
    holds: bool,
) -> Row {
    let pairs = raw.iter().zip(ours);
    Row {
        what,
        yardstick,
        target: Target::AtMost(2.0),
        ratio: median(pairs.map(|(raw, ours)| ours.as_secs_f64() / raw.as_secs_f64())),
        detail: format!(
            "{:.2} and {:.2} µs a blob; {detail}",
            micros(raw),
            micros(ours)
        ),
        holds,
    }
}

fn micros(times: &[Duration]) -> f64 {
    let times = times.iter().map(Duration::as_secs_f64);
    median(times) * 1e6 / BLOBS as f64
}

fn warm(runtime: &Runtime, store: &CachedStore<Bucket>) -> (WarmProgress, Duration) {
    let begun = Instant::now();
    let warmed = runtime.block_on(async { store.warm(None).await });
    (warmed.expect("a list"), begun.elapsed())
}

fn is_complete(warmed: &WarmProgress) -> bool {
    (warmed.seen, warmed.filled) == (BLOBS, BLOBS)
}

async fn write(
    connection: &mut redis::aio::MultiplexedConnection,
    facts: &[(Digest, LayerMeta)],
    with_leases: bool,
) {
    let mut pipeline = redis::Pipeline::with_capacity(facts.len() * 4);
    let lease = |digest: &Digest| format!("lease::{{blobs::{digest}}}");
    if with_leases {
        for (digest, _) in facts {
            pipeline
                .cmd("SET")
                .arg(lease(digest))
                .arg(fastrand::u64(..));
            pipeline.arg("NX").arg("PX").arg(10_000);
        }
    }
    for (digest, meta) in facts {
        let key = format!("blobs::{digest}");
        pipeline.cmd("HSET").arg(&key).arg("path").arg(meta.path());
        pipeline.arg("length").arg(meta.length());
        pipeline.arg("e_tag").arg(meta.e_tag());
        pipeline
            .cmd("PEXPIRE")
            .arg(&key)
            .arg(TTL.as_millis() as u64);
        if with_leases {
            pipeline.cmd("DEL").arg(lease(digest));
        }
    }
    let written: redis::RedisResult<Vec<redis::Value>> = pipeline.query_async(connection).await;
    written.expect("a server that takes it");
}

/// Returns the seconds of CPU that the server has used.
fn cpu(server: &Redis) -> f64 {
    let info = server.cli(&["INFO", "cpu"]);
    let of = |name: &str| -> f64 {
        let line = info.lines().find_map(|line| line.strip_prefix(name));
        let value = line.and_then(|value| value.trim().parse().ok());
        value.expect("the server's CPU")
    };
    of("used_cpu_user:") + of("used_cpu_sys:")
}

/// A bucket of blobs whose lists cost nothing. It supports nothing else.
#[derive(Debug, Clone)]
struct Bucket {
    objects: Arc<[ObjectMeta]>,
    lists: Arc<AtomicUsize>,
    reads: Arc<AtomicUsize>,
}

impl Bucket {
    fn new() -> Self {
        let layout = Distribution::default();
        let mut objects: Vec<_> = (0..BLOBS)
            .map(|i| {
                let mut hash = [0; 32];
                for (word, bytes) in hash.chunks_exact_mut(8).enumerate() {
                    let word = (i * 4 + word as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    bytes.copy_from_slice(&(word ^ (word >> 29)).to_be_bytes());
                }
                ObjectMeta {
                    location: layout.blob_path(&Digest::Sha256(hash)).expect("a path"),
                    last_modified: UNIX_EPOCH.into(),
                    size: 1000 + i,
                    e_tag: Some(format!("\"{:032x}\"", u128::from(i))),
                    version: None,
                }
            })
            .collect();
        objects.sort_by(|one, other| one.location.cmp(&other.location));
        Self {
            objects: objects.into(),
            lists: Arc::default(),
            reads: Arc::default(),
        }
    }

    /// Returns the facts of each blob, as the list states them.
    fn facts(&self) -> Vec<(Digest, LayerMeta)> {
        self.objects.iter().map(fact).collect()
    }

    fn cached(&self) -> layercache::CachedStoreBuilder<Self> {
        let memory = MemoryConfig::default().with_capacity(1 << 30).with_ttl(TTL);
        CachedStore::builder(self.clone()).memory(memory)
    }

    /// Returns whether there were this many lists and no reads since the last call.
    fn takes_lists(&self, count: usize) -> bool {
        let (lists, reads) = (
            self.lists.swap(0, Ordering::SeqCst),
            self.reads.swap(0, Ordering::SeqCst),
        );
        if (lists, reads) != (count, 0) {
            eprintln!("{lists} lists, {reads} reads; {count} lists expected");
        }
        (lists, reads) == (count, 0)
    }

    /// Returns whether memory knows the blobs.
    fn knows_all(
        &self,
        runtime: &Runtime,
        store: &CachedStore<Self>,
        facts: &[(Digest, LayerMeta)],
    ) -> bool {
        let blobs = store.registry().blobs();
        let knows = facts.iter().step_by(997).all(|(digest, meta)| {
            let answer = blobs.stat(digest, layercache::Freshness::Cached);
            let answer = runtime.block_on(answer).expect("an answer");
            answer.value.as_ref() == Some(meta) && answer.status == layercache::CacheStatus::Memory
        });
        knows && self.takes_lists(0)
    }

    fn list_from(&self, range: Range<usize>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.lists.fetch_add(1, Ordering::SeqCst);
        let objects = Arc::clone(&self.objects);
        stream::iter(range.map(move |i| Ok(objects[i].clone()))).boxed()
    }
}

fn fact(object: &ObjectMeta) -> (Digest, LayerMeta) {
    let meaning = Distribution::default().meaning(&object.location);
    let Some(Meaning::Blob(digest)) = meaning else {
        panic!("{object:?}");
    };
    let meta = LayerMeta::new(object.location.as_ref(), object.size).expect("a path");
    (
        digest,
        meta.with_e_tag(object.e_tag.as_deref().expect("a tag")),
    )
}

fn no<T>(operation: &str) -> Result<T> {
    Err(Error::NotImplemented {
        operation: operation.to_owned(),
        implementer: "Bucket".to_owned(),
    })
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bucket")
    }
}

#[async_trait]
impl ObjectStore for Bucket {
    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        no("put")
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        no("put_multipart")
    }

    async fn get_opts(&self, _: &Path, _: GetOptions) -> Result<GetResult> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        no("get")
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        locations.map(|_| no("delete")).boxed()
    }

    fn list(&self, _: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.list_from(0..self.objects.len())
    }

    fn list_with_offset(
        &self,
        _: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let first = self
            .objects
            .partition_point(|object| object.location <= *offset);
        self.list_from(first..self.objects.len())
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        no("list_with_delimiter")
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        no("copy")
    }
}
