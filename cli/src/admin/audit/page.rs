//! Which keys are audited together, and which of them are chosen?

use super::Filter;
use super::judge::is_sampled;
use super::position::AuditPosition;
use crate::admin::scan::Item;
use layercache::{Digest, Link, RepositoryName};

/// Approximate number of keys or members per page.
pub(super) const PAGE: usize = 500;

/// Selects the part of the cache that is audited.
pub(super) struct Choice {
    pub(super) filter: Option<Box<Filter>>,
    pub(super) sample: f64,
}

impl Choice {
    pub(super) fn has_repository(&self, name: &RepositoryName) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter(name))
    }

    pub(super) fn has_digest(&self, digest: &Digest) -> bool {
        is_sampled(digest, self.sample)
    }
}

/// A page of keys and members to audit.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// Number of keys that Redis has returned.
    pub(super) keys: u64,
    /// Facts that the storage has to confirm.
    pub(super) facts: Vec<Item>,
    /// Keys that only Redis can tell more about.
    pub(super) others: Vec<Item>,
    /// Number of hashes without a value.
    pub(super) empty: u64,
    /// Number of members of each set that has members on this page.
    pub(super) sizes: Vec<(Link, u64)>,
    /// The position that is reached when this page is done.
    pub(super) position: Option<AuditPosition>,
}

impl Page {
    /// Returns whether the page is full.
    pub(super) fn is_full(&self) -> bool {
        self.facts.len() + self.others.len() >= PAGE
    }
}
