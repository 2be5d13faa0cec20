//! Tests an audit of many entries: its memory is bounded, it is as fast as the storage, and it can
//! be interrupted.

use super::{World, store_blob, store_link};
use layercache::RepositoryName;
use layercache_cli::admin::{Audit, AuditPosition, AuditReport};
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use test_support::nodes::{blob_path, config, digest};
use test_support::recording::Recording;
use test_support::redis::Redis;
use tokio::sync::Notify;

type Store = Recording<ThrottledStore<InMemory>>;

/// The number of memberships, and of hashes.
const BLOBS: u32 = 50_000;
/// The number of blobs in one repository. The others are in repositories of a thousand blobs.
const IN_ONE: u32 = 30_000;
/// One in this many blobs is absent.
const GONE: usize = 500;
/// How long the storage takes for each call.
const LATENCY: Duration = Duration::from_millis(1);
const CONCURRENCY: usize = 64;

fn repository(i: u32) -> RepositoryName {
    let number = if i < IN_ONE { 0 } else { i / 1000 };
    format!("team/app{number}").parse().unwrap()
}

/// Writes facts like those of [`as_go`](super::as_go) inside the server.
const FILL: &str = "
for i = ARGV[1], ARGV[2] - 1 do
  local digest = 'sha256:' .. string.format('%08x', i) .. string.rep('07', 28)
  local number = i < tonumber(ARGV[3]) and 0 or math.floor(i / 1000)
  redis.call('SADD', 'repository::team/app' .. number .. '::blobs', digest)
  redis.call('HSET', 'blobs::' .. digest, 'digest', digest, 'size', 7)
end
";

async fn world() -> (Store, Redis) {
    let redis = Redis::start().await;
    for from in (0..BLOBS).step_by(5000) {
        let [from, to, one] = [from, from + 5000, IN_ONE].map(|number| number.to_string());
        redis.cli(&["EVAL", FILL, "0", &from, &to, &one]);
    }
    let store = InMemory::new();
    for i in 0..BLOBS {
        store_blob(&store, &digest(i)).await;
        store_link(&store, &repository(i), &digest(i)).await;
    }
    for i in (0..BLOBS).step_by(GONE) {
        store.delete(&blob_path(&digest(i))).await.unwrap();
    }
    let config = ThrottleConfig {
        wait_get_per_call: LATENCY,
        ..Default::default()
    };
    (Recording::new(ThrottledStore::new(store, config)), redis)
}

/// What several audits have reported, each of which resumed the one before.
#[derive(Debug, Default)]
struct Reported {
    findings: Vec<String>,
    reports: Vec<AuditReport>,
    positions: Vec<AuditPosition>,
    told: usize,
}

/// Returns whether a position is in the middle of a set.
fn is_within(position: &AuditPosition) -> bool {
    let text = position.to_string();
    let parts: Vec<_> = text.split('.').collect();
    parts.len() == 7 && parts[6] != "0"
}

/// Resumes at the last position, and stops in the middle of a set once this many entries have been
/// checked. Returns whether the audit has reached its end.
async fn go_on(store: &Store, redis: &Redis, reported: &Arc<Mutex<Reported>>, until: u64) -> bool {
    let stop = Arc::new(Notify::new());
    let (to_findings, to_progress, stopped) = (
        Arc::clone(reported),
        Arc::clone(reported),
        Arc::clone(&stop),
    );
    reported
        .lock()
        .unwrap()
        .reports
        .push(AuditReport::default());
    let last = reported.lock().unwrap().positions.last().cloned();
    let mut audit = Audit::new(store.clone(), config(redis))
        .unwrap()
        .rate(1e9)
        .concurrency(CONCURRENCY)
        .findings(move |finding| {
            to_findings
                .lock()
                .unwrap()
                .findings
                .push(finding.to_string());
        })
        .progress(move |so_far| {
            let mut reported = to_progress.lock().unwrap();
            reported.told += 1;
            *reported.reports.last_mut().unwrap() = so_far.report.clone();
            // The audit reports progress before it has checked anything.
            let Some(position) = so_far.position.clone() else {
                return;
            };
            let stops = so_far.report.looked_at() >= until && is_within(&position);
            reported.positions.push(position);
            if stops {
                stopped.notify_one();
            }
        });
    if let Some(last) = &last {
        let text = last.to_string();
        audit = audit.resume_after(&text.parse().unwrap());
    }
    tokio::select! {
        done = audit.into_future() => {
            done.unwrap();
            true
        }
        () = stop.notified() => false,
    }
}

#[test]
fn a_large_audit_is_interrupted_and_its_memory_is_bounded() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (store, redis) = runtime.block_on(world());
    let reported = Arc::new(Mutex::new(Reported::default()));
    let began = Instant::now();
    // Everything in it runs on this thread.
    let costs = allocation_counter::measure(|| {
        runtime.block_on(async {
            for until in [1000, 5000] {
                let is_over = go_on(&store, &redis, &reported, until).await;
                assert!(!is_over, "not interrupted");
            }
            assert!(go_on(&store, &redis, &reported, u64::MAX).await);
        });
    });
    let took = began.elapsed();
    let reported = std::mem::take(&mut *reported.lock().unwrap());

    let looked_at: u64 = reported.reports.iter().map(AuditReport::looked_at).sum();
    let all = 2 * u64::from(BLOBS);
    // Pages have about 500 entries. Two of them were interrupted, a page of keys and a page of
    // members, so their entries may be checked twice.
    assert!(
        (all..all + 2 * 1200).contains(&looked_at),
        "{looked_at} looked at"
    );
    let found: BTreeSet<_> = reported.findings.iter().collect();
    assert_eq!(found.len(), 2 * BLOBS as usize / GONE);
    assert!(reported.told > 150, "told {} times", reported.told);

    let (reads, most) = (store.reads(), store.most_reads_at_a_time());
    assert_eq!(most, CONCURRENCY);
    let least = LATENCY * (reads / CONCURRENCY) as u32;
    assert!(took > least, "{reads} questions in {took:?}");
    let most = costs.bytes_max;
    assert!(most < 12 << 20, "{most} bytes at a time");
    eprintln!("{looked_at} entries, {reads} questions, {took:?}, {most} bytes at most");
}

/// While the storage does not answer, the audit reads nothing more from Redis.
#[tokio::test]
async fn a_storage_that_hangs_stops_the_reads_from_redis() {
    let redis = Redis::start().await;
    let one = IN_ONE.to_string();
    redis.cli(&["EVAL", FILL, "0", "0", "5000", &one]);
    let store = Recording::new(InMemory::new());
    store.hold(true);
    let audit = Audit::new(store.clone(), config(&redis))
        .unwrap()
        .concurrency(8);
    let audit = tokio::spawn(World::run(audit.rate(1e9)));
    test_support::nodes::eventually("questions", || store.reads() == 8).await;
    let scans = || {
        let stats = redis.cli(&["INFO", "commandstats"]);
        let scans = stats.lines().filter(|line| line.contains("scan:"));
        scans
            .map(|line| line.split(',').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let before = scans();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!((scans(), store.reads()), (before, 8));
    audit.abort();
    store.hold(false);
}
