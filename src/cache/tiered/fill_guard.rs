//! [`FillGuard`]: may the caller fill the tiers with values that it is about to read?

use super::TieredCache;
use super::budget::Budget;
use super::returns::{Return, Returns};
use crate::cache::memory::{ReadStamps, jittered};
use crate::cache::shared::{Facts, Leases};
use crate::coherence::generation::ReadStamp;
use crate::coherence::lease::{Grant, Token};
use crate::telemetry::metrics::Work;
use crate::types::Error;
use crate::types::link::Key;
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
    /// Returns the keys of this guard, each once.
    pub(crate) fn keys(&self) -> Vec<Key> {
        self.keys.keys().cloned().collect()
    }

    pub(crate) fn has(&self, key: &Key, grant: Grant) -> bool {
        self.keys.get(key).and_then(|hold| hold.grant) == Some(grant)
    }

    /// Returns the stamps of the keys that `question` asks for.
    pub(crate) fn read_stamps(&self, question: &Question) -> ReadStamps {
        self.read_stamps_of(question.keys())
    }

    fn read_stamps_of(&self, keys: impl IntoIterator<Item = Key>) -> ReadStamps {
        let mut read_stamps = ReadStamps::default();
        for key in keys {
            let stamp = self.keys.get(&key).and_then(|hold| hold.stamp);
            match key {
                Key::Link(_) => read_stamps.member = stamp,
                Key::Meta(_) | Key::Own(_) => read_stamps.meta = stamp,
            }
        }
        read_stamps
    }

    /// Returns the leases under which these keys can be filled. A lease that only may have been
    /// granted does not count: Redis may grant it after a change that came after the backend was
    /// read.
    pub(crate) fn leases(&self, keys: impl IntoIterator<Item = Key>) -> Leases {
        let mut leases = Leases::default();
        for key in keys {
            if self.has(&key, Grant::Granted) {
                leases.take(&[key], &[Grant::Granted], self.token);
            }
        }
        leases
    }

    /// Returns those of the facts that have a lease.
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

    /// Notes that no lease of these keys is left to give back.
    pub(super) fn finished<'a>(&mut self, keys: impl IntoIterator<Item = &'a Key>) {
        for key in keys {
            self.note(key, None);
        }
    }

    /// Returns those of the keys whose leases this guard holds or may hold.
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

/// Counts the answers to requests for leases.
fn count_leases(work: &Work, grants: &[Grant]) {
    for grant in grants {
        let counter = match grant {
            Grant::Granted => &work.leases_granted,
            Grant::Wait => &work.leases_wait,
            Grant::Blocked => &work.leases_blocked,
            Grant::Hit => &work.leases_found,
            Grant::Unknown => continue,
        };
        counter.increment(1);
    }
}

impl TieredCache {
    /// Returns a guard for the keys of these questions, with their current stamps and without
    /// leases.
    pub(crate) fn guard<'a>(&self, questions: impl IntoIterator<Item = &'a Question>) -> FillGuard {
        let with_stamps = questions
            .into_iter()
            .map(|question| (question, self.read_stamps(question)));
        self.guard_with(with_stamps)
    }

    /// As [`guard`](Self::guard), with stamps that were taken before.
    pub(crate) fn guard_with<'a>(
        &self,
        questions: impl IntoIterator<Item = (&'a Question, ReadStamps)>,
    ) -> FillGuard {
        let mut keys = HashMap::with_hasher(RandomState::default());
        for (question, read_stamps) in questions {
            for key in question.keys() {
                let stamp = match key {
                    Key::Link(_) => read_stamps.member,
                    Key::Meta(_) | Key::Own(_) => read_stamps.meta,
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

    /// Asks for the leases of these keys of the guard. With `steal`, an existing entry or another
    /// lease does not prevent the grant.
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
            // If the caller is cancelled before the answer comes, all may have been granted.
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
                count_leases(&self.work, grants);
            }
            Err(error) if !tier.may_be_executed(error) => guard.finished(keys),
            Err(_) => {}
        }
        granted
    }

    /// Gives back the guard's leases of these keys, which were not used.
    pub(crate) async fn release(&self, guard: &mut FillGuard, keys: &[Key], budget: &mut Budget) {
        let held = guard.held(keys);
        let Some(shared) = self.shared.as_ref().filter(|_| !held.is_empty()) else {
            return;
        };
        let (tier, token) = (&shared.tier, guard.token);
        let released = budget.ask("release", |_| tier.release(&held, token));
        if released.await.is_ok() {
            guard.finished(&held);
        }
    }

    /// Fills the tiers with facts that were read under this guard. Memory gets only the facts that
    /// Redis has accepted.
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
        // The lease of an implausible meta is given back when the guard is dropped.
        let facts = super::plausible(facts);
        if facts.is_empty() {
            return Ok(());
        }
        let (asked, keys) = (facts.names(), facts.keys().collect::<Vec<_>>());
        let read_stamps = guard.read_stamps_of(keys.iter().cloned());
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
                guard.finished(keys.iter().filter(|key| leases.of_key(key).is_some()));
                (facts, asked.leased(leases))
            }
            None => (self.still_allowed(facts, read_stamps), asked),
        };
        if !facts.is_empty() {
            self.memory.fill(&facts, read_stamps);
        }
        self.count_fill(leased, facts.names(), read_stamps);
        Ok(())
    }

    /// As [`try_fill`](Self::try_fill), for many facts that were read under leases of the guard.
    /// Returns for each element whether any fact of it was accepted.
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
        let read_stamps: Vec<_> = facts
            .iter()
            .map(|facts| guard.read_stamps_of(facts.keys()))
            .collect();
        let filled = shared
            .tier
            .fill_all(facts, guard.token, shared.settings.ttl);
        let accepted = filled
            .await
            .inspect_err(|_| self.work.fills_failed.increment(1))?;
        guard.finished(&keys);
        let fills = asked.into_iter().zip(&accepted).zip(read_stamps);
        Ok(fills
            .map(|((asked, facts), read_stamps)| self.fill_accepted(asked, facts, read_stamps))
            .collect())
    }
}
