//! The memory tier: moka, with one entry per digest.

mod entry;

use super::LayerInfoCache;
use super::shared::{Facts, Found, Member, Question, is_plausible};
use crate::coherence::Coherence;
use crate::coherence::generation::{Generations, Right};
use crate::metrics::limit_hits;
use crate::{Digest, Error, LayerMeta, Link};
use async_trait::async_trait;
use entry::{Entry, Slot};
use metrics::Counter;
use moka::notification::RemovalCause;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How much memory remembers, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryConfig {
    /// The bytes that memory may take, about. Default: 64 MiB, which is some 100,000 blobs.
    pub capacity: u64,
    /// How long a fact is answered, counted from its fill and never renewed by reads; up to a tenth
    /// is taken off at random, so that what was filled together does not expire together.
    /// Default: 5 minutes.
    pub ttl: Duration,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            capacity: 64 << 20,
            ttl: Duration::from_secs(300),
        }
    }
}

impl MemoryConfig {
    /// Sets [`capacity`](Self::capacity), in bytes.
    #[must_use]
    pub const fn with_capacity(mut self, capacity: u64) -> Self {
        self.capacity = capacity;
        self
    }

    /// Sets [`ttl`](Self::ttl).
    #[must_use]
    pub const fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }
}

/// `ttl`, less up to a tenth at random: never longer than promised.
pub(crate) fn jittered(ttl: Duration) -> Duration {
    ttl.mul_f64(1.0 - 0.1 * fastrand::f64())
}

/// The tier in the process.
#[derive(Debug)]
pub(crate) struct Memory {
    entries: moka::sync::Cache<Digest, Arc<Entry>, foldhash::fast::RandomState>,
    coherence: Arc<Coherence>,
    ttl: Duration,
    /// Times that one membership of a blob had to make room for another.
    crowded: Counter,
}

/// The rights to fill that a load took before it read anything.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rights {
    pub(crate) member: Option<Right>,
    pub(crate) meta: Option<Right>,
}

impl Memory {
    pub(crate) fn new(config: MemoryConfig, coherence: Arc<Coherence>) -> Self {
        let evicted = limit_hits("memory");
        let entries = moka::sync::Cache::builder()
            .max_capacity(config.capacity)
            .weigher(|_, entry: &Arc<Entry>| entry.size().try_into().unwrap_or(u32::MAX))
            .eviction_listener(move |_, _, cause| {
                if cause == RemovalCause::Size {
                    evicted.increment(1);
                }
            })
            .build_with_hasher(foldhash::fast::RandomState::default());
        Self {
            entries,
            coherence,
            ttl: config.ttl,
            crowded: limit_hits("memberships"),
        }
    }

    pub(crate) fn generations(&self) -> &Generations {
        &self.coherence.generations
    }

    pub(crate) const fn coherence(&self) -> &Arc<Coherence> {
        &self.coherence
    }

    /// What memory knows. One look-up, one reading of the clock, no allocation.
    pub(crate) fn look_up(&self, question: &Question) -> Found {
        match question {
            Question::Stat(link) => self.find(Some(link), Some(&link.digest)),
            Question::Link(link) => self.find(Some(link), None),
            Question::Meta(digest) => self.find(None, Some(digest)),
        }
    }

    fn find(&self, link: Option<&Link>, meta: Option<&Digest>) -> Found {
        let mut found = Found::default();
        let Some(digest) = meta.or(link.map(|link| &link.digest)) else {
            return found;
        };
        let Some(entry) = self.entries.get(digest) else {
            return found;
        };
        let now = Instant::now();
        let Some(trusted) = self.coherence.trusted(now) else {
            return found;
        };
        if let Some(link) = link
            && let Some(slot) = entry.member(link)
        {
            found.member = slot.live(trusted.stamp(link), now).cloned();
        }
        if meta.is_some()
            && let Some(slot) = entry.meta()
        {
            found.meta = slot.live(trusted.stamp(digest), now).cloned();
        }
        found
    }

    /// The rights to fill what a load for `question` is about to read.
    pub(crate) fn rights(&self, question: &Question) -> Rights {
        let Some(trusted) = self.coherence.trusted(Instant::now()) else {
            return Rights::default();
        };
        Rights {
            member: question.link().and_then(|link| trusted.right(link)),
            meta: question.meta().and_then(|digest| trusted.right(digest)),
        }
    }

    /// Remembers facts under the stamps of their rights: dead on arrival if a change came first.
    pub(crate) fn fill(&self, facts: &Facts, rights: Rights) {
        let now = Instant::now();
        let deadline = now + jittered(self.ttl);
        if let (Some((link, member)), Some(right)) = (&facts.member, rights.member) {
            self.update(&link.digest, |entry| {
                let slot = Slot {
                    value: member.clone(),
                    stamp: right.stamp(),
                    deadline,
                };
                if entry.set_member(link, slot, now) {
                    self.crowded.increment(1);
                }
            });
        }
        if let (Some((digest, meta)), Some(right)) = (&facts.meta, rights.meta)
            && is_plausible(digest, meta)
        {
            self.update(digest, |entry| {
                entry.set_meta(Slot {
                    value: meta.clone(),
                    stamp: right.stamp(),
                    deadline,
                });
            });
        }
    }

