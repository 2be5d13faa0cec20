//! Whether a history keeps the promise: no read that begins after a delete was acknowledged returns
//! the old positive unless a later put overlaps, and no read that begins after a put was
//! acknowledged returns the old negative unless a later delete does.

use super::record::{Change, Fact, Outcome, Read, Records, Span};
use layercache::CacheStatus;
use std::collections::HashMap;

/// What a check has found.
#[derive(Debug, Default)]
pub struct Verdict {
    /// The reads that nothing explains, in their order.
    pub wrong: Vec<Read>,
    /// The reads of which only one answer was right.
    pub decided: usize,
    /// Of all reads, by who answered.
    pub from_memory: usize,
    pub from_redis: usize,
}

impl Verdict {
    /// Whether it has come about by so many rounds in which something was done.
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

/// The changes to one of the two values.
#[derive(Debug, Default)]
struct Side {
    /// For each that was acknowledged: when it ended, and the latest beginning of those that had
    /// ended by then.
    acknowledged: Vec<(u64, u64)>,
    /// For each that may have happened: when it began, and the latest end of those that had begun
    /// by then.
    possible: Vec<(u64, u64)>,
}

/// Checks a history, each fact by itself, in the time it takes to sort it.
pub fn check(records: &Records) -> Verdict {
    let mut changes: HashMap<Fact, Vec<Change>> = HashMap::new();
    for change in &records.changes {
        changes.entry(change.fact).or_default().push(*change);
    }
    let timelines: HashMap<_, _> = changes
        .iter()
        .map(|(fact, changes)| (*fact, Timeline::new(changes)))
        .collect();
    // What was never changed is absent.
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
        // In the beginning everything is absent.
        deleted.acknowledged.insert(0, (0, 0));
        Self {
            put: Side::new(to(true)),
            deleted,
        }
    }

    /// Whether a read may have found the fact present, or absent: nobody had made it the other when
    /// the read began, or a change to this one could have come after all who had.
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

/// Sorted by the first, with the greatest second so far.
fn running_max(mut pairs: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    pairs.sort_unstable();
    let mut max = 0;
    for (_, second) in &mut pairs {
        max = max.max(*second);
        *second = max;
    }
    pairs
}
