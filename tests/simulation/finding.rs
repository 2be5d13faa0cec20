//! [`Finding`]: which promise did a run break?

use histories::check::Verdict;
use histories::record::{Fact, Records};
use histories::report::report;

/// The first broken promise of a run.
#[derive(Debug)]
pub(crate) struct Finding {
    /// The finding in a few words.
    pub(crate) kind: String,
    /// The reads and changes before it.
    pub(crate) report: String,
    /// When the wrong read began, in milliseconds, and the blob that it was about.
    pub(crate) at: Option<u64>,
    pub(crate) blob: Option<u32>,
}

impl Finding {
    pub(crate) fn of(records: &Records, verdict: &Verdict) -> Option<Self> {
        if let Some(failure) = records.failures.first() {
            return Some(Self {
                kind: kind_of(failure),
                report: format!("{failure}\n{}", faults_of(records)),
                at: None,
                blob: None,
            });
        }
        let read = verdict.wrong.first()?;
        let state = if read.present { "present" } else { "absent" };
        let blob = read.facts().next().map(|fact| match fact {
            Fact::Blob(blob) | Fact::Link(_, blob) => blob,
        });
        Some(Self {
            kind: format!("read as {state}, from {:?}", read.status),
            report: report(records, read),
            at: Some(read.span.begin / 1_000_000),
            blob,
        })
    }
}

/// Lists the faults of a run, each with the millisecond in which it began.
fn faults_of(records: &Records) -> String {
    let faults = records.faults.iter();
    let lines = faults.map(|(span, what)| format!("{:>6} ms {what}", span.begin / 1_000_000));
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns the first line of a failure without its details: its names of keys and its numbers.
fn kind_of(failure: &str) -> String {
    let is_detail = |word: &&str| word.contains("::") || word.contains(|c: char| c.is_numeric());
    let words = failure
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .filter(|word| !is_detail(word));
    words.take(12).collect::<Vec<_>>().join(" ")
}
