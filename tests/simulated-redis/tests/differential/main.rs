//! Whether the simulated Redis answers as real servers do.
//!
//! Random histories of all commands that nodes send, and of their scripts, run on a real server and
//! on the simulated one. The answers have to be equal, byte for byte, except for times and
//! identities. A history that fails is made shorter and printed with its seed.
//!
//! `LAYERCACHE_DIFFERENTIAL_SEED` is the first seed, `LAYERCACHE_DIFFERENTIAL_RUNS` says how many.
#![allow(missing_debug_implementations, reason = "these are tools of tests")]

mod calls;
mod cluster;
mod compare;
mod generate;
mod wire;
mod world;

use generate::{Generator, Step};
use simulated_redis::Flavor;
use std::env;
use test_support::redis::{Redis, Version};
use world::World;

/// How many commands a history has.
const LENGTH: usize = 60;
const RUNS: u64 = 150;
const CLUSTERED_RUNS: u64 = 50;

fn variable(name: &str, default: u64) -> u64 {
    let given = env::var(name).ok();
    given.map_or(default, |given| given.parse().expect("a number"))
}

fn compare(version: Version, flavor: Flavor) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    let redis = runtime.block_on(Redis::start_of(version));
    let world = World {
        flavor,
        addresses: vec![redis.address()],
        views: Vec::new(),
    };
    compare_in(&world, RUNS);
}

/// Compares the servers of a cluster, between which one slot moves.
fn compare_clustered(version: Version, flavor: Flavor) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    let (_servers, world) = runtime.block_on(cluster::start(version, flavor));
    compare_in(&world, CLUSTERED_RUNS);
}

fn compare_in(world: &World, runs: u64) {
    let scripts = layercache::internals::script_texts();
    let default = fastrand::u64(..1_000_000);
    let first = variable("LAYERCACHE_DIFFERENTIAL_SEED", default);
    let runs = variable("LAYERCACHE_DIFFERENTIAL_RUNS", runs);
    println!("{runs} histories from seed {first}");
    for seed in first..first + runs {
        let mut generator = Generator {
            rng: fastrand::Rng::with_seed(seed),
            scripts: &scripts,
            is_clustered: world.is_clustered(),
        };
        let history = generator.history(LENGTH);
        if world.run(&history).is_some() {
            let (history, difference) = world.shorten(history);
            let steps: Vec<_> = history.iter().map(shown).collect();
            panic!(
                "LAYERCACHE_DIFFERENTIAL_SEED={seed}: {:?}\n{}\non connection {}:\n  \
                 real      {:?}\n  simulated {:?}",
                world.flavor,
                steps.join("\n"),
                difference.connection,
                difference.real,
                difference.simulated,
            );
        }
    }
}

fn shown(step: &Step) -> String {
    // The texts of scripts are long.
    let words = step.words.iter().map(|word| {
        let word = word.escape_ascii().to_string();
        word.chars().take(120).collect::<String>()
    });
    let words = words.collect::<Vec<_>>().join(" | ");
    format!("  {}: {words}", step.connection)
}

#[test]
fn it_answers_as_redis_6_2() {
    compare(Version::Redis6_2, Flavor::Redis6_2);
}

#[test]
fn it_answers_as_redis_7() {
    compare(Version::Redis, Flavor::Redis7);
}

#[test]
fn it_answers_as_valkey() {
    compare(Version::Valkey, Flavor::Valkey);
}

#[test]
fn a_cluster_answers_as_one_of_redis_6_2() {
    compare_clustered(Version::Redis6_2, Flavor::Redis6_2);
}

#[test]
fn a_cluster_answers_as_one_of_redis_7() {
    compare_clustered(Version::Redis, Flavor::Redis7);
}

#[test]
fn a_cluster_answers_as_one_of_valkey() {
    compare_clustered(Version::Valkey, Flavor::Valkey);
}
