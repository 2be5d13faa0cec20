//! How far an audit has come.

use super::AuditPosition;
use super::finding::{Fate, Finding, Wrong};
use crate::Error;
use std::fmt;

/// What an audit has found.
///
/// ```
/// use layercache::admin::AuditReport;
///
/// fn print(report: &AuditReport) {
///     println!("{} of {} are wrong", report.findings(), report.looked_at());
///     for (name, count) in report.by_name() {
///         println!("{name:<18}{count}");
///     }
/// }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditReport {
    /// Memberships that were looked at.
    pub memberships: u64,
    /// Hashes of blobs that were looked at.
    pub metas: u64,
    /// Other keys of ours that were looked at: media types of Go registries, leases, fences, and what has
    /// almost such a name.
    pub others: u64,
    /// Those that are as they should be.
    pub ok: u64,
    /// Those that hold nothing that could be wrong, or of which the layout keeps nothing.
    pub skipped: u64,
    /// Those that were being changed, and so were left alone.
    pub changing: u64,
    /// Those that were wrong at the first look, and gone or right at the second: a change was under way.
    pub changed: u64,
    /// How many findings there are of each name.
    found: [u64; Wrong::NAMES.len()],
    /// Findings that were taken away.
    pub removed: u64,
    /// Findings that were taken away, and that somebody has cached again since.
    pub returned: u64,
    /// Objects of the storage that were asked for, one by one.
    pub questions: u64,
    /// Pages of 1,000 objects that were listed where that is cheaper.
    pub lists: u64,
}

/// How far an audit has come.
///
/// ```
/// use layercache::admin::AuditProgress;
///
/// fn print(progress: &AuditProgress) {
///     println!("{} of some {} keys", progress.keys, progress.keys_in_all);
/// }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditProgress {
    /// Keys that Redis has shown, whoever's: some may be shown twice.
    pub keys: u64,
    /// How many keys there are in all, when it began.
    pub keys_in_all: u64,
    /// What was found so far.
    pub report: AuditReport,
    /// Up to where all was looked at; `None` is the beginning. Give it to
    /// [`resume_after`](super::Audit::resume_after).
    pub position: Option<AuditPosition>,
}

/// Why an audit has stopped, and what was found before.
///
/// ```
/// use layercache::admin::{AuditError, AuditPosition};
///
/// /// Where to go on when what was in the way is mended.
/// fn resume_after(error: &AuditError) -> Option<&AuditPosition> {
///     eprintln!("{error}");
///     error.progress.position.as_ref()
/// }
/// ```
#[derive(Debug, thiserror::Error)]
#[error("the audit stopped {}: {source}", At(&progress.position))]
#[non_exhaustive]
pub struct AuditError {
    /// What was found, and the position to resume from.
    pub progress: AuditProgress,
    /// The storage failed ([`Error::Backend`]), or Redis could not be asked ([`Error::Cache`]).
    pub source: Error,
}

struct At<'a>(&'a Option<AuditPosition>);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(position) => write!(f, "after position {position}"),
            None => f.write_str("at the beginning"),
        }
    }
}

impl AuditReport {
    /// How many findings there are.
    pub fn findings(&self) -> u64 {
        self.found.iter().sum()
    }

    /// How many findings there are of each [name](Wrong::name), of those that there are any of.
    pub fn by_name(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let all = Wrong::NAMES.into_iter().zip(self.found);
        all.filter(|(_, count)| *count > 0)
    }

    /// How many things were looked at.
    pub const fn looked_at(&self) -> u64 {
        self.memberships + self.metas + self.others
    }

    pub(super) fn count(&mut self, finding: &Finding) {
        self.found[finding.wrong.place()] += 1;
        match finding.fate {
            Fate::Left => {}
            Fate::Removed => self.removed += 1,
            Fate::Returned => self.returned += 1,
        }
    }
}
