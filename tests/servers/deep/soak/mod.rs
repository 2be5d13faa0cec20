//! Runs several clients on two nodes of the example, on S3 and Redis, while both fail at random.
//! Every acknowledged blob is there, every delete holds, no read fails because of a cache, and the
//! nodes' use of resources does not grow.
//!
//! `LAYERCACHE_SOAK_SECONDS` sets how long it runs. With `LAYERCACHE_SOAK_SEED` it begins with that
//! seed: then it sends the same operations, but their timing differs.

mod client;
mod gauges;
mod injector;
mod judge;
mod judge_tests;
mod ledger;
use test_support as support;
mod table;
mod things;
mod traffic;
mod verify;
mod world;

use client::Nodes;
use futures::future::join_all;
use gauges::{Gauges, Place, at_rest, grown, measure};
use injector::Injector;
use judge::{Cause, cause, sum};
use ledger::{Books, End, Kind, Ledger, Op};
use reqwest::Client;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::history::report::judge as judge_history;
use support::tools::setting;
use tokio::time::sleep;
use traffic::Traffic;
use world::World;

/// Longer than trust lasts. Nodes that have been connected for this long know each other.
const SETTLED: Duration = Duration::from_millis(2300);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn acknowledged_changes_hold_and_no_gauge_grows_under_faults() {
    let seconds = setting("LAYERCACHE_SOAK_SECONDS").unwrap_or(30);
    let seed = setting("LAYERCACHE_SOAK_SEED").unwrap_or_else(|| u64::from(fastrand::u32(..)));
    println!("seed {seed}, {seconds} s");
    let mut world = World::start().await;
    let places: Vec<_> = world
        .nodes
        .iter_mut()
        .map(|node| Place {
            process: node.server().pid(),
            url: node.url(),
        })
        .collect();
    // Unused connections are closed soon, so that they do not look like a leak.
    let client = Client::builder()
        .no_proxy()
        .pool_idle_timeout(Duration::from_secs(1));
    let client = client.build().unwrap();
    let nodes = Arc::new(Nodes {
        client: client.clone(),
        urls: places.iter().map(|place| place.url.clone()).collect(),
        ledger: Ledger::default(),
    });
    sleep(SETTLED).await;
    let before = join_all(places.iter().map(|place| measure(&client, place))).await;

    let traffic = Traffic::start(&nodes, seed).await;
    let measured = Gauges::start(&client, places.clone());
    let end = Instant::now() + Duration::from_secs(seconds);
    let World { redis, proxy, .. } = &mut world;
    let mut injector = Injector::new(seed, &nodes.ledger, redis, proxy);
    injector.run(end).await;
    let gauges = measured.stop().await;
    traffic.stop().await;
    let well_after = verify::wait_until_well(&nodes).await;

    let books = nodes.ledger.take();
    let facts = verify::facts(&books);
    let checked = verify::all(&nodes, &facts, &world.objects().await).await;
    let rested = at_rest(&client, &places, &before).await;

    let books = verify::with(books, nodes.ledger.take());
    let verdict = support::history::check::check(&books.records);
    table::print(&books, &verdict);
    table::print_gauges(&gauges);
    println!(
        "\nat the end, of {} facts: {} there and {} not, on every node and in the bucket; \
         all was well after {well_after:.1?}, at rest after {}\n",
        facts.len(),
        checked.present,
        checked.absent,
        rested
            .as_ref()
            .map_or("never".to_owned(), |time| format!("{time:.1?}")),
    );

    judge_history(&format!("seed {seed}"), &books.records);
    unexplained(&books);
    let grown: Vec<_> = gauges
        .iter()
        .enumerate()
        .flat_map(|(node, gauges)| grown(node, gauges))
        .collect();
    assert!(grown.is_empty(), "{grown:?}");
    rested.expect("no request is running any more");
    was_something(&books, verdict.decided);
}

/// Checks that the faults explain every operation that was not answered.
fn unexplained(books: &Books) {
    let open = books
        .attempts
        .iter()
        .filter(|attempt| attempt.end != End::Answered);
    let bad: Vec<_> = open
        .filter(|attempt| cause(attempt, &books.faults) == Cause::Nothing)
        .collect();
    if let Some(first) = bad.first() {
        let at = |nanos: u64| (nanos as f64 - first.span.begin as f64) / 1e9;
        let near: Vec<_> = books
            .faults
            .iter()
            .map(|fault| (fault.kind, at(fault.span.begin), at(fault.span.end)))
            .filter(|(_, begin, end)| *begin < 10.0 && *end > -20.0)
            .collect();
        let (op, node) = (first.op.name(), first.node);
        panic!(
            "nothing explains {} failures; the first: {op} on node {node} was {:?}: {}\n\
             faults near it, in seconds from its begin: {near:?}",
            bad.len(),
            first.end,
            first.why,
        );
    }
}

/// Checks that the test has done enough to prove anything.
fn was_something(books: &Books, decided: usize) {
    for op in Op::ALL {
        let answered = books.attempts.iter();
        let answered = answered.filter(|a| a.op == op && a.end == End::Answered);
        assert!(answered.count() >= 5, "too few {}", op.name());
    }
    for kind in Kind::ALL {
        assert!(sum(&books.faults, kind).0 > 0, "never: {}", kind.name());
    }
    assert!(decided >= 1000, "only {decided} answers prove anything");
}
