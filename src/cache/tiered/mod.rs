//! The tiers as one cache: memory, then Redis.

mod budget;
mod change;
mod deny;
mod expiring_fences;
mod fence_keeper;
mod fill;
mod fill_guard;
mod plain;
mod retry_queue;
mod returns;
mod shared;
mod signed;
mod spaces;

pub(crate) use budget::Budget;
pub(crate) use fill_guard::FillGuard;

use crate::cache::Forgotten;
use crate::cache::memory::{Memory, MemoryConfig, ReadStamps};
#[cfg(feature = "redis")]
use crate::cache::redis::RedisCache;
#[cfg(any(test, feature = "redis"))]
use crate::cache::shared::SharedSettings;
use crate::cache::shared::{Found, MOST_QUESTIONS, SharedTier, Value, Which};
use crate::coherence::Coherence;
use crate::coherence::generation::ReadStamp;
use crate::coherence::rules::{Rule, kept};
use crate::telemetry::metrics::{self, Lookups, Part, Work};
use crate::telemetry::spans;
use crate::types::link::{Key, KeyKind, KeyRef, LinkRef};
use crate::types::per_key::PerKey;
use crate::types::question::{Question, QuestionRef};
use crate::types::{Error, LayerMeta, runtime};
use expiring_fences::ExpiringFences;
use futures::FutureExt;
use futures::future::BoxFuture;
use shared::Shared;
use signed::SignedWrites;
use spaces::Spaces;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tracing::Instrument;

/// A [`LayerInfoCache`](crate::LayerInfoCache) of one or two tiers: memory, and optionally Redis behind it.
///
/// A hit in Redis fills memory. A write goes to Redis first, under a lease, and then to memory. A
/// removal takes the fact out of this node's memory, then out of Redis, then out of the memory of
/// all nodes that share the Redis. It returns when that is done. A read that runs meanwhile does
/// not fill the cache.
///
/// Several stores can share one cache, with its memory and its connection to Redis:
/// [`CachedStoreBuilder::cache`](crate::CachedStoreBuilder::cache). Their facts are separate from each
/// other, and from those that this type reads and writes itself.
///
/// # Cost
/// [`guide::costs`](crate::guide::costs#the-plain-caches) has the round trips of each operation. A
/// memory hit allocates once, for the trait's future. A removal waits for the other nodes as in
/// [`Repository::link`](crate::Repository::link). No operation calls a backend.
///
/// # Errors
/// With Redis, an operation that leaves memory returns [`Error::Runtime`] if its caller has no tokio
/// runtime with timers.
///
/// # Time to live
/// A fact leaves the cache at the latest [`RedisConfig::with_ttl`](crate::RedisConfig) after its
/// write. The cache subtracts memory's TTL from the TTL in Redis, so that both together do not exceed it.
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
/// // After a garbage collection that the cache did not see.
/// cache.purge().await?;
/// assert!(!cache.contains(&link).await?);
///
/// cache.clear_memory(); // this node's memory only
/// cache.shutdown().await; // when the node stops
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
    /// The name spaces of this cache.
    spaces: Spaces,
    /// Whether this is the part of a cache that belongs to one name space.
    is_space: bool,
    /// This cache's part in the gauges that all caches of the process share. Its name spaces keep
    /// it.
    parts: Arc<(Part, Option<Part>)>,
}

impl TieredCache {
    /// Creates a cache in memory, without Redis.
    pub fn in_memory(memory: MemoryConfig) -> Self {
        let trusted = metrics::trusted();
        trusted.set(1);
        let memory = Memory::new(memory, Arc::new(Coherence::alone()));
        let expiring = ExpiringFences::new(Arc::clone(memory.coherence()));
        let parts = Arc::new((metrics::cache(), Some(trusted)));
        Self::with_memory(memory, expiring, parts)
    }