    fn update(&self, digest: &Digest, change: impl FnOnce(&mut Entry)) {
        self.entries.entry_by_ref(digest).and_upsert_with(|old| {
            let mut entry = old.map(|old| Entry::clone(old.value())).unwrap_or_default();
            change(&mut entry);
            Arc::new(entry)
        });
    }
}

/// A [`LayerInfoCache`] in the memory of this process: bounded, and lost with it.
///
/// Every operation returns at once and cannot fail. See [`MemoryConfig`] for its bounds.
#[derive(Debug)]
pub struct MemoryCache {
    memory: Memory,
}

impl MemoryCache {
    /// An empty cache.
    pub fn new(config: MemoryConfig) -> Self {
        Self {
            memory: Memory::new(config, Arc::new(Coherence::alone())),
        }
    }
}

#[async_trait]
impl LayerInfoCache for MemoryCache {
    async fn contains(&self, link: &Link) -> Result<bool, Error> {
        Ok(self.memory.find(Some(link), None).member.is_some())
    }

    async fn add(&self, link: &Link) -> Result<(), Error> {
        let rights = self.memory.rights(&Question::Link(link.clone()));
        let facts = Facts {
            member: Some((link.clone(), Member::default())),
            meta: None,
        };
        self.memory.fill(&facts, rights);
        Ok(())
    }

    async fn remove(&self, link: &Link) -> Result<(), Error> {
        self.memory.generations().bump(link);
        Ok(())
    }

    async fn meta(&self, digest: &Digest) -> Result<Option<LayerMeta>, Error> {
        Ok(self.memory.find(None, Some(digest)).meta)
    }

    async fn set_meta(&self, digest: &Digest, meta: &LayerMeta) -> Result<(), Error> {
        // Forgotten first: what was known before is gone even where the new meta is not believed.
        self.memory.generations().bump(digest);
        let rights = self.memory.rights(&Question::Meta(*digest));
        let facts = Facts {
            member: None,
            meta: Some((*digest, meta.clone())),
        };
        self.memory.fill(&facts, rights);
        Ok(())
    }

    async fn remove_meta(&self, digest: &Digest) -> Result<(), Error> {
        self.memory.generations().bump(digest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: Digest = Digest::Sha256([1; 32]);

    fn meta() -> LayerMeta {
        LayerMeta::new("a/data", 5).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_fact_expires_however_often_it_is_read() {
        let ttl = Duration::from_secs(100);
        let cache = MemoryCache::new(MemoryConfig::default().with_ttl(ttl));
        let link = Link::layer("a".parse().unwrap(), DIGEST);
        cache.add(&link).await.unwrap();
        cache.set_meta(&DIGEST, &meta()).await.unwrap();
        for second in 0..100 {
            let (known, described) = (cache.contains(&link).await, cache.meta(&DIGEST).await);
            assert!(second >= 90 || known.unwrap(), "gone after {second} s");
            assert!(second >= 90 || described.unwrap().is_some());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!(!cache.contains(&link).await.unwrap());
        assert_eq!(cache.meta(&DIGEST).await.unwrap(), None);
    }

    #[test]
    fn jitter_takes_off_and_never_adds() {
        let ttl = Duration::from_secs(100);
        for _ in 0..1000 {
            let jittered = jittered(ttl);
            assert!(jittered <= ttl && jittered >= ttl.mul_f64(0.9));
        }
    }

    #[tokio::test]
    async fn memory_is_bounded() {
        let capacity = 100_000;
        let cache = MemoryCache::new(MemoryConfig::default().with_capacity(capacity));
        for i in 0..10_000u64 {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&i.to_be_bytes());
            cache
                .set_meta(&Digest::Sha256(hash), &meta())
                .await
                .unwrap();
        }
        let entries = &cache.memory.entries;
        entries.run_pending_tasks();
        assert!(entries.weighted_size() <= capacity);
        assert!(entries.entry_count() > 50, "it is used");
    }

    #[tokio::test]
    async fn memberships_that_make_room_for_others_are_counted() {
        let make = || MemoryCache::new(MemoryConfig::default());
        let (cache, hits) = crate::metrics::counted(make);
        for i in 0..1030 {
            let link = Link::layer(format!("r{i}").parse().unwrap(), DIGEST);
            cache.add(&link).await.unwrap();
        }
        assert_eq!(hits("memberships"), 6);
    }

    #[tokio::test]
    async fn an_empty_meta_is_believed_of_the_empty_blob_only() {
        let cache = MemoryCache::new(MemoryConfig::default());
        let empty = LayerMeta::new("a/data", 0).unwrap();
        cache.set_meta(&DIGEST, &meta()).await.unwrap();
        cache.set_meta(&DIGEST, &empty).await.unwrap();
        assert_eq!(cache.meta(&DIGEST).await.unwrap(), None);
        let nothing = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let nothing: Digest = nothing.parse().unwrap();
        cache.set_meta(&nothing, &empty).await.unwrap();
        assert_eq!(cache.meta(&nothing).await.unwrap(), Some(empty));
    }
}
