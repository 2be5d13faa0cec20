//! [`FillGuard`]: the right to fill what is about to be read.

use super::TieredCache;
use super::budget::Budget;
use super::returns::{Return, Returns};
use crate::Error;
use crate::cache::memory::{Rights, jittered};
use crate::cache::shared::{Facts, Leases, Question};
use crate::coherence::generation::Right;
use crate::coherence::lease::{Grant, Token};
use crate::link::Key;
use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::sync::Arc;

/// The right to fill both tiers with what is read from here on: the stamps of one or many keys, taken
/// before anything is read, and their leases. What is left of the leases when this is dropped is given
/// back, in a task of its own: a reader that fails or goes away blocks nobody.
#[derive(Debug)]
pub(crate) struct FillGuard {
    returns: Option<Arc<Returns>>,
    token: Token,
    keys: HashMap<Key, Hold, RandomState>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Hold {
    stamp: Option<Right>,
    /// What was said of the lease. [`Grant::Unknown`] is one that may have been granted.
    grant: Option<Grant>,
}

impl FillGuard {
    /// The keys that are asked for, each once.
    pub(crate) fn keys(&self) -> Vec<Key> {
        self.keys.keys().cloned().collect()
    }

    pub(crate) fn has(&self, key: &Key, grant: Grant) -> bool {
        self.keys.get(key).and_then(|hold| hold.grant) == Some(grant)
    }

    /// The stamps of the keys that `question` asks of.
    pub(crate) fn rights(&self, question: &Question) -> Rights {
        self.rights_of(question.keys())
    }

    fn rights_of(&self, keys: impl IntoIterator<Item = Key>) -> Rights {
        let mut rights = Rights::default();
        for key in keys {
            let stamp = self.keys.get(&key).and_then(|hold| hold.stamp);
            match key {
                Key::Link(_) => rights.member = stamp,
                Key::Meta(_) | Key::Own(_) => rights.meta = stamp,
            }
        }
        rights
    }

    /// The leases that these keys can be filled under. One that may have been granted is none: it may be
    /// granted after a change that came after the backend was read.
    pub(crate) fn leases(&self, keys: impl IntoIterator<Item = Key>) -> Leases {
        let mut leases = Leases::default();
        for key in keys {
            if self.has(&key, Grant::Granted) {
                leases.take(&[key], &[Grant::Granted], self.token);
            }
        }
        leases
    }

    /// What of these there is a lease for.
    pub(crate) fn granted(&self, facts: Facts) -> Facts {
        let granted = |key: Key| self.has(&key, Grant::Granted);
        Facts {
            member: facts
                .member
                .filter(|(link, _)| granted(Key::Link(link.clone()))),
            meta: facts.meta.filter(|(key, _)| granted(key.clone().into())),
        }
    }

    fn note(&mut self, key: &Key, grant: Option<Grant>) {
        if let Some(hold) = self.keys.get_mut(key) {
            hold.grant = grant;
        }
    }

    /// There is nothing to give back of these.
    pub(super) fn settled<'a>(&mut self, keys: impl IntoIterator<Item = &'a Key>) {
        for key in keys {
            self.note(key, None);
        }
    }

