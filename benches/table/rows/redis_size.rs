//! Measures the memory that a cached pair takes in Redis, beside the Go registry's memory for the
//! same pair.
//!
//! The blobs are pushed to the Go registry, which then answers for each. Afterwards nodes of the
//! cache answer for them, over the same folder and with the same Redis, which is emptied in
//! between. The figure is the server's own count of its memory, before and after, without connected
//! clients.

use crate::support::go_registry::GoRegistry;
use crate::support::redis::Redis;
use crate::table::{Row, Table, Target};
use futures::{StreamExt, TryStreamExt};
use layercache::{CacheStatus, CachedStore, Digest, Freshness, RedisConfig};
use object_store::local::LocalFileSystem;
use sha2::Digest as _;
use std::path::Path;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::time::sleep;

/// Not a power of two, because there the server's tables are full.
const PAIRS: usize = 3_000;
const REPOSITORY: &str = "library/alpine";
/// How many blobs are pushed at a time.
const AT_A_TIME: usize = 16;

pub(crate) fn measure(table: &mut Table) {
    let runtime = Runtime::new().expect("a runtime");
    let Bytes {
        go,
        all,
        less,
        seed,
    } = runtime.block_on(bytes());
    let limit = format!("; the seed's `path` and `length` alone, with a time to live, {seed:.0}");
    for (what, ours, target, limit) in [
        (
            "Redis memory per cached pair, all fields",
            all,
            0.85,
            &*limit,
        ),
        ("the same without the path", less, 0.5, ""),
    ] {
        table.add(Row {
            what,
            yardstick: "what docker-registry 2.8 keeps of the same blobs in the same Redis",
            target: Target::AtMost(target),
            ratio: ours / go,
            detail: format!("{go:.0} → {ours:.0} bytes{limit}"),
            holds: true,
        });
    }
}

/// The bytes of a pair.
struct Bytes {
    go: f64,
    all: f64,
    less: f64,
    seed: f64,
}

async fn bytes() -> Bytes {
    let redis = Redis::start().await;
    let root = tempfile::tempdir().expect("a folder");
    let blobs: Vec<Vec<u8>> = (0..PAIRS)
        .map(|i| format!("blob {i}").into_bytes())
        .collect();
    let digests: Vec<Digest> = blobs.iter().map(|blob| digest(blob)).collect();

    // The first round is not measured: what a server allocates for the first client of a kind
    // belongs to no pair.
    let registry = GoRegistry::start(root.path(), Some(&redis), true).await;
    push_all(&registry, &blobs).await;
    drop(registry);
    fill(&redis, root.path(), true, &digests).await;

    redis.cli(&["FLUSHALL"]);
    let before = used(&redis).await;
    let registry = GoRegistry::start(root.path(), Some(&redis), true).await;
    ask_all(&registry, &digests).await;
    drop(registry);
    let go = used(&redis).await - before;
    let fields = redis.cli(&["HKEYS", &format!("blobs::{}", digests[0])]);
    assert!(fields.contains("mediatype"), "it has cached: {fields}");

    let mut ours = [0.0; 2];
    for (bytes, omit_path) in ours.iter_mut().zip([false, true]) {
        redis.cli(&["FLUSHALL"]);
        let before = used(&redis).await;
        fill(&redis, root.path(), omit_path, &digests).await;
        *bytes = used(&redis).await - before;
        assert_eq!(redis.cli(&["--scan", "--pattern", "lease::*"]), "");
    }
    redis.cli(&["FLUSHALL"]);
    let before = used(&redis).await;
    fill_as_the_seed(&redis, &digests).await;
    let seed = used(&redis).await - before;
    let [go, all, less, seed] = [go, ours[0], ours[1], seed].map(|bytes| bytes / PAIRS as f64);
    Bytes {
        go,
        all,
        less,
        seed,
    }
}

