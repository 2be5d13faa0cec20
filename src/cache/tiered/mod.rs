//! The tiers as one cache: memory, then Redis.

mod change;
#[cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "Redis is the only shared tier")
)]
mod debts;
mod lapses;

use super::LayerInfoCache;
use super::memory::{Memory, MemoryConfig, Rights, jittered};
#[cfg(feature = "redis")]
use super::redis::RedisCache;
use super::shared::{
    Facts, Found, Leases, Member, Question, SharedSettings, SharedTier, is_plausible,
};
use crate::coherence::Coherence;
use crate::coherence::change::Outcome;
use crate::coherence::lease::{Grant, Token};
use crate::link::Key;
use crate::metrics::{Lookups, Work};
use crate::{Digest, Error, LayerMeta, Link};
use async_trait::async_trait;
use debts::Debts;
use lapses::Lapses;
use std::sync::Arc;

/// A [`LayerInfoCache`] of one or two tiers: memory, and behind it, if there is one, Redis.
///
/// A Redis hit fills memory; a write goes to both, Redis first, under a lease; a removal takes the
/// fact out of this memory, then out of Redis, then out of the memory of all nodes that share it,
/// and returns when that is done. What was being read meanwhile is not filled.
///
/// # Cost
/// A memory hit does no I/O and allocates nothing. A question to Redis is one round trip, a write
/// two, a removal three.
///
/// # Time to live
/// A fact leaves the cache at the latest [`RedisConfig::ttl`](crate::RedisConfig) after its write:
/// what memory may add to Redis's own time is taken off that beforehand.
#[derive(Debug)]
pub struct TieredCache {
    memory: Memory,
    lapses: Arc<Lapses>,
    shared: Option<Shared>,
    lookups: Lookups,
    work: Work,
}

#[derive(Debug)]
struct Shared {
    tier: Arc<dyn SharedTier>,
    debts: Arc<Debts>,
    settings: SharedSettings,
    lookups: Lookups,
}

impl TieredCache {
    /// A cache in memory alone.
    pub fn in_memory(memory: MemoryConfig) -> Self {
        Self::over(memory, Arc::new(Coherence::alone()))
    }

    fn over(memory: MemoryConfig, coherence: Arc<Coherence>) -> Self {
        Self {
            lapses: Lapses::new(Arc::clone(&coherence)),
            memory: Memory::new(memory, coherence),
            shared: None,
            lookups: Lookups::new("memory"),
            work: Work::new(),
        }
    }

    /// A cache in memory, with Redis behind it.
    #[cfg(feature = "redis")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
    pub fn with_redis(memory: MemoryConfig, redis: RedisCache) -> Self {
        let settings = redis.settings();
        let coherence = Arc::new(Coherence::among_others());
        let redis = redis.join(Arc::clone(&coherence));
        Self::with_shared(memory, Arc::new(redis), settings, coherence)
    }

    #[cfg(any(test, feature = "redis"))]
    pub(crate) fn with_shared(
        mut memory: MemoryConfig,
        tier: Arc<dyn SharedTier>,
        mut settings: SharedSettings,
        coherence: Arc<Coherence>,
    ) -> Self {
        memory.ttl = memory.ttl.min(settings.ttl / 2);
        settings.ttl -= memory.ttl;
        Self {
            shared: Some(Shared {
                debts: Debts::new(Arc::clone(&tier)),
                tier,
                settings,
                lookups: Lookups::new("redis"),
            }),
            ..Self::over(memory, coherence)
        }
    }

    pub(crate) const fn work(&self) -> &Work {
        &self.work
    }

    pub(crate) const fn has_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// The shared tier, unless it may hold what this node has changed.
    fn ask_shared(&self) -> Result<Option<&Shared>, Error> {
        match &self.shared {
            Some(shared) => shared.debts.is_clear().map(|()| Some(shared)),
            None => Ok(None),
        }
    }

    /// What memory knows; counted.
    pub(crate) fn recall(&self, question: &Question) -> Found {
        let found = self.memory.look_up(question);
        self.lookups.count(found.asked(question));
        found
    }

    /// What memory knows, for one who has asked it before.
    pub(crate) fn recall_again(&self, question: &Question) -> Found {
        self.memory.look_up(question)
    }

