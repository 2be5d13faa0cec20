//! The tiers as one cache: memory, then Redis.

mod budget;
mod change;
mod deny;
mod expiring_fences;
mod guard;
mod many;
#[cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "Redis is the only shared tier")
)]
mod retry_queue;
#[cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "Redis is the only shared tier")
)]
mod returns;

pub(crate) use budget::Budget;
pub(crate) use guard::FillGuard;
#[cfg_attr(
    not(feature = "signer"),
    allow(dead_code, reason = "only signed URLs need it")
)]
mod signed;

use super::LayerInfoCache;
use super::memory::{Memory, MemoryConfig, Rights};
#[cfg(feature = "redis")]
use super::redis::RedisCache;
use super::shared::{
    Facts, Found, MOST_QUESTIONS, Member, Names, Question, QuestionRef, SharedSettings, SharedTier,
    is_plausible,
};
use crate::coherence::Coherence;
use crate::coherence::change::{ChangeKind, Outcome};
use crate::link::{Key, LinkRef, MetaKey};
use crate::metrics::{self, Asked, Lookups, Part, Work};
use crate::spans;
use crate::{Digest, Error, Forgotten, LayerMeta, Link};
use ::metrics::Histogram;
use async_trait::async_trait;
use expiring_fences::ExpiringFences;
use retry_queue::RetryQueue;
use returns::Returns;
use signed::SignedWrites;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tracing::Instrument;

/// A [`LayerInfoCache`] of one or two tiers: memory, and behind it, if there is one, Redis.
///
/// A Redis hit fills memory; a write goes to both, Redis first, under a lease; a removal takes the
/// fact out of this memory, then out of Redis, then out of the memory of all nodes that share it,
/// and returns when that is done. What was being read meanwhile is not filled.
///
/// # Cost
/// | | allocations | Redis round trips |
/// |---|---|---|
/// | `contains`, `meta`: memory hit | 1, the trait's future | 0 |
/// | `contains`, `meta`: not in memory | | 1 |
/// | `add`, `set_meta` | | 2 |
/// | `remove`, `remove_meta` | | 3 |
///
/// A removal waits for the other nodes; see [`Repository::link`](crate::Repository::link). No backend is called;
/// [`Registry`](crate::Registry) has the terms.
///
/// # Time to live
/// A fact leaves the cache at the latest [`RedisConfig::ttl`](crate::RedisConfig) after its write:
/// what memory may add to Redis's own time is taken off that beforehand.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use layercache::{Digest, LayerInfoCache, Link, MemoryConfig, TieredCache};
///
/// let cache = TieredCache::in_memory(MemoryConfig::default());
/// # let digest = "sha256:e28d98ac666afd34f089b971a663264d54d67a60ddc82996d48d8f3c204eb75f".parse()?;
/// let link = Link::layer("library/alpine".parse()?, digest);
/// cache.add(&link).await?;
/// assert!(cache.contains(&link).await?);
///
/// // After a garbage collection that ran behind the cache's back.
/// cache.purge().await?;
/// assert!(!cache.contains(&link).await?);
///
/// cache.flush_memory(); // this node's memory alone
/// cache.leave().await; // when the node stops
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TieredCache {
    memory: Memory,
    expiring: Arc<ExpiringFences>,
    signed: Arc<SignedWrites>,
    shared: Option<Shared>,
    lookups: Lookups,
    work: Work,
    /// What it is in the gauges of all caches.
    _parts: (Part, Option<Part>),
}

#[derive(Debug)]
struct Shared {
    tier: Arc<dyn SharedTier>,
    queue: Arc<RetryQueue>,
    returns: Arc<Returns>,
    settings: SharedSettings,
    lookups: Lookups,
    duration: Histogram,
}

impl TieredCache {
    /// A cache in memory alone.
    pub fn in_memory(memory: MemoryConfig) -> Self {
        let trusted = metrics::trusted();
        trusted.set(1);
        let mut cache = Self::over(memory, Arc::new(Coherence::alone()));
        cache._parts.1 = Some(trusted);
        cache
    }

    fn over(memory: MemoryConfig, coherence: Arc<Coherence>) -> Self {
        Self {
            expiring: ExpiringFences::new(Arc::clone(&coherence)),
            signed: SignedWrites::new(Arc::clone(&coherence)),
            memory: Memory::new(memory, coherence),
            shared: None,
            lookups: Lookups::new("memory", "untrusted"),
            work: Work::new(),
            _parts: (metrics::cache(), None),
        }
    }

