//! Makes a run that has found something shorter.

use super::cut::Cut;
use super::run::{Outcome, run_cut};

/// How many shorter runs are tried. Each takes a fraction of a second.
const MOST_RUNS: usize = 150;

/// A run that is made shorter, and what its shortest version has found.
pub(crate) struct Shrunk {
    seed: u64,
    pub(crate) cut: Cut,
    pub(crate) outcome: Outcome,
    runs: usize,
}

impl Shrunk {
    /// Makes a run of this seed shorter, for as long as it still finds something wrong.
    pub(crate) fn new(seed: u64, cut: Cut, outcome: Outcome) -> Self {
        let mut shrunk = Self {
            seed,
            cut,
            outcome,
            runs: 0,
        };
        shrunk.leave_out_what_came_later();
        shrunk.keep_one_blob();
        shrunk.leave_out_faults();
        shrunk.leave_out_requests();
        shrunk.leave_out_faults();
        shrunk
    }

    /// Returns what led to the finding.
    pub(crate) fn report(&self) -> &str {
        let finding = self.outcome.finding.as_ref();
        finding.map_or("", |finding| &finding.report)
    }

    /// Changes the cut, if the run then still finds something wrong. Returns whether it does.
    fn tries(&mut self, change: impl FnOnce(&mut Cut)) -> bool {
        let mut cut = self.cut.clone();
        change(&mut cut);
        if self.runs >= MOST_RUNS || cut == self.cut {
            return false;
        }
        self.runs += 1;
        let outcome = run_cut(self.seed, &cut);
        let is_wrong = outcome.finding.is_some();
        if is_wrong {
            (self.cut, self.outcome) = (cut, outcome);
        }
        is_wrong
    }

    fn leave_out_what_came_later(&mut self) {
        let mut end = self.outcome.busy;
        let found = self.outcome.finding.as_ref().and_then(|finding| finding.at);
        if let Some(found) = found.filter(|at| *at < end)
            && self.tries(|cut| cut.until = Some(found + 1))
        {
            end = found + 1;
        }
        for share in [2, 4, 8] {
            let earlier = end - end / share;
            if self.tries(|cut| cut.until = Some(earlier)) {
                end = earlier;
            }
        }
    }

    fn keep_one_blob(&mut self) {
        let blob = self
            .outcome
            .finding
            .as_ref()
            .and_then(|finding| finding.blob);
        if let Some(blob) = blob {
            self.tries(|cut| cut.blob = Some(blob));
        }
    }

    fn leave_out_faults(&mut self) {
        for fault in (0..self.outcome.faults).rev() {
            self.tries(|cut| cut.faults.extend([fault]));
        }
    }

    /// Leaves out parts of the requests: first large ones, then smaller ones.
    fn leave_out_requests(&mut self) {
        let count = self.outcome.requests;
        let mut size = count / 2;
        while size > 0 && self.runs < MOST_RUNS {
            for start in (0..count).step_by(size) {
                self.tries(|cut| leave_out(&mut cut.requests, start, (start + size).min(count)));
            }
            size /= 2;
        }
    }
}

/// Adds a range to ranges that are in order. Ranges that touch become one.
fn leave_out(ranges: &mut Vec<std::ops::Range<usize>>, start: usize, end: usize) {
    let mut all = std::mem::take(ranges);
    all.push(start..end);
    all.sort_by_key(|range| range.start);
    for range in all {
        match ranges.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => ranges.push(range),
        }
    }
}
