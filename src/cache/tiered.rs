//! The tiers as one cache: memory, then Redis.

use super::LayerInfoCache;
use super::memory::{Memory, MemoryConfig, Rights, jittered};
#[cfg(feature = "redis")]
use super::redis::RedisCache;
use super::shared::{Facts, Found, Member, Question, SharedTier, is_plausible};
use crate::coherence::generation::{Fence, Right};
use crate::link::Key;
use crate::metrics::{Lookups, Work};
use crate::{Digest, Error, LayerMeta, Link};
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::RwLock;

/// A [`LayerInfoCache`] of one or two tiers: memory, and behind it, if there is one, Redis.
///
/// A Redis hit fills memory; a write goes to both, Redis first; a removal takes the fact out of
/// memory at once, then out of Redis, and what was being read meanwhile is not filled.
///
/// # Cost
/// A memory hit does no I/O and allocates nothing. Anything else that Redis is asked or told is one
/// round trip.
///
/// # Time to live
/// A fact leaves the cache at the latest [`RedisConfig::ttl`](crate::RedisConfig) after its write:
/// what memory may add to Redis's own time is taken off that beforehand.
#[derive(Debug)]
pub struct TieredCache {
    memory: Memory,
    shared: Option<Shared>,
    lookups: Lookups,
    work: Work,
}

#[derive(Debug)]
struct Shared {
    tier: Arc<dyn SharedTier>,
    ttl: Duration,
    gate: Gate,
    lookups: Lookups,
}

/// Lets a change wait until the fills that did not yet see it are over. One lock for many digests:
/// to share one costs a short wait.
#[derive(Debug)]
struct Gate(Box<[RwLock<()>]>);

const GATES: usize = 64;

impl Gate {
    fn new() -> Self {
        Self((0..GATES).map(|_| RwLock::new(())).collect())
    }

    fn of(&self, digest: &Digest) -> usize {
        usize::from(digest.as_bytes()[0]) % self.0.len()
    }

    async fn wait(&self, keys: &[Key]) {
        let mut gates: Vec<_> = keys.iter().map(|key| self.of(key.digest())).collect();
        gates.sort_unstable();
        gates.dedup();
        for gate in gates {
            drop(self.0[gate].write().await);
        }
    }
}

impl TieredCache {
    /// A cache in memory alone.
    pub fn in_memory(memory: MemoryConfig) -> Self {
        Self {
            memory: Memory::new(memory),
            shared: None,
            lookups: Lookups::new("memory"),
            work: Work::new(),
        }
    }

    /// A cache in memory, with Redis behind it.
    #[cfg(feature = "redis")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
    pub fn with_redis(memory: MemoryConfig, redis: RedisCache) -> Self {
        let ttl = redis.ttl();
        Self::with_shared(memory, Arc::new(redis), ttl)
    }

    #[cfg(any(test, feature = "redis"))]
    pub(crate) fn with_shared(
        mut memory: MemoryConfig,
        tier: Arc<dyn SharedTier>,
        ttl: Duration,
    ) -> Self {
        memory.ttl = memory.ttl.min(ttl / 2);
        Self {
            shared: Some(Shared {
                tier,
                ttl: ttl - memory.ttl,
                gate: Gate::new(),
                lookups: Lookups::new("redis"),
            }),
            ..Self::in_memory(memory)
        }
    }

    pub(crate) const fn work(&self) -> &Work {
        &self.work
    }

