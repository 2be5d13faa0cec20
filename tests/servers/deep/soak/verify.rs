//! Checks every fact on every node and in the bucket, after the last fault.

use super::client::Nodes;
use super::ledger::{Books, Op};
use super::things::Thing;
use futures::{StreamExt, stream};
use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};
use test_support::history::record::{Change, Fact};
use tokio::time::sleep;

/// The number of facts that are checked at the same time.
const PARALLEL: usize = 8;

/// The number of facts that hold at the end, and of those that do not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checked {
    pub(crate) present: usize,
    pub(crate) absent: usize,
}

/// Returns every fact that was ever changed.
pub(crate) fn facts(books: &Books) -> BTreeSet<Fact> {
    let changes = books.records.changes.iter();
    changes.map(|Change { fact, .. }| *fact).collect()
}

/// Waits until each node accepts changes without delay, and returns how long that took.
///
/// # Panics
/// If that takes too long.
pub(crate) async fn wait_until_well(nodes: &Nodes) -> Duration {
    const LATEST: Duration = Duration::from_secs(60);
    let begin = Instant::now();
    for node in 0..nodes.urls.len() {
        while !nodes.takes_changes(node).await {
            assert!(begin.elapsed() < LATEST, "node {node} has not recovered");
            sleep(Duration::from_millis(100)).await;
        }
    }
    begin.elapsed()
}

/// Reads every fact from every node, and records the answers for the judge. Also checks that each
/// node agrees with the bucket.
pub(crate) async fn all(
    nodes: &Nodes,
    facts: &BTreeSet<Fact>,
    objects: &HashSet<String>,
) -> Checked {
    let is_there = |fact: &Fact| objects.contains(&Thing::of(*fact).object());
    let reads = facts.iter().flat_map(|fact| {
        let all = 0..nodes.urls.len();
        all.map(move |node| (*fact, node))
    });
    stream::iter(reads)
        .for_each_concurrent(PARALLEL, async |(fact, node)| {
            let thing = Thing::of(fact);
            let op = match thing {
                Thing::Blob(..) => Op::GetBlob,
                Thing::Manifest(..) => Op::GetManifest,
                Thing::Tag(..) => Op::GetTag,
            };
            let expected = thing
                .facts()
                .into_iter()
                .flatten()
                .all(|fact| is_there(&fact));
            let answer = nodes.read(op, node, thing).await;
            if answer != Some(expected) {
                let what = format!(
                    "at the end node {node} answers {answer:?} for {thing:?}, and the bucket has {expected}"
                );
                nodes.ledger.never(what);
            }
        })
        .await;
    let present = facts.iter().filter(|fact| is_there(fact)).count();
    Checked {
        present,
        absent: facts.len() - present,
    }
}

/// Joins two books.
pub(crate) fn with(mut books: Books, more: Books) -> Books {
    books.records.changes.extend(more.records.changes);
    books.records.reads.extend(more.records.reads);
    books.records.faults.extend(more.records.faults);
    books.records.failures.extend(more.records.failures);
    books.attempts.extend(more.attempts);
    books.faults.extend(more.faults);
    books
}