    /// A cache in memory, with Redis behind it.
    ///
    /// ```
    /// use layercache::{MemoryConfig, RedisCache, RedisConfig, TieredCache};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), layercache::Error> {
    /// // Nothing is connected yet, and no Redis need be there.
    /// let redis = RedisCache::new(RedisConfig::new("redis://127.0.0.1"))?;
    /// let cache = TieredCache::with_redis(MemoryConfig::default(), redis);
    /// # Ok(())
    /// # }
    /// ```
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
        let queue = RetryQueue::new(Arc::clone(&tier), settings);
        let returns = Returns::new(
            Arc::clone(&tier),
            settings,
            Arc::clone(&coherence),
            Arc::clone(&queue),
        );
        Self {
            shared: Some(Shared {
                queue,
                returns,
                tier,
                settings,
                lookups: Lookups::new("redis", "error"),
                duration: metrics::lookup_duration("redis"),
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

    /// How long one read may wait for Redis, from here on.
    pub(crate) fn budget(&self) -> Budget {
        let timeout = self.shared.as_ref().map(|shared| shared.settings.timeout);
        Budget::new(timeout.unwrap_or_default())
    }

    /// The shared tier, unless it may hold what this node has changed.
    fn ask_shared(&self) -> Result<Option<&Shared>, Error> {
        match &self.shared {
            Some(shared) => shared.queue.is_clear().map(|()| Some(shared)),
            None => Ok(None),
        }
    }

    /// What memory knows; counted.
    pub(crate) fn recall<'a>(&self, question: impl Into<QuestionRef<'a>>) -> Found {
        let question = question.into();
        let Some(found) = self.memory.look_up(question) else {
            let none = Found::default();
            self.lookups.count_none(none.asked(question));
            return none;
        };
        self.lookups.count(found.asked(question));
        found
    }

    /// What memory knows of the object whose presence is a membership; counted as a membership.
    pub(crate) fn recall_object(&self, link: LinkRef<'_>) -> Option<LayerMeta> {
        let object = self.memory.object(link);
        self.lookups.count(Asked {
            membership: Some(object.is_some()),
            meta: None,
        });
        object
    }

    /// What memory knows, for one who has asked it before.
    pub(crate) fn recall_again(&self, question: &Question) -> Found {
        let found = self.memory.look_up(question.into()).unwrap_or_default();
        let object = question
            .link()
            .and_then(|link| self.memory.object(link.into()));
        match object {
            object @ Some(_) => Found {
                member: Some(Member { object }),
                ..found
            },
            None => found,
        }
    }

    /// The rights to fill what is read from here on.
    pub(crate) fn rights(&self, question: &Question) -> Rights {
        self.expiring.expire();
        self.memory.rights(question)
    }

    /// What Redis knows, in one round trip for each [`MOST_QUESTIONS`] of these; memory is
    /// filled with it. Where Redis cannot be asked it knows nothing.
    pub(crate) async fn look_up(
        &self,
        questions: &[Question],
        rights: &[Rights],
        budget: &mut Budget,
    ) -> Vec<Found> {
        match self.try_look_up(questions, rights, budget).await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%error, "asking the backend instead");
                vec![Found::default(); questions.len()]
            }
        }
    }

    /// As [`look_up`](Self::look_up), where the caller is told that nothing could be asked. What comes
    /// after a round trip without an answer is not known.
    pub(crate) async fn try_look_up(
        &self,
        questions: &[Question],
        rights: &[Rights],
        budget: &mut Budget,
    ) -> Result<Vec<Found>, Error> {
        let mut answers = Vec::with_capacity(questions.len());
        if let Some(shared) = self.ask_shared()? {
            for some in questions.chunks(MOST_QUESTIONS) {
                let began = Instant::now();
                let tier = &shared.tier;
                let looked_up = budget.ask("look-up", |deadline| tier.look_up(some, deadline));
                let looked_up = looked_up.await;
                shared.duration.record(began.elapsed());
                match looked_up {
                    Ok(found) => answers.extend(found),
                    Err(error) => {
                        if shared.tier.has_broken(&error) {
                            budget.broke();
                        }
                        for question in &questions[answers.len()..] {
                            shared.lookups.count_none(Found::default().asked(question));
                        }
                        if answers.is_empty() {
                            return Err(error);
                        }
                        break;
                    }
                }
            }
            for ((question, found), rights) in questions.iter().zip(&answers).zip(rights) {
                shared.lookups.count(found.asked(question));
                self.memory.fill(&found.clone().of(question), *rights);
            }
        }
        answers.resize(questions.len(), Found::default());
        Ok(answers)
    }

    /// What Redis would answer, if there is one: nothing is counted, and memory is not filled with it.
    pub(crate) async fn ask_only(
        &self,
        questions: &[Question],
    ) -> Option<Result<Vec<Found>, Error>> {
        match self.ask_shared() {
            Ok(shared) => {
                let shared = shared?;
                let deadline = shared.settings.read_deadline();
                Some(shared.tier.look_up(questions, deadline).await)
            }
            Err(error) => Some(Err(error)),
        }
    }

    /// How long it takes until what others have told before has been heard of, or trust has lapsed.
    pub(crate) fn settling(&self) -> Duration {
        let settings = self.shared.as_ref().map(|shared| shared.settings);
        settings.map_or(Duration::ZERO, |settings| settings.trust)
    }

    /// Whether it is sure that a key has not been changed since these rights were taken.
    pub(crate) fn is_unchanged(&self, key: &Key, rights: Rights) -> bool {
        let right = match key {
            Key::Link(_) => rights.member,
            Key::Meta(_) | Key::Own(_) => rights.meta,
        };
        let coherence = self.memory.coherence();
        let trusted = coherence.trusted(Instant::now()).is_some();
        trusted && right.is_some_and(|right| coherence.generations.holds(key, right))
    }

    /// Counts how a fill has ended: what there was a right to fill, and what of it was filled.
    fn count_fill(&self, leased: Names, filled: Names, rights: Rights) {
        let work = &self.work;
        if self.has_shared() {
            work.leases_lost.increment(leased.count() - filled.count());
        }
        let is_changed = |name: Option<u64>, right: Option<_>| {
            let pair = name.zip(right);
            pair.is_some_and(|(name, right)| !self.memory.generations().holds(&name, right))
        };
        let is_fenced =
            || is_changed(leased.member, rights.member) || is_changed(leased.meta, rights.meta);
        let counter = match (filled.count(), leased.count()) {
            (1.., _) => &work.fills_stored,
            (0, 0) => &work.fills_unleased,
            _ if !self.has_shared() || is_fenced() => &work.fills_fenced,
            _ => &work.fills_late,
        };
        counter.increment(1);
    }

    /// The facts whose keys have not been changed since their rights were taken.
    fn still_allowed(&self, facts: Facts, rights: Rights) -> Facts {
        let generations = self.memory.generations();
        Facts {
            member: facts.member.filter(|(link, _)| {
                let holds = |right| generations.holds(link, right);
                rights.member.is_some_and(holds)
            }),
            meta: facts.meta.filter(|(key, _)| {
                let holds = |right| generations.holds(key, right);
                rights.meta.is_some_and(holds)
            }),
        }
    }

    /// Forgets everything, here, in Redis and on all nodes that share it: when this returns, nothing
    /// that was cached before is answered anywhere. For use after a garbage collection that ran
    /// behind the cache's back.
    ///
    /// # Cost
    /// | allocations | Redis round trips | backend calls |
    /// |---|---|---|
    /// | | 2 for each 1,000 keys in Redis, whoever's, and 1 more where some of them are ours; 1 to tell the others | 0 |
    ///
    /// The other nodes are waited for as in [`Repository::link`](crate::Repository::link).
    ///
    /// # Errors
    /// If Redis could not be told. What is in this node's memory is forgotten all the same.
    pub async fn purge(&self) -> Result<(), Error> {
        self.forget_everything().instrument(spans::purge()).await
    }

    async fn forget_everything(&self) -> Result<(), Error> {
        self.work.purges.increment(1);
        self.work.flushed.increment(1);
        self.memory.generations().flush();
        let purged = match &self.shared {
            Some(shared) => shared.tier.purge().await,
            None => Ok(()),
        };
        // What was filled from Redis while it was being purged.
        self.memory.generations().flush();
        purged
    }

    /// Forgets what is known of some repositories, here, in Redis and on all nodes that share it: when
    /// this returns, none of them that was cached before is answered anywhere. For use after something
    /// was removed from these repositories behind the cache's back. `which` is asked of each name that
    /// Redis has, and more than once.
    ///
    /// Metas of blobs that all repositories share stay; those of a repository's own copies go. Memories do not tell repositories apart, so they
    /// forget everything, and learn it again from Redis. What a Go registry keeps there for each of these
    /// repositories goes, too.
    ///
    /// ```
    /// # async fn example(cache: layercache::TieredCache) -> Result<(), layercache::Error> {
    /// // Somebody has removed the folders of a team by hand.
    /// let forgotten = cache.purge_repositories(|name| name.starts_with("team/")).await?;
    /// println!("{} repositories are asked for anew", forgotten.repositories);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cost
    /// | allocations | Redis round trips | backend calls |
    /// |---|---|---|
    /// | | 2 for each 1,000 keys in Redis, whoever's, and 2 more where some of them are meant; 1 to tell the others | 0 |
    ///
    /// The other nodes are waited for as in [`Repository::link`](crate::Repository::link).
    ///
    /// # Errors
    /// If Redis could not be told. What is in this node's memory is forgotten all the same.
    ///
    /// # Cancellation
    /// If it is dropped, some of it may be done; do it again.
    pub async fn purge_repositories(
        &self,
        which: impl Fn(&str) -> bool + Sync + Send,
    ) -> Result<Forgotten, Error> {
        self.memory.generations().flush();
        let purged = match &self.shared {
            Some(shared) => shared.tier.purge_repositories(&which).await,
            None => Ok(Forgotten::default()),
        };
        // What was filled from Redis while it was being purged.
        self.memory.generations().flush();
        purged
    }

    /// Leaves the other nodes that share Redis, before this one stops: from here on they do not wait
    /// for it. What is asked later is asked of the backend alone, and changes are those of a node without
    /// Redis ([`ChangePolicy`](crate::ChangePolicy)). A node that ends without this
    /// costs each change of the others [`RedisConfig::trust`](crate::RedisConfig), until that is over.
    ///
    /// # Cost
    /// | allocations | Redis round trips | backend calls |
    /// |---|---|---|
    /// | | 1 | 0 |
    pub async fn leave(&self) {
        if let Some(shared) = &self.shared {
            shared.tier.leave().await;
        }
    }

    /// Forgets everything that is in memory.
    ///
    /// # Cost
    /// | allocations | Redis round trips | backend calls |
    /// |---|---|---|
    /// | 0 | 0 | 0 |
    ///
    /// What is forgotten is no answer any more, and keeps its place until another takes it.
    pub fn flush_memory(&self) {
        self.work.flushed.increment(1);
        self.memory.generations().flush();
    }

    async fn ask(&self, question: Question) -> Result<Found, Error> {
        let found = self.recall(&question);
        if found.is_whole(&question) {
            return Ok(found);
        }
        let rights = self.rights(&question);
        let mut budget = self.budget();
        let mut answers = self
            .try_look_up(&[question], &[rights], &mut budget)
            .await?;
        Ok(answers.pop().unwrap_or_default())
    }

    async fn remember(&self, question: Question, facts: Facts) -> Result<(), Error> {
        let (mut guard, mut budget) = (self.guard([&question]), self.budget());
        let keys = question.keys();
        let granted = self.grant(&mut guard, &keys, true, &mut budget).await;
        if let Err(error) = granted {
            tracing::debug!(%error, "not filled");
            return Ok(());
        }
        let mut budget = budget.after_the_answer();
        self.try_fill(&mut guard, facts, &mut budget).await
    }

    async fn forget(&self, key: Key) -> Result<(), Error> {
        let nothing = async { ((), Outcome::Over) };
        self.change(ChangeKind::Removal, vec![key], None, nothing)
            .await
    }
}

/// What of these may be believed.
fn plausible(facts: Facts) -> Facts {
    let is_plausible = |(key, meta): &(MetaKey, LayerMeta)| is_plausible(key.digest(), meta);
    Facts {
        meta: facts.meta.filter(is_plausible),
        ..facts
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
            meta: Some(((*digest).into(), meta.clone())),
        };
        self.remember(Question::Meta(*digest), facts).await
    }

    async fn remove_meta(&self, digest: &Digest) -> Result<(), Error> {
        self.forget(Key::Meta(*digest)).await
    }
}