    /// Those of these whose leases are held, or may be.
    fn held(&self, keys: &[Key]) -> Vec<Key> {
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

impl TieredCache {
    /// A guard for what is asked, with the stamps that it has now and without a lease.
    pub(crate) fn guard<'a>(&self, questions: impl IntoIterator<Item = &'a Question>) -> FillGuard {
        let with_stamps = questions
            .into_iter()
            .map(|question| (question, self.rights(question)));
        self.guard_with(with_stamps)
    }

    /// The same, with stamps of before.
    pub(crate) fn guard_with<'a>(
        &self,
        questions: impl IntoIterator<Item = (&'a Question, Rights)>,
    ) -> FillGuard {
        let mut keys = HashMap::with_hasher(RandomState::default());
        for (question, rights) in questions {
            for key in question.keys() {
                let stamp = match key {
                    Key::Link(_) => rights.member,
                    Key::Meta(_) | Key::Own(_) => rights.meta,
                };
                keys.entry(key).or_insert(Hold { stamp, grant: None });
            }
        }
        FillGuard {
            returns: self
                .shared
                .as_ref()
                .map(|shared| Arc::clone(&shared.returns)),
            token: Token::random(),
            keys,
        }
    }

    /// Asks for the leases of these keys of the guard. With `steal`, what is there already or somebody
    /// else's lease does not stay.
    pub(crate) async fn grant(
        &self,
        guard: &mut FillGuard,
        keys: &[Key],
        steal: bool,
        budget: &mut Budget,
    ) -> Result<Vec<Grant>, Error> {
        self.keep_signed();
        let Some(shared) = self.ask_shared()? else {
            return Ok(Vec::new());
        };
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let (tier, token) = (&shared.tier, guard.token);
        let asked = budget.ask("grant", |deadline| {
            // A caller that goes away before there is an answer may have been granted all of them.
            for key in keys {
                guard.note(key, Some(Grant::Unknown));
            }
            tier.grant(keys, token, steal, deadline)
        });
        let granted = asked.await;
        match &granted {
            Ok(grants) => {
                for (key, grant) in keys.iter().zip(grants) {
                    guard.note(key, Some(*grant));
                }
                self.work.count_leases(grants);
            }
            Err(error) if !tier.may_be_executed(error) => guard.settled(keys),
            Err(_) => {}
        }
        granted
    }

    /// Gives back what the guard has of these keys, and is not used.
    pub(crate) async fn release(&self, guard: &mut FillGuard, keys: &[Key], budget: &mut Budget) {
        let held = guard.held(keys);
        let Some(shared) = self.shared.as_ref().filter(|_| !held.is_empty()) else {
            return;
        };
        let (tier, token) = (&shared.tier, guard.token);
        let released = budget.ask("release", |_| tier.release(&held, token));
        if released.await.is_ok() {
            guard.settled(&held);
        }
    }

    /// Fills the tiers with what was read under this guard. What Redis has not accepted memory is not
    /// filled with.
    pub(crate) async fn fill(&self, guard: &mut FillGuard, facts: Facts, budget: &mut Budget) {
        if let Err(error) = self.try_fill(guard, facts, budget).await {
            self.work.fills_failed.increment(1);
            tracing::debug!(%error, "not filled");
        }
    }

    pub(super) async fn try_fill(
        &self,
        guard: &mut FillGuard,
        facts: Facts,
        budget: &mut Budget,
    ) -> Result<(), Error> {
        // The lease of what is not believed is given back when the guard is dropped.
        let facts = super::plausible(facts);
        if facts.is_empty() {
            return Ok(());
        }
        let (asked, keys) = (facts.names(), facts.keys().collect::<Vec<_>>());
        let rights = guard.rights_of(keys.iter().cloned());
        let (facts, leased) = match &self.shared {
            Some(shared) => {
                let ttl = jittered(shared.settings.ttl);
                let (leases, tier) = (guard.leases(facts.keys()), &shared.tier);
                let facts = match leases == Leases::default() {
                    true => Facts::default(),
                    false => {
                        budget
                            .ask("fill", |_| tier.fill(facts, leases, ttl))
                            .await?
                    }
                };
                guard.settled(keys.iter().filter(|key| leases.of_key(key).is_some()));
                (facts, asked.leased(leases))
            }
            None => (self.still_allowed(facts, rights), asked),
        };
        if !facts.is_empty() {
            self.memory.fill(&facts, rights);
        }
        self.count_fill(leased, facts.names(), rights);
        Ok(())
    }

    /// The same for many, of which each was read under leases of the guard. Says of each whether any
    /// of it was accepted.
    pub(crate) async fn fill_all(
        &self,
        guard: &mut FillGuard,
        facts: Vec<Facts>,
    ) -> Result<Vec<bool>, Error> {
        let Some(shared) = self.ask_shared()? else {
            return Ok(vec![false; facts.len()]);
        };
        let facts: Vec<_> = facts.into_iter().map(super::plausible).collect();
        let keys: Vec<_> = facts.iter().flat_map(Facts::keys).collect();
        let asked: Vec<_> = facts.iter().map(Facts::names).collect();
        let rights: Vec<_> = facts
            .iter()
            .map(|facts| guard.rights_of(facts.keys()))
            .collect();
        let filled = shared
            .tier
            .fill_all(facts, guard.token, shared.settings.ttl);
        let accepted = filled
            .await
            .inspect_err(|_| self.work.fills_failed.increment(1))?;
        guard.settled(&keys);
        let fills = asked.into_iter().zip(&accepted).zip(rights);
        Ok(fills
            .map(|((asked, facts), rights)| self.fill_accepted(asked, facts, rights))
            .collect())
    }
}
