//! Runs whole nodes, the real Lua scripts and the store in simulated time, under one seed. Checks
//! that the promises of the cache hold whatever fails.
//!
//! | variable | what it does |
//! |---|---|
//! | `LAYERCACHE_SIM_SEED` | runs this seed alone |
//! | `LAYERCACHE_SIM_RUNS` | how many seeds run |
//! | `LAYERCACHE_SIM_FIRST` | the first of them |
//! | `LAYERCACHE_SIM_SCENE` | lets each run be about this scene |
//! | `LAYERCACHE_SIM_CUT` | leaves out a part of the seed, as a failure prints it |
//! | `LAYERCACHE_SIM_BEND` | bends the rules of the protocol, which the seeds have to find |

mod acts;
mod ask;
mod backend;
mod bends;
mod busy;
mod clients;
mod clock;
mod cluster;
mod collect;
mod cut;
mod faults;
mod finding;
mod machine;
mod network;
mod outbox;
mod plan;
mod request;
mod rest;
mod run;
mod running;
mod scenes;
mod server;
mod setting;
mod shape;
mod shrink;
mod signed;
mod store;
mod stream;
mod strike;
mod topology;
mod traffic;
mod truth;
mod values;
mod wire;
mod world;

use cut::Cut;
use run::{Outcome, run, run_cut};
use shrink::Shrunk;
use std::env;
use std::num::NonZero;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// How many seeds `cargo test` runs.
const SEEDS: u64 = 200;

/// How many seeds run with each bent rule.
const BENT_SEEDS: u64 = 1_000;

#[test]
fn no_seed_finds_a_wrong_answer() {
    let seed = setting("LAYERCACHE_SIM_SEED");
    let runs = setting("LAYERCACHE_SIM_RUNS");
    let bent = env::var("LAYERCACHE_SIM_BEND").ok();
    if let (Some(rules), None) = (&bent, seed) {
        return bends::find(rules, runs.unwrap_or(BENT_SEEDS));
    }
    if let Some(seed) = seed {
        return run_one(seed, bent.as_deref());
    }
    let first = setting("LAYERCACHE_SIM_FIRST").unwrap_or(0);
    let count = runs.unwrap_or(SEEDS);
    let (mut decided, mut wrong) = (0, Vec::new());
    for (seed, outcome) in run_all(first..first + count) {
        decided += outcome.decided;
        if let Some(finding) = &outcome.finding {
            println!("seed {seed} has found: {}", finding.kind);
            wrong.push((seed, outcome));
        }
    }
    wrong.sort_by_key(|(seed, _)| *seed);
    println!(
        "{count} seeds, {decided} reads decided, {} seeds wrong",
        wrong.len()
    );
    // Fewer decided reads would mean that the nodes hardly worked.
    assert!(count < 10 || decided as u64 >= 500 * count, "{decided}");
    if let Some((seed, outcome)) = wrong.into_iter().next() {
        fail(seed, Cut::default(), outcome, None);
    }
}

/// Runs one seed, or the part of it that `LAYERCACHE_SIM_CUT` leaves.
fn run_one(seed: u64, bent: Option<&str>) {
    let cut = env::var("LAYERCACHE_SIM_CUT").unwrap_or_default();
    let cut: Cut = cut.parse().unwrap_or_else(|error| panic!("{error}"));
    bends::bend(bent);
    let outcome = run_cut(seed, &cut);
    println!("{outcome}");
    if outcome.finding.is_some() {
        fail(seed, cut, outcome, bent);
    }
}

/// Makes a run that has found something shorter, and panics with what led to it.
fn fail(seed: u64, cut: Cut, outcome: Outcome, bent: Option<&str>) -> ! {
    let whole = outcome.to_string();
    let shrunk = Shrunk::new(seed, cut, outcome);
    let scene = env::var("LAYERCACHE_SIM_SCENE").ok();
    let scene = scene.map(|scene| format!(" LAYERCACHE_SIM_SCENE={scene}"));
    let bend = bent.map(|rule| format!(" LAYERCACHE_SIM_BEND={rule}"));
    let with = [scene, bend].map(Option::unwrap_or_default).concat();
    panic!(
        "{}\nthe shortest run that finds something: {}\nfrom: {whole}\nrepeat the whole run, or \
         the shortest one:\n\
         LAYERCACHE_SIM_SEED={seed}{with} cargo test --test simulation no_seed -- --nocapture\n\
         LAYERCACHE_SIM_SEED={seed} LAYERCACHE_SIM_CUT='{}'{with} cargo test --test simulation \
         no_seed -- --nocapture",
        shrunk.report(),
        shrunk.outcome,
        shrunk.cut,
    );
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