/// Writes the seed's fields. No cache with these fields takes less.
async fn fill_as_the_seed(redis: &Redis, digests: &[Digest]) {
    let client = ::redis::Client::open(redis.url()).expect("an address");
    let connecting = client.get_multiplexed_async_connection();
    let mut connection = connecting.await.expect("a connection");
    for digests in digests.chunks(100) {
        let mut pipeline = ::redis::pipe();
        for digest in digests {
            let (set, hash) = (format!("repository::{REPOSITORY}::blobs"), digest.hex());
            let path = format!(
                "docker/registry/v2/blobs/sha256/{}/{hex}/data",
                &hash[..2],
                hex = hash
            );
            let hash = format!("blobs::{digest}");
            pipeline.sadd(&set, digest.to_string()).ignore();
            pipeline
                .hset_multiple(&hash, &[("path", &*path), ("length", "10")])
                .ignore();
            pipeline.pexpire(&hash, 3_600_000).ignore();
        }
        let () = pipeline.query_async(&mut connection).await.expect("writes");
    }
}

fn digest(blob: &[u8]) -> Digest {
    Digest::Sha256(sha2::Sha256::digest(blob).into())
}

async fn push_all(registry: &GoRegistry, blobs: &[Vec<u8>]) {
    let client = reqwest::Client::new();
    let url = format!("{}/v2/{REPOSITORY}/blobs", registry.url());
    let pushes = blobs.iter().map(|blob| push(&client, &url, blob));
    let mut pushes = futures::stream::iter(pushes).buffer_unordered(AT_A_TIME);
    while let Some(()) = pushes.try_next().await.expect("a push") {}
}

async fn push(client: &reqwest::Client, url: &str, blob: &[u8]) -> reqwest::Result<()> {
    let begun = client.post(format!("{url}/uploads/")).send().await?;
    let begun = begun.error_for_status()?;
    let location = begun.headers()["location"].to_str().expect("a location");
    let written = client.put(format!("{location}&digest={}", digest(blob)));
    let written = written.body(blob.to_vec()).send().await?;
    written.error_for_status().map(drop)
}

/// Asks for each blob, as a client does that pushes a known image.
async fn ask_all(registry: &GoRegistry, digests: &[Digest]) {
    let client = reqwest::Client::new();
    let url = format!("{}/v2/{REPOSITORY}/blobs", registry.url());
    let asks = digests.iter().map(async |digest| {
        let head = client.head(format!("{url}/{digest}")).send().await?;
        head.error_for_status().map(drop)
    });
    let mut asks = futures::stream::iter(asks).buffer_unordered(AT_A_TIME);
    while let Some(()) = asks.try_next().await.expect("a head") {}
}

/// Lets a node ask for all blobs, and shuts it down.
async fn fill(redis: &Redis, root: &Path, omit_path: bool, digests: &[Digest]) {
    let inner = LocalFileSystem::new_with_prefix(root).expect("a store");
    let config = RedisConfig::new(redis.url())
        .with_timeout(Duration::from_secs(5))
        .with_omit_path(omit_path);
    let store = CachedStore::builder(inner).redis(config);
    let store = store.build().expect("a configuration");
    let repository = store
        .registry()
        .repository(REPOSITORY.parse().expect("a name"));
    loop {
        store.clear_memory();
        let answers = repository.stat_many(digests, Freshness::Cached).await;
        let answers = answers.expect("answers");
        assert!(answers.iter().all(|answer| answer.value.is_some()));
        if answers
            .iter()
            .all(|answer| answer.status == CacheStatus::Redis)
        {
            break;
        }
    }
    store.shutdown().await;
}

/// Returns the bytes that the server has allocated when no client is connected and its tables are
/// at rest.
async fn used(redis: &Redis) -> f64 {
    let (mut last, mut same) = (0, 0);
    for _ in 0..100 {
        let clients = number(&redis.cli(&["INFO", "clients"]), "connected_clients:");
        let now = number(&redis.cli(&["INFO", "memory"]), "used_memory:");
        same = if clients == 1 && now == last {
            same + 1
        } else {
            0
        };
        if same == 3 {
            return now as f64;
        }
        last = now;
        sleep(Duration::from_millis(100)).await;
    }
    panic!("the memory of the server does not settle");
}

fn number(info: &str, name: &str) -> u64 {
    let line = info.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|digits| digits.trim().parse().ok())
        .expect(name)
}
