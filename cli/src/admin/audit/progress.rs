//! How far has an audit come, and what has it found?

use super::AuditPosition;
use super::finding::{Fate, Finding, Wrong};
use layercache::Error;
use std::fmt;

/// Counts what an audit has checked and found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_copy_implementations, reason = "it is large")]
pub struct AuditReport {
    /// Memberships that were checked.
    pub memberships: u64,
    /// Hashes of blobs that were checked.
    pub metas: u64,
    /// Other keys of the cache that were checked: media types of Go registries, leases, fences, and
    /// keys whose names only look like the cache's.
    pub others: u64,
    /// Checked items that are correct.
    pub ok: u64,
    /// Items that were skipped: they have no value that could be wrong, or the layout has no place
    /// for them.
    pub skipped: u64,
    /// Items that were left alone because a change was under way.
    pub changing: u64,
    /// Items that were wrong at the first check, and gone or correct at the second: a change was
    /// under way.
    pub changed: u64,
    /// Number of findings of each name.
    found: [u64; Wrong::NAMES.len()],
    /// Findings that were removed.
    pub removed: u64,
    /// Findings that were removed, and that a node or a Go registry has cached again since.
    pub returned: u64,
    /// Questions to the storage about a single object.
    pub questions: u64,
    /// Pages of 1,000 objects that were listed because that was cheaper.
    pub lists: u64,
}

/// Holds the progress of an audit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditProgress {
    /// Keys that Redis has returned, including keys of other applications. Redis may return a key
    /// twice.
    pub keys: u64,
    /// Number of keys in Redis when the audit began.
    pub keys_in_all: u64,
    /// How often the audit began a server again from its first key, because the server was
    /// restarted or replaced.
    pub restarts: u64,
    /// The findings so far.
    pub report: AuditReport,
    /// Everything before this position is done; `None` at the beginning. Pass it to
    /// [`resume_after`](super::Audit::resume_after).
    pub position: Option<AuditPosition>,
}

/// Reports why an audit has stopped, and its findings until then.
#[derive(Debug, thiserror::Error)]
#[error("the audit stopped {}: {source}", At(&progress.position))]
pub struct AuditError {
    /// The findings until then, and the position to resume from.
    pub progress: AuditProgress,
    /// The cause: the storage failed ([`Error::Backend`]), or Redis could not be asked
    /// ([`Error::Cache`]).
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
    /// Returns the number of findings.
    pub fn findings(&self) -> u64 {
        self.found.iter().sum()
    }

    /// Returns the number of findings of each [name](Wrong::name) that has any.
    pub fn by_name(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let all = Wrong::NAMES.into_iter().zip(self.found);
        all.filter(|(_, count)| *count > 0)
    }

    /// Returns the number of items that were checked.
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
