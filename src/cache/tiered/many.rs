//! Fills of many facts at once, for one who reads many from the backend at once.

use super::{TieredCache, plausible};
use crate::Error;
use crate::cache::memory::Rights;
use crate::cache::shared::{Facts, Names};
use crate::coherence::generation::Snapshot;
use crate::coherence::lease::{Grant, Token};
use crate::link::Key;

impl TieredCache {
    /// The rights of all keys, to fill what is read from here on; none where memory is not trusted.
    pub(crate) fn snapshot(&self) -> Option<Snapshot> {
        self.expiring.expire();
        self.memory.snapshot()
    }

    /// Asks for the leases of many keys. What is there already, or somebody else's lease, stays.
    pub(crate) async fn claim(&self, keys: &[Key], token: Token) -> Result<Vec<Grant>, Error> {
        match self.ask_shared()? {
            Some(shared) => {
                let deadline = shared.settings.read_deadline();
                let grants = shared.tier.grant(keys, token, false, deadline).await;
                grants.inspect(|grants| self.work.count_leases(grants))
            }
            None => Ok(Vec::new()),
        }
    }

    /// Fills memory, where it is the only tier, with what was read under these rights. Says whether
    /// any of it was accepted.
    pub(crate) fn fill_memory(&self, facts: Facts, rights: Rights) -> bool {
        let (facts, _) = plausible(facts);
        if facts.is_empty() {
            return false;
        }
        let asked = facts.names();
        let facts = self.still_allowed(facts, rights);
        self.fill_accepted(asked, &facts, rights)
    }

    /// Fills the tiers with what was read under these rights and under leases with this token. Says
    /// of each whether any of it was accepted.
    pub(crate) async fn fill_all(
        &self,
        facts: Vec<Facts>,
        rights: &[Rights],
        token: Token,
    ) -> Result<Vec<bool>, Error> {
        let Some(shared) = self.ask_shared()? else {
            return Ok(vec![false; facts.len()]);
        };
        let facts = facts.into_iter().map(|facts| plausible(facts).0);
        let facts: Vec<_> = facts.collect();
        let asked: Vec<_> = facts.iter().map(Facts::names).collect();
        let filled = shared.tier.fill_all(facts, token, shared.settings.ttl);
        let accepted = filled
            .await
            .inspect_err(|_| self.work.fills_failed.increment(1))?;
        let fills = asked.into_iter().zip(&accepted).zip(rights);
        Ok(fills
            .map(|((asked, facts), rights)| self.fill_accepted(asked, facts, *rights))
            .collect())
    }

    fn fill_accepted(&self, leased: Names, facts: &Facts, rights: Rights) -> bool {
        let is_filled = !facts.is_empty();
        if is_filled {
            self.memory.fill_new(facts, rights);
        }
        self.count_fill(leased, facts.names(), rights);
        is_filled
    }
}
