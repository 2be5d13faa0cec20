//! Decides which failures the faults explain, and whether a resource stays flat. These functions
//! are pure.

use super::ledger::{Attempt, End, Fault, Kind};
use test_support::history::record::Span;

/// How long after a fault of S3 requests may still fail, in nanoseconds. The pool may hold broken
/// connections.
const S3_AFTER: u64 = 1_000_000_000;

/// How long after a fault of Redis changes may still be refused, in nanoseconds. A node tries to
/// connect every second, and a node that has just connected first has to learn its peers.
const REDIS_AFTER: u64 = 5_000_000_000;

/// The fault that explains why an operation was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    Redis,
    S3,
    /// No fault explains it.
    Nothing,
}

/// Returns why an operation was not answered. Only S3 may fail a read, and only Redis may refuse a
/// change.
pub(crate) fn cause(attempt: &Attempt, faults: &[Fault]) -> Cause {
    let s3 = || is_amid(attempt.span, faults, true);
    let redis = || is_amid(attempt.span, faults, false);
    match attempt.end {
        End::Failed | End::Silent if s3() => Cause::S3,
        // A change that was made when Redis failed is reported as unconfirmed.
        End::Failed if !attempt.op.is_read() && redis() => Cause::Redis,
        End::Refused if !attempt.op.is_read() && redis() => Cause::Redis,
        _ => Cause::Nothing,
    }
}

/// Returns whether there was a fault during this span or shortly before it.
pub(crate) fn is_amid(span: Span, faults: &[Fault], of_s3: bool) -> bool {
    let after = if of_s3 { S3_AFTER } else { REDIS_AFTER };
    let overlaps =
        |fault: &Fault| fault.span.begin <= span.end && span.begin <= fault.span.end + after;
    let mut faults = faults.iter().filter(|fault| fault.kind.is_of_s3() == of_s3);
    faults.any(overlaps)
}

/// The faults that were active when an operation began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Calm,
    Redis,
    S3,
    Both,
}

impl Phase {
    pub(crate) const ALL: [Self; 4] = [Self::Calm, Self::Redis, Self::S3, Self::Both];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Calm => "nothing",
            Self::Redis => "Redis only",
            Self::S3 => "S3 only",
            Self::Both => "Redis and S3",
        }
    }

    pub(crate) fn of(span: Span, faults: &[Fault]) -> Self {
        match (is_amid(span, faults, false), is_amid(span, faults, true)) {
            (false, false) => Self::Calm,
            (true, false) => Self::Redis,
            (false, true) => Self::S3,
            (true, true) => Self::Both,
        }
    }
}

/// Returns the median of each quarter of a series.
pub(crate) fn quarters(values: &[u64]) -> [u64; 4] {
    std::array::from_fn(|quarter| {
        let at = |quarter: usize| values.len() * quarter / 4;
        let mut part = values[at(quarter)..at(quarter + 1)].to_vec();
        part.sort_unstable();
        part.get(part.len() / 2).copied().unwrap_or(0)
    })
}

/// Returns whether the last quarter exceeds the second one by at most a fourth and `slack`. The
/// first quarter is spent on warming up.
pub(crate) const fn is_flat(quarters: [u64; 4], slack: u64) -> bool {
    quarters[3] <= quarters[1] + quarters[1] / 4 + slack
}

/// Returns how many faults of a kind there were, and for how many seconds in all.
pub(crate) fn sum(faults: &[Fault], kind: Kind) -> (usize, f64) {
    let of_kind = faults.iter().filter(|fault| fault.kind == kind);
    let seconds = of_kind.clone().map(|fault| fault.span);
    let seconds = seconds.map(|span| (span.end - span.begin) as f64 / 1e9);
    (of_kind.count(), seconds.sum())
}
