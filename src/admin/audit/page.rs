//! What is looked at together, and what is chosen of it.

use super::Filter;
use super::judge::is_sampled;
use super::position::AuditPosition;
use crate::cache::redis::visit::Subject;
use crate::{Digest, Link, RepositoryName};

/// About how many keys, or members, are looked at together.
pub(super) const PAGE: usize = 500;

/// What of all that is cached is looked at.
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

/// Some things to look at.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// Keys that Redis has shown.
    pub(super) keys: u64,
    /// What the storage is to be asked about.
    pub(super) facts: Vec<Subject>,
    /// What Redis alone can tell more about.
    pub(super) others: Vec<Subject>,
    /// Hashes that say nothing.
    pub(super) empty: u64,
    /// How many members the sets have in all that the facts are of.
    pub(super) sizes: Vec<(Link, u64)>,
    /// What all is done up to, when this is.
    pub(super) position: Option<AuditPosition>,
}

impl Page {
    /// Whether there is enough in it.
    pub(super) fn is_full(&self) -> bool {
        self.facts.len() + self.others.len() >= PAGE
    }
}