    pub(crate) const fn has_shared(&self) -> bool {
        self.shared.is_some()
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
        let Some(shared) = &self.shared else {
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

    /// Fills both tiers with what was read under `rights`, unless its keys were changed since.
    /// Memory is filled only after Redis has accepted.
    pub(crate) async fn fill(&self, facts: Facts, rights: Rights) {
        if let Err(error) = self.try_fill(facts, rights).await {
            self.work.fills_failed.increment(1);
            tracing::debug!(%error, "not filled");
        }
    }

    async fn try_fill(&self, facts: Facts, rights: Rights) -> Result<(), Error> {
        let Some(digest) = facts.digest().copied() else {
            return Ok(());
        };
        let gate = match &self.shared {
            Some(shared) => Some(shared.gate.0[shared.gate.of(&digest)].read().await),
            None => None,
        };
        let facts = self.still_allowed(facts, rights);
        if facts.is_empty() {
            self.work.fills_fenced.increment(1);
            return Ok(());
        }
        if let Some(shared) = &self.shared {
            shared.tier.fill(&facts, jittered(shared.ttl)).await?;
        }
        self.memory.fill(&facts, rights);
        self.work.fills_stored.increment(1);
        drop(gate);
        Ok(())
    }

    /// The facts whose keys have not been changed since their rights were taken.
    fn still_allowed(&self, facts: Facts, rights: Rights) -> Facts {
        let generations = self.memory.generations();
        Facts {
            member: facts.member.filter(|(link, _)| {
                let holds = |right| generations.holds(link, right);
                rights.member.is_some_and(holds)
            }),
            meta: facts.meta.filter(|(digest, meta)| {
                let holds = |right| generations.holds(digest, right);
                rights.meta.is_some_and(holds) && is_plausible(digest, meta)
            }),
        }
    }

    /// Begins a change: nothing of these keys is answered from memory or filled until it ends, and
    /// when this returns Redis has nothing of them either. Where that fails the change is over.
    pub(crate) async fn begin(&self, keys: &[Key]) -> Result<Vec<Fence>, Error> {
        let generations = self.memory.generations();
        let fences: Vec<_> = keys.iter().map(|key| generations.begin(key)).collect();
        match self.withdraw(keys).await {
            Ok(()) => Ok(fences),
            Err(source) => {
                for fence in fences {
                    generations.end(fence);
                }
                self.work.changes_refused.increment(1);
                let source = Arc::new(source);
                Err(Error::ChangeRefused { source })
            }
        }
    }

    /// Ends a change whose backend call is over. Returns, key by key, the right to fill what the
    /// change has written, where nobody else has changed the key.
    pub(crate) async fn end(&self, keys: &[Key], fences: Vec<Fence>) -> Vec<Option<Right>> {
        // Nothing of this node has come back since the beginning; another node's may have.
        match self.withdraw(keys).await {
            Ok(()) => self.work.changes_done.increment(1),
            Err(error) => {
                self.work.changes_unconfirmed.increment(1);
                tracing::warn!(%error, "a change is done, but other nodes may have cached what was before");
            }
        }
        let generations = self.memory.generations();
        fences
            .into_iter()
            .map(|fence| generations.end(fence))
            .collect()
    }

    /// Takes keys away everywhere, because the backend denied what they say.
    pub(crate) async fn heal(&self, keys: &[Key]) {
        self.work.heals.increment(1);
        for key in keys {
            self.memory.generations().bump(key);
        }
        if let Err(error) = self.withdraw(keys).await {
            tracing::debug!(%error, "what the backend denied may still be cached in Redis");
        }
    }

    async fn withdraw(&self, keys: &[Key]) -> Result<(), Error> {
        let Some(shared) = &self.shared else {
            return Ok(());
        };
        shared.gate.wait(keys).await;
        shared.tier.withdraw(keys).await
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

    async fn remember(&self, question: &Question, facts: Facts) -> Result<(), Error> {
        self.try_fill(facts, self.rights(question)).await
    }

    async fn forget(&self, key: Key) -> Result<(), Error> {
        let keys = [key];
        let fences = self.begin(&keys).await?;
        for fence in fences {
            self.memory.generations().end(fence);
        }
        Ok(())
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
        self.remember(&Question::Link(link.clone()), facts).await
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
        self.remember(&Question::Meta(*digest), facts).await
    }

    async fn remove_meta(&self, digest: &Digest) -> Result<(), Error> {
        self.forget(Key::Meta(*digest)).await
    }
}