    fn with_memory(
        memory: Memory,
        expiring: Arc<ExpiringFences>,
        parts: Arc<(Part, Option<Part>)>,
    ) -> Self {
        let coherence = Arc::clone(memory.coherence());
        Self {
            signed: SignedWrites::new(coherence, Arc::clone(&expiring)),
            expiring,
            memory,
            shared: None,
            lookups: Lookups::new("memory", "untrusted"),
            work: Work::new(),
            spaces: Spaces::default(),
            is_space: false,
            parts,
        }
    }

    /// Creates a cache in memory, with Redis behind it.
    ///
    /// ```
    /// use layercache::{MemoryConfig, RedisCache, RedisConfig, TieredCache};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), layercache::Error> {
    /// // This does not connect yet, and succeeds even if no Redis is running.
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
        let expiring = ExpiringFences::new(Arc::clone(&coherence));
        let parts = Arc::new((metrics::cache(), None));
        Self {
            shared: Some(Shared::new(tier, settings, &coherence)),
            ..Self::with_memory(Memory::new(memory, coherence), expiring, parts)
        }
    }

    pub(crate) const fn work(&self) -> &Work {
        &self.work
    }

    pub(crate) const fn has_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// Returns the time that one read may wait for Redis, from now on.
    pub(crate) fn budget(&self) -> Budget {
        let timeout = self.shared.as_ref().map(|shared| shared.settings.timeout);
        Budget::new(timeout.unwrap_or_default())
    }

    /// Returns the shared tier. Returns an error while the tier may hold values that this node has
    /// changed.
    fn ask_shared(&self) -> Result<Option<&Shared>, Error> {
        match &self.shared {
            Some(shared) if !kept(Rule::NoReadFromRedisWhileKeysAreQueued) => Ok(Some(shared)),
            Some(shared) => shared.queue.is_clear().map(|()| Some(shared)),
            None => Ok(None),
        }
    }

    /// Looks up a question in memory, and counts the look-up.
    pub(crate) fn get<'a>(&self, question: impl Into<QuestionRef<'a>>) -> Found {
        let question = question.into();
        let Some(found) = self.memory.get(question) else {
            let none = Found::default();
            self.lookups.count_none(none.lookup_result(question));
            return none;
        };
        self.lookups.count(found.lookup_result(question));
        found
    }

    /// Looks up in memory the object whose presence is a membership. Counts a look-up of a
    /// membership.
    pub(crate) fn get_object(&self, link: LinkRef<'_>) -> Option<LayerMeta> {
        let object = self.memory.object(link);
        let asked = PerKey::one((KeyKind::Membership, object.is_some()));
        self.lookups.count(asked);
        object
    }

    /// Looks up a question in memory without counting, for callers that have counted it before.
    pub(crate) fn peek(&self, question: &Question) -> Found {
        let question = QuestionRef::from(question);
        let found = self.memory.get(question).unwrap_or_default();
        question.keys().with(found).filter_map(|(key, value)| {
            let object = match key {
                KeyRef::Link(link) => self.memory.object(link),
                KeyRef::Meta(_) | KeyRef::Own(_) => None,
            };
            match object {
                object @ Some(_) => Some(Value::Member { object }),
                None => value,
            }
        })
    }

    /// Looks up questions in Redis, in one round trip for each [`MOST_QUESTIONS`] of them, and
    /// fills memory with the answers. If Redis cannot be asked, the answers are empty.
    pub(crate) async fn fetch(
        &self,
        questions: &[Question],
        read_stamps: &[ReadStamps],
        budget: &mut Budget,
    ) -> Vec<Found> {
        match self.try_fetch(questions, read_stamps, budget).await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%error, "asking the backend instead");
                vec![Found::default(); questions.len()]
            }
        }
    }

    /// As [`fetch`](Self::fetch), but fails if the first round trip fails. If a later round trip
    /// fails, the answers to its questions and to all that follow are empty.
    pub(crate) async fn try_fetch(
        &self,
        questions: &[Question],
        read_stamps: &[ReadStamps],
        budget: &mut Budget,
    ) -> Result<Vec<Found>, Error> {
        let mut answers = Vec::with_capacity(questions.len());
        if let Some(shared) = self.ask_shared()? {
            for some in questions.chunks(MOST_QUESTIONS) {
                let tier = &shared.tier;
                let ask = |deadline| tier.fetch(some, deadline);
                let (looked_up, took) = budget.ask_timed("look-up", ask).await;
                shared.duration.record(took);
                match looked_up {
                    Ok(found) => answers.extend(found),
                    Err(error) => {
                        if shared.tier.has_broken(&error) {
                            budget.broke();
                        }
                        for question in &questions[answers.len()..] {
                            shared
                                .lookups
                                .count_none(Found::default().lookup_result(question));
                        }
                        if answers.is_empty() {
                            return Err(error);
                        }
                        break;
                    }
                }
            }
            for ((question, found), read_stamps) in questions.iter().zip(&answers).zip(read_stamps)
            {
                shared.lookups.count(found.lookup_result(question));
                let read_stamps = match kept(Rule::StampBeforeTheRead) {
                    true => *read_stamps,
                    false => self.read_stamps(question),
                };
                self.memory.fill(&found.clone().of(question), read_stamps);
            }
        }
        answers.resize(questions.len(), Found::default());
        Ok(answers)
    }

    /// Looks up questions in Redis, without counting and without filling memory. Returns `None` if
    /// there is no Redis.
    pub(crate) async fn fetch_only(
        &self,
        questions: &[Question],
    ) -> Option<Result<Vec<Found>, Error>> {
        match self.ask_shared() {
            Ok(shared) => {
                let shared = shared?;
                let deadline = shared.settings.read_deadline();
                Some(shared.tier.fetch(questions, deadline).await)
            }
            Err(error) => Some(Err(error)),
        }
    }

    /// Returns the time after which this node has applied all messages that other nodes published
    /// before, or no longer trusts its memory.
    pub(crate) fn settling(&self) -> Duration {
        let settings = self.shared.as_ref().map(|shared| shared.settings);
        settings.map_or(Duration::ZERO, |settings| settings.trust_timeout)
    }

    /// Returns whether a key is sure not to have changed since this stamp was taken.
    pub(crate) fn is_unchanged(&self, key: &Key, read_stamp: Option<ReadStamp>) -> bool {
        let coherence = self.memory.coherence();
        let trusted = coherence.trusted(Instant::now()).is_some();
        trusted && read_stamp.is_some_and(|read_stamp| coherence.generations.holds(key, read_stamp))
    }

    /// Forgets everything: in this node's memory, in Redis and in the memory of all nodes that
    /// share the Redis. When this returns, no node answers a fact that was cached before. Use it
    /// after a garbage collection that the cache did not see.
    ///
    /// If several stores share the cache, each store purges its own facts in Redis, and this purges
    /// none of theirs. All nodes forget the memory of all stores all the same, and fill it again
    /// from Redis.
    ///
    /// # Cost
    /// Some round trips for each 1,000 keys in Redis, those of other applications too:
    /// [`guide::costs`](crate::guide::costs#many-keys-and-special-cases). The node waits for the
    /// other nodes as in [`Repository::link`](crate::Repository::link).
    ///
    /// # Errors
    /// Fails if Redis could not be told. This node's memory is cleared even then.
    pub fn purge(&self) -> BoxFuture<'_, Result<(), Error>> {
        let forget = async {
            self.work.purges.increment(1);
            self.work.flushed.increment(1);
            self.purge_tiers(|tier| tier.purge()).await
        };
        forget.instrument(spans::purge()).boxed()
    }

    /// Forgets this node's memory, and what `purge` removes from Redis.
    async fn purge_tiers<'a, T: Default>(
        &'a self,
        purge: impl FnOnce(&'a dyn SharedTier) -> BoxFuture<'a, Result<T, Error>>,
    ) -> Result<T, Error> {
        self.memory.generations().flush();
        let purged = match &self.shared {
            Some(shared) => match runtime::check() {
                Ok(()) => purge(shared.tier.as_ref()).await,
                Err(error) => Err(error),
            },
            None => Ok(T::default()),
        };
        // Memory may have been filled from Redis while Redis was being purged.
        self.memory.generations().flush();
        purged
    }

    /// Forgets the facts of some repositories: in this node's memory, in Redis and in the memory of
    /// all nodes that share the Redis. When this returns, no node answers a fact of these
    /// repositories that was cached before. Use it after objects of these repositories were removed
    /// without the cache. The cache calls `which` with each repository's name that it finds in
    /// Redis, more than once.
    ///
    /// The metas of blobs that all repositories share stay. The metas of a repository's own copies
    /// are removed. Memory cannot select entries by repository, so each node forgets its whole
    /// memory and fills it again from Redis. The keys that a Go registry keeps in Redis for these
    /// repositories are removed too.
    ///
    /// ```
    /// # async fn example(cache: layercache::TieredCache) -> Result<(), layercache::Error> {
    /// // An operator has removed the folders of a team by hand.
    /// let forgotten = cache.purge_repositories(|name| name.starts_with("team/")).await?;
    /// println!("{} repositories are asked for anew", forgotten.repositories);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cost
    /// Some round trips for each 1,000 keys in Redis, those of other applications too:
    /// [`guide::costs`](crate::guide::costs#many-keys-and-special-cases). The node waits for the
    /// other nodes as in [`Repository::link`](crate::Repository::link).
    ///
    /// # Errors
    /// Fails if Redis could not be told. This node's memory is cleared even then.
    ///
    /// # Cancellation
    /// If the future is dropped, a part of the work may be done. Call it again.
    pub async fn purge_repositories(
        &self,
        which: impl Fn(&str) -> bool + Sync + Send,
    ) -> Result<Forgotten, Error> {
        self.forget_repositories(&which).await
    }

    /// Boxed, so that an application does not compile it again.
    fn forget_repositories<'a>(
        &'a self,
        which: &'a Which<'a>,
    ) -> BoxFuture<'a, Result<Forgotten, Error>> {
        self.purge_tiers(|tier| tier.purge_repositories(which))
            .boxed()
    }

    /// Removes this node from the nodes that share the Redis. Call it before the node stops: the
    /// other nodes then no longer wait for it. Later reads ask the backend only. Later changes
    /// cannot reach Redis, and [`ChangePolicy`](crate::ChangePolicy) decides. If a node stops
    /// without this, the changes of the other nodes wait for it, until it has been silent for
    /// [`RedisConfig::with_trust_timeout`](crate::RedisConfig).
    ///
    /// If several stores share the cache, call this on the shared cache. On the part of the cache
    /// that belongs to one store ([`Registry::cache`](crate::Registry::cache)) it does nothing.
    ///
    /// # Cost
    /// One message to Redis: [`guide::costs`](crate::guide::costs#changes).
    pub fn shutdown(&self) -> BoxFuture<'_, ()> {
        let shutdown = async {
            if let Some(shared) = &self.shared
                && !self.is_space
                && runtime::check().is_ok()
            {
                shared.tier.shutdown().await;
            }
        };
        shutdown.boxed()
    }

    /// Forgets everything in this node's memory. If several stores share the cache, the entries of
    /// all of them are forgotten.
    ///
    /// # Cost
    /// No I/O and no allocation: [`guide::costs`](crate::guide::costs#changes). Memory no longer answers forgotten entries. They take up space until other entries replace
    /// them.
    pub fn clear_memory(&self) {
        self.work.flushed.increment(1);
        self.memory.generations().flush();
    }
}
