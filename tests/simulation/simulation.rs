//! Runs whole nodes, the real Lua scripts and the store in simulated time, under one seed. Checks
//! that the promises of the cache hold whatever fails.
//!
//! | variable | what it does |
//! |---|---|
//! | `LAYERCACHE_SIM_SEED` | runs this seed alone |
//! | `LAYERCACHE_SIM_RUNS` | how many seeds run |

mod busy;
mod clock;
mod cluster;
mod faults;
mod machine;
mod network;
mod outbox;
mod rest;
mod run;
mod server;
mod shape;
mod store;
mod stream;
mod strike;
mod topology;
mod traffic;
mod world;

use run::{Outcome, run};
use std::env;
use std::num::NonZero;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// How many seeds `cargo test` runs.
const SEEDS: u64 = 60;

#[test]
fn no_seed_finds_a_wrong_answer() {
    let (first, count) = match setting("LAYERCACHE_SIM_SEED") {
        Some(seed) => (seed, 1),
        None => (0, setting("LAYERCACHE_SIM_RUNS").unwrap_or(SEEDS)),
    };
    let (mut decided, mut wrong) = (0, Vec::new());
    for (seed, outcome) in run_all(first..first + count) {
        decided += outcome.decided;
        if let Some(report) = outcome.report {
            wrong.push((seed, report));
        }
    }
    wrong.sort();
    println!(
        "{count} seeds, {decided} reads decided, {} seeds wrong",
        wrong.len()
    );
    // Fewer decided reads would mean that the nodes hardly worked.
    assert!(count < 10 || decided as u64 >= 500 * count, "{decided}");
    if let Some((seed, report)) = wrong.first() {
        panic!(
            "{report}\nseed {seed} finds this: repeat it with \
             `LAYERCACHE_SIM_SEED={seed} cargo test --test simulation -- --nocapture`"
        );
    }
}

#[test]
fn a_seed_gives_the_same_history_each_time() {
    for seed in 0..10 {
        let [first, second]: [Outcome; 2] = [run(seed), run(seed)];
        assert_eq!(first.hash, second.hash, "seed {seed}");
        assert_eq!(first.to_string(), second.to_string(), "seed {seed}");
    }
}

/// Runs the seeds, one on each processor at a time.
fn run_all(seeds: Range<u64>) -> Vec<(u64, Outcome)> {
    let next = AtomicU64::new(seeds.start);
    let outcomes = Mutex::new(Vec::new());
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let outcome = run(seed);
                    println!("{outcome}");
                    outcomes.lock().unwrap().push((seed, outcome));
                }
            });
        }
    });
    outcomes.into_inner().unwrap()
}

fn setting(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}