    /// The rights to fill what is read from here on.
    pub(crate) fn rights(&self, question: &Question) -> Rights {
        self.memory.rights(question)
    }

    /// What Redis knows, in one round trip for all questions; memory is filled with it. Where Redis
    /// cannot be asked it knows nothing.
    pub(crate) async fn look_up(&self, questions: &[Question], rights: &[Rights]) -> Vec<Found> {
        match self.try_look_up(questions, rights).await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%error, "asking the backend instead");
                vec![Found::default(); questions.len()]
            }
        }
    }

    async fn try_look_up(
        &self,
        questions: &[Question],
        rights: &[Rights],
    ) -> Result<Vec<Found>, Error> {
        let Some(shared) = self.ask_shared()? else {
            return Ok(vec![Found::default(); questions.len()]);
        };
        let answers = shared.tier.look_up(questions).await.inspect_err(|_| {
            for question in questions {
                shared.lookups.count_error(Found::default().asked(question));
            }
        })?;
        for ((question, found), rights) in questions.iter().zip(&answers).zip(rights) {
            shared.lookups.count(found.asked(question));
            self.memory.fill(&found.clone().of(question), *rights);
        }
        Ok(answers)
    }

    /// Asks for the leases to fill these keys. Where Redis cannot be asked nothing is said.
    pub(crate) async fn grant(&self, keys: &[Key], token: Token, steal: bool) -> Vec<Grant> {
        match self.ask_shared() {
            Ok(Some(shared)) if !keys.is_empty() => {
                let grants = shared.tier.grant(keys, token, steal).await;
                grants.unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }

    /// Asks once for the leases to fill all of `question`, for one who reads from the backend anyway.
    pub(crate) async fn try_lease(&self, question: &Question, token: Token, steal: bool) -> Leases {
        let keys = question.keys();
        let mut leases = Leases::default();
        leases.take(&keys, &self.grant(&keys, token, steal).await, token);
        leases
    }

    /// Fills the tiers with what was read under these rights and leases, unless its keys were
    /// changed since. Memory is filled only with what Redis has accepted.
    pub(crate) async fn fill(&self, facts: Facts, rights: Rights, leases: Leases) {
        if let Err(error) = self.try_fill(facts, rights, leases).await {
            self.work.fills_failed.increment(1);
            tracing::debug!(%error, "not filled");
        }
    }

    async fn try_fill(&self, facts: Facts, rights: Rights, leases: Leases) -> Result<(), Error> {
        if facts.is_empty() {
            return Ok(());
        }
        let (facts, odd) = plausible(facts);
        if let Some(key) = odd {
            // Who would fill it otherwise need not wait for this lease to lapse.
            self.release(&[key], leases).await;
        }
        let facts = match &self.shared {
            Some(shared) => {
                let ttl = jittered(shared.settings.ttl);
                shared.tier.fill(facts, leases, ttl).await?
            }
            None => self.still_allowed(facts, rights),
        };
        if facts.is_empty() {
            self.work.fills_fenced.increment(1);
            return Ok(());
        }
        self.memory.fill(&facts, rights);
        self.work.fills_stored.increment(1);
        Ok(())
    }

    /// Gives back the leases for what was not there to fill.
    pub(crate) async fn release(&self, keys: &[Key], leases: Leases) {
        let Some(shared) = &self.shared else { return };
        let mut held = keys.iter().filter(|key| leases.of_key(key).is_some());
        // All leases of a load have one token.
        if let Some(token) = held.clone().find_map(|key| leases.of_key(key)) {
            let keys: Vec<_> = held.by_ref().cloned().collect();
            // One that stays lapses by itself.
            let _ = shared.tier.release(&keys, token).await;
        }
    }

    /// Whether a tier holds any of this, or may: where Redis cannot be asked it may.
    pub(crate) async fn may_hold(&self, question: &Question) -> bool {
        let is_held = |found: &Found| found.member.is_some() || found.meta.is_some();
        if is_held(&self.memory.look_up(question)) {
            return true;
        }
        match self.ask_shared() {
            Ok(None) => false,
            Ok(Some(shared)) => {
                let found = shared.tier.look_up(std::slice::from_ref(question)).await;
                found.map_or(true, |found| found.iter().any(is_held))
            }
            Err(_) => true,
        }
    }

    /// The facts whose keys have not been changed since their rights were taken.
    fn still_allowed(&self, facts: Facts, rights: Rights) -> Facts {
        let generations = self.memory.generations();
        Facts {
            member: facts.member.filter(|(link, _)| {
                let holds = |right| generations.holds(link, right);
                rights.member.is_some_and(holds)
            }),
            meta: facts.meta.filter(|(digest, _)| {
                let holds = |right| generations.holds(digest, right);
                rights.meta.is_some_and(holds)
            }),
        }
    }

    /// Forgets everything, here, in Redis and on all nodes that share it: when this returns, nothing
    /// that was cached before is answered anywhere. For use after a garbage collection that ran
    /// behind the cache's back.
    ///
    /// # Errors
    /// If Redis could not be told. What is in this node's memory is forgotten all the same.
    pub async fn purge(&self) -> Result<(), Error> {
        self.memory.generations().flush();
        let purged = match &self.shared {
            Some(shared) => shared.tier.purge().await,
            None => Ok(()),
        };
        // What was filled from Redis while it was being purged.
        self.memory.generations().flush();
        purged
    }

    /// Leaves the other nodes that share Redis, before this one stops: from here on they do not wait
    /// for it. What is asked later is asked of the backend alone; changes are refused, or with
    /// [`ChangePolicy::BestEffort`](crate::ChangePolicy) made without telling the others. A node that ends without this
    /// costs each change of the others [`RedisConfig::trust`](crate::RedisConfig), until that is over.
    pub async fn leave(&self) {
        if let Some(shared) = &self.shared {
            shared.tier.leave().await;
        }
    }

    /// Forgets everything that is in memory.
    pub fn flush_memory(&self) {
        self.memory.generations().flush();
    }

    async fn ask(&self, question: Question) -> Result<Found, Error> {
        let found = self.recall(&question);
        if found.answers(&question, true) {
            return Ok(found);
        }
        let rights = self.rights(&question);
        let mut answers = self.try_look_up(&[question], &[rights]).await?;
        Ok(answers.pop().unwrap_or_default())
    }

    async fn remember(&self, question: Question, facts: Facts) -> Result<(), Error> {
        let rights = self.rights(&question);
        let leases = self.try_lease(&question, Token::random(), true).await;
        self.try_fill(facts, rights, leases).await
    }

    async fn forget(&self, key: Key) -> Result<(), Error> {
        self.change(vec![key], None, async { ((), Outcome::Over) })
            .await
    }
}

/// What of these may be believed, and the key of what may not.
fn plausible(facts: Facts) -> (Facts, Option<Key>) {
    match facts.meta {
        Some((digest, meta)) if !is_plausible(&digest, &meta) => (
            Facts {
                meta: None,
                ..facts
            },
            Some(Key::Meta(digest)),
        ),
        meta => (Facts { meta, ..facts }, None),
    }
}

#[async_trait]
impl LayerInfoCache for TieredCache {
    async fn contains(&self, link: &Link) -> Result<bool, Error> {
        let found = self.ask(Question::Link(link.clone())).await?;
        Ok(found.member.is_some())
    }

    async fn add(&self, link: &Link) -> Result<(), Error> {
        let facts = Facts {
            member: Some((link.clone(), Member::default())),
            meta: None,
        };
        self.remember(Question::Link(link.clone()), facts).await
    }

    async fn remove(&self, link: &Link) -> Result<(), Error> {
        self.forget(Key::Link(link.clone())).await
    }

    async fn meta(&self, digest: &Digest) -> Result<Option<LayerMeta>, Error> {
        Ok(self.ask(Question::Meta(*digest)).await?.meta)
    }

    async fn set_meta(&self, digest: &Digest, meta: &LayerMeta) -> Result<(), Error> {
        let facts = Facts {
            member: None,
            meta: Some((*digest, meta.clone())),
        };
        self.remember(Question::Meta(*digest), facts).await
    }

    async fn remove_meta(&self, digest: &Digest) -> Result<(), Error> {
        self.forget(Key::Meta(*digest)).await
    }
}
