//! Reports what led to a wrong answer.

use super::check::{Verdict, check};
use super::record::{Change, Fact, Outcome, Read, Records, Span};
use std::fmt::Write;

/// How long before and after a wrong read events are reported, in nanoseconds.
const MARGIN: u64 = 300_000_000;
const MOST_LINES: usize = 200;

/// Checks a history, and prints how much was in it.
///
/// # Panics
/// If an answer is wrong, with the events that led to it; or if something failed that must not
/// fail.
pub fn judge(name: &str, records: &Records) -> Verdict {
    let verdict = check(records);
    let count = |outcome| {
        let changes = records.changes.iter();
        changes.filter(|change| change.outcome == outcome).count()
    };
    println!(
        "{name}: {} reads, {} decided, {} from memory, {} from Redis; \
         {} changes done, {} refused, {} unknown; {} faults",
        records.reads.len(),
        verdict.decided,
        verdict.from_memory,
        verdict.from_redis,
        count(Outcome::Done),
        count(Outcome::Refused),
        count(Outcome::Unknown),
        records.faults.len(),
    );
    let failures = records.failures.join("\n");
    assert!(failures.is_empty(), "{name}:\n{failures}");
    if let Some(first) = verdict.wrong.first() {
        let (count, history) = (verdict.wrong.len(), report(records, first));
        panic!("{name}: {count} wrong answers; the first:\n{history}");
    }
    verdict
}

/// Returns all that was done to the facts of a read shortly before it and during it.
pub fn report(records: &Records, wrong: &Read) -> String {
    let is_near = |span: Span| span.end >= earliest(records, wrong) && span.begin <= wrong.span.end;
    let mut lines = Vec::new();
    for change in &records.changes {
        if wrong.facts().any(|fact| fact == change.fact) && is_near(change.span) {
            lines.push((change.span, of_change(change)));
        }
    }
    for read in &records.reads {
        let is_same = read
            .facts()
            .any(|fact| wrong.facts().any(|other| other == fact));
        let is_close = read.span.end + MARGIN / 10 >= wrong.span.begin;
        if is_same && is_close && is_near(read.span) {
            let mark = if read.span == wrong.span {
                "  <== nothing explains this"
            } else {
                ""
            };
            lines.push((read.span, of_read(read) + mark));
        }
    }
    for (span, what) in &records.faults {
        if is_near(*span) {
            lines.push((*span, format!("       fault: {what}")));
        }
    }
    lines.sort_by_key(|(span, _)| span.begin);
    let skipped = lines.len().saturating_sub(MOST_LINES);
    let mut text = String::from("begin .. end, in ms before and after the end of the wrong read\n");
    for (span, what) in &lines[skipped..] {
        let at = |nanos: u64| (nanos as f64 - wrong.span.end as f64) / 1e6;
        let end = match span.end {
            u64::MAX => "      open".to_owned(),
            end => format!("{:10.2}", at(end)),
        };
        writeln!(text, "{:10.2} .. {end}  {what}", at(span.begin)).unwrap();
    }
    text
}

/// Returns a time a little before the last acknowledged change of each of the read's facts.
fn earliest(records: &Records, wrong: &Read) -> u64 {
    let last_of = |fact: Fact| {
        let changes = records.changes.iter();
        let settled = changes.filter(|change| {
            change.fact == fact
                && change.outcome == Outcome::Done
                && change.present != wrong.present
                && change.span.end < wrong.span.begin
        });
        settled.map(|change| change.span.begin).max()
    };
    let first = wrong.facts().filter_map(last_of).min();
    first.unwrap_or(wrong.span.begin).saturating_sub(MARGIN)
}

fn of_change(change: &Change) -> String {
    let Change {
        fact,
        present,
        outcome,
        node,
        what,
        ..
    } = change;
    let kind = if *present { "PUT" } else { "DELETE" };
    format!("node {node} {kind} {fact:?} by {what}: {outcome:?}")
}

fn of_read(read: &Read) -> String {
    let facts: Vec<_> = read.facts().collect();
    let answer = if read.present { "present" } else { "absent" };
    let (node, what, status) = (read.node, read.what, read.status);
    format!("node {node} read {facts:?} by {what}: {answer} from {status:?}")
}
