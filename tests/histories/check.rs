//! Checks whether a history keeps the promise. A read that begins after a delete was acknowledged
//! must not return the old positive, unless a later put overlaps. A read that begins after a put
//! was acknowledged must not return the old negative, unless a later delete overlaps.

use super::record::{Change, Fact, Outcome, Read, Records, Span};
use layercache::CacheStatus;
use std::collections::HashMap;

/// The result of a check.
#[derive(Debug, Default)]
pub struct Verdict {
    /// The reads that no change explains, in order.
    pub wrong: Vec<Read>,
    /// The number of reads for which only one answer was right.
    pub decided: usize,
    /// The number of all reads that this tier answered.
    pub from_memory: usize,
    pub from_redis: usize,
}

impl Verdict {
    /// Returns whether the counts suffice for this many rounds in which the nodes did work.
    pub fn is_enough(&self, rounds: usize) -> bool {
        self.decided >= 2_000 * rounds
            && self.from_memory >= 1_000 * rounds
            && self.from_redis >= 100 * rounds
    }
}

/// All changes of one fact.
#[derive(Debug)]
struct Timeline {
    put: Side,
    deleted: Side,
}

/// The changes of a fact to one of its two values.
#[derive(Debug, Default)]
struct Side {
    /// For each acknowledged change: its end, and the latest beginning of all changes that had
    /// ended by then.
    acknowledged: Vec<(u64, u64)>,
    /// For each change that may have happened: its beginning, and the latest end of all changes
    /// that had begun by then.
    possible: Vec<(u64, u64)>,
}

/// Checks a history, each fact by itself, in the time it takes to sort the history.
pub fn check(records: &Records) -> Verdict {
    let mut changes: HashMap<Fact, Vec<Change>> = HashMap::new();
    for change in &records.changes {
        changes.entry(change.fact).or_default().push(*change);
    }
    let timelines: HashMap<_, _> = changes
        .iter()
        .map(|(fact, changes)| (*fact, Timeline::new(changes)))
        .collect();
    // A fact without changes is absent.
    let untouched = Timeline::new(&[]);
    let may_be = |read: &Read, present| {
        let mut each = read.facts().map(|fact| {
            let timeline = timelines.get(&fact).unwrap_or(&untouched);
            timeline.may_be(present, read.span)
        });
        match present {
            true => each.all(|may_be| may_be),
            false => each.any(|may_be| may_be),
        }
    };
    let mut verdict = Verdict::default();
    for read in &records.reads {
        match read.status {
            CacheStatus::Memory => verdict.from_memory += 1,
            CacheStatus::Redis => verdict.from_redis += 1,
            _ => {}
        }
        if !may_be(read, read.present) {
            verdict.wrong.push(*read);
        } else if !may_be(read, !read.present) {
            verdict.decided += 1;
        }
    }
    verdict.wrong.sort_by_key(|read| read.span.begin);
    verdict
}

impl Timeline {
    fn new(changes: &[Change]) -> Self {
        let to = |present| {
            changes
                .iter()
                .filter(move |change| change.present == present)
        };
        let mut deleted = Side::new(to(false));
        // At the beginning every fact is absent.
        deleted.acknowledged.insert(0, (0, 0));
        Self {
            put: Side::new(to(true)),
            deleted,
        }
    }

    /// Returns whether a read may have found the fact present (or absent). That holds if no change
    /// to the other value was acknowledged before the read began, or if a change to this value may
    /// have come after all of those.
    fn may_be(&self, present: bool, read: Span) -> bool {
        let (this, other) = match present {
            true => (&self.put, &self.deleted),
            false => (&self.deleted, &self.put),
        };
        let before = |ends: &[(u64, u64)], limit| ends.partition_point(|(at, _)| *at < limit);
        let acknowledged = before(&other.acknowledged, read.begin);
        let Some((_, last_begin)) = other.acknowledged[..acknowledged].last() else {
            return true;
        };
        let possible = before(&this.possible, read.end);
        let last_end = this.possible[..possible].last().map(|(_, end)| end);
        last_end.is_some_and(|end| end >= last_begin)
    }
}

impl Side {
    fn new<'a>(changes: impl Iterator<Item = &'a Change> + Clone) -> Self {
        let done = changes.clone().filter(|c| c.outcome == Outcome::Done);
        let possible = changes.filter(|c| c.outcome != Outcome::Refused);
        Self {
            acknowledged: running_max(done.map(|c| (c.span.end, c.span.begin)).collect()),
            possible: running_max(possible.map(|c| (c.span.begin, c.span.end)).collect()),
        }
    }
}

/// Sorts the pairs by the first number and replaces each second number by the greatest one so far.
fn running_max(mut pairs: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    pairs.sort_unstable();
    let mut max = 0;
    for (_, second) in &mut pairs {
        max = max.max(*second);
        *second = max;
    }
    pairs
}
