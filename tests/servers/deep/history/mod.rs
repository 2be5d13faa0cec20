//! Sends random reads and changes to nodes on one Redis, while the network and the server fail at
//! random. Afterwards it checks that the promise allows every answer.
//!
//! `LAYERCACHE_HISTORY_SECONDS` sets how long it runs. With `LAYERCACHE_HISTORY_SEED` it begins
//! with that seed.

mod check;
mod injector;
use test_support as support;

use injector::Injector;
use std::panic::resume_unwind;
use std::time::{Duration, Instant};
use support::history::check::Verdict;
use support::history::cluster::Cluster;
use support::history::flaky::Flaky;
use support::history::record::History;
use support::history::report::judge;
use support::history::traffic::{Load, Traffic};
use support::redis::Redis;
use support::tools::setting;
use tokio::task::JoinError;

const NODES: usize = 3;
/// How long one seed injects faults.
const ROUND: Duration = Duration::from_secs(12);
/// How many seeds run at the same time. They mostly wait.
const ABREAST: u64 = 2;
/// One call to the store in this many fails.
const STORE_FAILS: u32 = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_read_returns_a_state_older_than_an_acknowledged_change() {
    let seconds = setting("LAYERCACHE_HISTORY_SECONDS").unwrap_or(60);
    let first = setting("LAYERCACHE_HISTORY_SEED").unwrap_or_else(|| u64::from(fastrand::u32(..)));
    let (begin, mut seed, mut total) = (Instant::now(), first, Verdict::default());
    loop {
        let rounds = (seed..seed + ABREAST).map(|seed| tokio::spawn(round(seed)));
        let rounds: Vec<_> = rounds.collect();
        for round in rounds {
            // The round has printed why it failed.
            let ended = round.await.map_err(JoinError::into_panic);
            let verdict = ended.unwrap_or_else(|why| resume_unwind(why));
            total.decided += verdict.decided;
            total.from_memory += verdict.from_memory;
            total.from_redis += verdict.from_redis;
        }
        seed += ABREAST;
        if (begin.elapsed() + ROUND).as_secs() > seconds {
            break;
        }
    }
    println!(
        "seeds {first}..{seed}: {} reads decided, {} answers from memory, {} from Redis",
        total.decided, total.from_memory, total.from_redis
    );
    assert!(total.is_enough((seed - first) as usize), "{total:?}");
}

async fn round(seed: u64) -> Verdict {
    println!("seed {seed}");
    let store = Flaky::new(seed, STORE_FAILS);
    let mut cluster = Cluster::start(NODES, store, Redis::start().await).await;
    let history = History::default();
    let traffic = Traffic::start(&cluster.nodes, &cluster.store, &history, seed, load(seed)).await;
    let mut injector = Injector::new(&history, seed);
    injector.run(&mut cluster, Instant::now() + ROUND).await;
    // After all faults every node must work as before.
    traffic.wait_until_well().await;
    traffic.wait_until_enough().await;
    traffic.stop().await;
    judge(&format!("seed {seed}"), &history.take())
}

/// Returns one of four loads, from few readers and changers to many.
fn load(seed: u64) -> Load {
    let (blobs, readers, changers, has_quiet) = match seed % 5 {
        0 | 1 => (6, 1, 1, true),
        2 => (1, 2, 1, false),
        3 => (3, 8, 2, false),
        _ => (6, 8, 3, false),
    };
    Load {
        blobs,
        readers,
        changers,
        has_quiet,
    }
}
