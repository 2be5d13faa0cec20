//! [`FillGuard`]: may the caller fill the tiers with values that it is about to read?

use super::returns::{Return, Returns};
use crate::cache::memory::ReadStamps;
use crate::cache::shared::{Facts, Leases};
use crate::coherence::generation::ReadStamp;
use crate::coherence::lease::{Grant, Token};
use crate::coherence::rules::{Rule, kept};
use crate::types::link::Key;
use crate::types::per_key::PerKey;
use crate::types::question::Question;
use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::sync::Arc;

/// The right to fill both tiers with values that are read from now on. It holds the stamps of its
/// keys, taken before anything is read, and their leases. When it is dropped, a task gives back the
/// leases that are left. So a reader that fails or is cancelled blocks no other reader.
#[derive(Debug)]
pub(crate) struct FillGuard {
    returns: Option<Arc<Returns>>,
    token: Token,
    keys: HashMap<Key, Hold, RandomState>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Hold {
    stamp: Option<ReadStamp>,
    /// The answer to the request for a lease. [`Grant::Unknown`] means that the lease may have been
    /// granted.
    grant: Option<Grant>,
}

impl FillGuard {
    /// Creates a guard for the keys of these questions, with these stamps and without leases.
    pub(super) fn new<'a>(
        returns: Option<Arc<Returns>>,
        questions: impl IntoIterator<Item = (&'a Question, ReadStamps)>,
    ) -> Self {
        let mut keys = HashMap::with_hasher(RandomState::default());
        for (question, read_stamps) in questions {
            for (key, stamp) in question.keys().with(read_stamps) {
                keys.entry(key).or_insert(Hold { stamp, grant: None });
            }
        }
        Self {
            returns,
            token: Token::random(),
            keys,
        }
    }

    /// Returns the token of all leases of this guard.
    pub(super) const fn token(&self) -> Token {
        self.token
    }

    /// Returns the keys of this guard, each once and in order: a run of the simulation can be
    /// repeated only if nothing depends on the order in a hash table.
    pub(crate) fn keys(&self) -> Vec<Key> {
        let mut keys: Vec<_> = self.keys.keys().cloned().collect();
        keys.sort_unstable();
        keys
    }

    pub(crate) fn has(&self, key: &Key, grant: Grant) -> bool {
        self.keys.get(key).and_then(|hold| hold.grant) == Some(grant)
    }

    /// Returns the stamps of these keys.
    pub(crate) fn read_stamps(&self, keys: PerKey<Key>) -> ReadStamps {
        keys.filter_map(|key| self.keys.get(&key)?.stamp)
    }

    /// Returns the leases under which these keys can be filled. A lease that only may have been
    /// granted does not count: Redis may grant it after a change that came after the backend was
    /// read.
    pub(crate) fn leases(&self, keys: PerKey<Key>) -> Leases {
        let counts = |key: &Key| {
            let is_unknown = self.has(key, Grant::Unknown);
            self.has(key, Grant::Granted) || (is_unknown && !kept(Rule::AnUnknownGrantIsNoLease))
        };
        keys.filter_map(|key| counts(&key).then_some(self.token))
    }

    /// Returns those of the facts that have a lease.
    pub(crate) fn granted(&self, facts: Facts) -> Facts {
        facts.filter(|fact| self.has(&fact.key, Grant::Granted))
    }

    /// Notes the answer to the request for a lease.
    pub(super) fn note(&mut self, key: &Key, grant: Option<Grant>) {
        if let Some(hold) = self.keys.get_mut(key) {
            hold.grant = grant;
        }
    }

    /// Notes that no lease of these keys is left to give back.
    pub(super) fn finished<'a>(&mut self, keys: impl IntoIterator<Item = &'a Key>) {
        for key in keys {
            self.note(key, None);
        }
    }

    /// Returns those of the keys whose leases this guard holds or may hold.
    pub(super) fn held(&self, keys: &[Key]) -> Vec<Key> {
        let is_held = |key: &&Key| self.has(key, Grant::Granted) || self.has(key, Grant::Unknown);
        keys.iter().filter(is_held).cloned().collect()
    }
}

impl Drop for FillGuard {
    fn drop(&mut self) {
        if let Some(returns) = &self.returns {
            let held = self.held(&self.keys());
            returns.begin(held, Return::Lease(self.token));
        }
    }
}
