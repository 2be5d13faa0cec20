//! Prints the records as tables.

use super::gauges::GAUGES;
use super::judge::{Cause, Phase, cause, sum};
use super::ledger::{Attempt, Books, Kind, Op};
use test_support::history::check::Verdict;

/// Prints the operations, their failures, and the faults.
pub(crate) fn print(books: &Books, verdict: &Verdict) {
    println!(
        "\n{:<16} {:>8} {:>8} {:>9} {:>9} {:>8} {:>6} {:>8} {:>8} {:>8}",
        "operation",
        "count",
        "answered",
        "for Redis",
        "for S3",
        "no cause",
        "wrong",
        "p50 ms",
        "p99 ms",
        "max ms"
    );
    for op in Op::ALL {
        let of_op: Vec<_> = books.attempts.iter().filter(|a| a.op == op).collect();
        let count = |wanted| of_op.iter().filter(|a| why(a, books) == wanted).count();
        let wrong = verdict.wrong.iter().filter(|read| read.what == op.name());
        let times = Times::of(&of_op);
        println!(
            "{:<16} {:>8} {:>8} {:>9} {:>9} {:>8} {:>6} {times}",
            op.name(),
            of_op.len(),
            count(None),
            count(Some(Cause::Redis)),
            count(Some(Cause::S3)),
            count(Some(Cause::Nothing)),
            wrong.count(),
        );
    }
    println!(
        "\n{:<16} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "reads amid", "count", "failed", "p50 ms", "p99 ms", "max ms"
    );
    for phase in Phase::ALL {
        let reads = books.attempts.iter().filter(|a| a.op.is_read());
        let reads: Vec<_> = reads
            .filter(|a| Phase::of(a.span, &books.faults) == phase)
            .collect();
        let failed = reads.iter().filter(|a| why(a, books).is_some()).count();
        let times = Times::of(&reads);
        println!(
            "{:<16} {:>8} {failed:>8} {times}",
            phase.name(),
            reads.len()
        );
    }
    println!("\n{:<28} {:>6} {:>8}", "fault", "number", "seconds");
    for kind in Kind::ALL {
        let (number, seconds) = sum(&books.faults, kind);
        println!("{:<28} {number:>6} {seconds:>8.1}", kind.name());
    }
}

/// Prints what the nodes used, by quarter of the time.
pub(crate) fn print_gauges(nodes: &[[[u64; 4]; GAUGES.len()]]) {
    println!(
        "\n{:<20} {:>9} {:>9} {:>9} {:>9}",
        "median of quarter", "1", "2", "3", "4"
    );
    for (node, gauges) in nodes.iter().enumerate() {
        for (quarters, (name, _)) in gauges.iter().zip(GAUGES) {
            let [first, second, third, last] = quarters;
            let name = format!("node {node} {name}");
            println!("{name:<20} {first:>9} {second:>9} {third:>9} {last:>9}");
        }
    }
}

/// Returns why an operation was not answered, or `None` if it was answered.
fn why(attempt: &Attempt, books: &Books) -> Option<Cause> {
    use super::ledger::End;
    (attempt.end != End::Answered).then(|| cause(attempt, &books.faults))
}

struct Times {
    half: f64,
    most: f64,
    all: f64,
}

impl Times {
    fn of(attempts: &[&Attempt]) -> Self {
        let spans = attempts.iter().map(|attempt| attempt.span);
        let mut times: Vec<_> = spans.map(|span| span.end - span.begin).collect();
        times.sort_unstable();
        let at = |percent: usize| match times.len() {
            0 => 0.0,
            count => times[(count - 1) * percent / 100] as f64 / 1e6,
        };
        Self {
            half: at(50),
            most: at(99),
            all: at(100),
        }
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { half, most, all } = self;
        write!(f, "{half:>8.1} {most:>8.1} {all:>8.1}")
    }
}
