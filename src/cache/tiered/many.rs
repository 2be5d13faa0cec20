//! Fills of many facts at once, for callers that read many objects from the backend at once.

use super::{TieredCache, plausible};
use crate::cache::memory::ReadStamps;
use crate::cache::shared::{Facts, KeyNames};
use crate::coherence::generation::Snapshot;

impl TieredCache {
    /// Returns the stamps of all keys, to fill values that are read from now on. Returns `None`
    /// while memory is not trusted.
    pub(crate) fn snapshot(&self) -> Option<Snapshot> {
        self.expiring.expire();
        self.memory.snapshot()
    }

    /// Fills memory, if it is the only tier, with facts that were read under these stamps. Returns
    /// whether any fact was accepted.
    pub(crate) fn fill_memory(&self, facts: Facts, read_stamps: ReadStamps) -> bool {
        let facts = plausible(facts);
        if facts.is_empty() {
            return false;
        }
        let asked = facts.names();
        let facts = self.still_allowed(facts, read_stamps);
        self.fill_accepted(asked, &facts, read_stamps)
    }

    pub(super) fn fill_accepted(
        &self,
        leased: KeyNames,
        facts: &Facts,
        read_stamps: ReadStamps,
    ) -> bool {
        let is_filled = !facts.is_empty();
        if is_filled {
            self.memory.fill_new(facts, read_stamps);
        }
        self.count_fill(leased, facts.names(), read_stamps);
        is_filled
    }
}
