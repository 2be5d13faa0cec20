//! How the tiers are filled: stamps and leases first, then the values.

use super::TieredCache;
use super::budget::Budget;
use super::fill_guard::FillGuard;
use crate::cache::memory::{ReadStamps, jittered};
use crate::cache::shared::{Fact, Facts};
use crate::coherence::generation::Snapshot;
use crate::coherence::lease::Grant;
use crate::coherence::rules::{Rule, kept};
use crate::telemetry::metrics::Work;
use crate::types::Error;
use crate::types::link::Key;
use crate::types::per_key::PerKey;
use crate::types::question::Question;
use std::sync::Arc;

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
    /// Returns the stamps to fill values that are read from now on.
    pub(crate) fn read_stamps(&self, question: &Question) -> ReadStamps {
        self.expiring.expire();
        self.memory.read_stamps(question)
    }

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
        let shared = self.shared.as_ref();
        FillGuard::new(shared.map(|shared| Arc::clone(&shared.returns)), questions)
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
        let (tier, token) = (&shared.tier, guard.token());
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
        let (tier, token) = (&shared.tier, guard.token());
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
        let facts = facts.filter(Fact::is_plausible);
        if facts.is_empty() {
            return Ok(());
        }
        let (asked, keys) = (facts.names(), facts.keys());
        let read_stamps = guard.read_stamps(keys.clone());
        let unasked = (!kept(Rule::MemoryIsFilledAfterRedis)).then(|| facts.clone());
        let (facts, leased) = match &self.shared {
            Some(shared) => {
                let ttl = jittered(shared.settings.ttl);
                let (leases, tier) = (guard.leases(keys.clone()), &shared.tier);
                let facts = match leases.is_empty() {
                    true => Facts::default(),
                    false => {
                        budget
                            .ask("fill", |_| tier.fill(facts, leases, ttl))
                            .await?
                    }
                };
                guard.finished(keys.zip(leases).iter().map(|(key, _)| key));
                (facts, asked.zip(leases).map(|(name, _)| name))
            }
            None => (self.still_allowed(facts, read_stamps), asked),
        };
        let facts = unasked.unwrap_or(facts);
        if !facts.is_empty() {
            self.memory.fill(&facts, read_stamps);
        }
        self.count_fill(leased, facts.count(), read_stamps);
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
        let facts = facts
            .into_iter()
            .map(|facts| facts.filter(Fact::is_plausible));
        let facts: Vec<_> = facts.collect();
        let keys: Vec<_> = facts.iter().flat_map(Facts::keys).collect();
        let asked: Vec<_> = facts.iter().map(Facts::names).collect();
        let read_stamps: Vec<_> = facts
            .iter()
            .map(|facts| guard.read_stamps(facts.keys()))
            .collect();
        let filled = shared
            .tier
            .fill_all(facts, guard.token(), shared.settings.ttl);
        let accepted = filled
            .await
            .inspect_err(|_| self.work.fills_failed.increment(1))?;
        guard.finished(&keys);
        let fills = asked.into_iter().zip(&accepted).zip(read_stamps);
        Ok(fills
            .map(|((asked, facts), read_stamps)| self.fill_accepted(asked, facts, read_stamps))
            .collect())
    }

    /// Returns the stamps of all keys, to fill values that are read from now on. Returns `None`
    /// while memory is not trusted.
    pub(crate) fn snapshot(&self) -> Option<Snapshot> {
        self.expiring.expire();
        self.memory.snapshot()
    }

    /// Fills memory, if it is the only tier, with facts that were read under these stamps. Returns
    /// whether any fact was accepted.
    pub(crate) fn fill_memory(&self, facts: Facts, read_stamps: ReadStamps) -> bool {
        let facts = facts.filter(Fact::is_plausible);
        if facts.is_empty() {
            return false;
        }
        let asked = facts.names();
        let facts = self.still_allowed(facts, read_stamps);
        self.fill_accepted(asked, &facts, read_stamps)
    }

    fn fill_accepted(&self, leased: PerKey<u64>, facts: &Facts, read_stamps: ReadStamps) -> bool {
        let is_filled = !facts.is_empty();
        if is_filled {
            self.memory.fill_new(facts, read_stamps);
        }
        self.count_fill(leased, facts.count(), read_stamps);
        is_filled
    }

    /// Counts the result of a fill. `leased` names the keys that had a lease, and `filled` the keys
    /// that were filled.
    fn count_fill(&self, leased: PerKey<u64>, filled: usize, read_stamps: ReadStamps) {
        let work = &self.work;
        if self.has_shared() {
            work.leases_lost.increment((leased.count() - filled) as u64);
        }
        let generations = self.memory.generations();
        let is_fenced = || {
            let stamped = leased.zip(read_stamps).into_iter();
            let mut holds = stamped.map(|(name, read_stamp)| generations.holds(&name, read_stamp));
            holds.any(|holds| !holds)
        };
        let counter = match (filled, leased.count()) {
            (1.., _) => &work.fills_stored,
            (0, 0) => &work.fills_unleased,
            _ if !self.has_shared() || is_fenced() => &work.fills_fenced,
            _ => &work.fills_late,
        };
        counter.increment(1);
    }

    /// Returns the facts whose keys have not changed since their stamps were taken.
    fn still_allowed(&self, facts: Facts, read_stamps: ReadStamps) -> Facts {
        let generations = self.memory.generations();
        facts.zip(read_stamps).filter_map(|(fact, read_stamp)| {
            let holds = generations.holds(&fact.key, read_stamp);
            holds.then_some(fact)
        })
    }
}
