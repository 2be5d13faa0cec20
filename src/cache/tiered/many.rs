//! Fills of many facts at once, for one who reads many from the backend at once.

use super::{TieredCache, plausible};
use crate::cache::memory::Rights;
use crate::cache::shared::{Facts, Names};
use crate::coherence::generation::Snapshot;

impl TieredCache {
    /// The rights of all keys, to fill what is read from here on; none where memory is not trusted.
    pub(crate) fn snapshot(&self) -> Option<Snapshot> {
        self.memory.snapshot()
    }

    /// Fills memory, where it is the only tier, with what was read under these rights. Says whether
    /// any of it was accepted.
    pub(crate) fn fill_memory(&self, facts: Facts, rights: Rights) -> bool {
        let facts = plausible(facts);
        if facts.is_empty() {
            return false;
        }
        let asked = facts.names();
        let facts = self.still_allowed(facts, rights);
        self.fill_accepted(asked, &facts, rights)
    }

    pub(super) fn fill_accepted(&self, leased: Names, facts: &Facts, rights: Rights) -> bool {
        let is_filled = !facts.is_empty();
        if is_filled {
            self.memory.fill_new(facts, rights);
        }
        self.count_fill(leased, facts.names(), rights);
        is_filled
    }
}
