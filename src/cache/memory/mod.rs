//! The memory tier: moka, with one entry per digest.
//!
//! | | |
//! |---|---|
//! | [`entry`] | the facts about one blob: its meta, and its memberships |
//! | [`validity`] | the stamp that a fact was filled under, and its deadline, in 12 bytes |
//! | [`members`] | the repositories that have a blob |
//! | [`repository_table`] | numbers for repositories, so that a membership takes 16 bytes; the number of a name space |
//! | [`entry_key`] | the blob or object that an entry is about |
//! | [`thread_cache`] | the entries that a thread reads often, without moka's bookkeeping |

mod cache;
mod config;
mod entry;
mod entry_key;
mod members;
mod repository_table;
#[cfg(test)]
mod tests;
mod thread_cache;
mod validity;

pub use cache::MemoryCache;
pub use config::MemoryConfig;
pub(crate) use config::jittered;

use crate::cache::shared::{Facts, Found, Value};
use crate::coherence::generation::{Generations, ReadStamp, Snapshot};
use crate::coherence::{Coherence, Trusted};
use crate::telemetry::metrics::{Holdings, describe, limit_hits};
use crate::types::LayerMeta;
use crate::types::link::{Key, KeyRef, LinkRef};
use crate::types::per_key::PerKey;
use crate::types::question::{Question, QuestionRef};
use entry::Entry;
use entry_key::{EntryKeyRef, Tag};
use metrics::Counter;
use moka::notification::RemovalCause;
use repository_table::{RepositoryTable, SpaceNumber};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use thread_cache::ThreadCache;
use tokio::time::Instant;
use validity::{Clock, Tick, Validity};

type Entries = moka::sync::Cache<Tag, Arc<Entry>, foldhash::fast::RandomState>;

/// The memory tier of one cache, or the part of it that belongs to one name space. The name spaces
/// of a cache share its entries, so that they share its capacity. No look-up finds an entry of
/// another name space.
#[derive(Debug)]
pub(crate) struct Memory {
    entries: Entries,
    thread_cache: ThreadCache,
    coherence: Arc<Coherence>,
    ttl: Duration,
    clock: Clock,
    /// The table that gives numbers to the repositories of new memberships.
    names: Mutex<Arc<RepositoryTable>>,
    /// Makes the tags of this name space differ from those of all others: see [`SpaceNumber::salt`].
    salt: u64,
    holdings: Arc<Holdings>,
    /// Counts memberships that were dropped to make room for another one of the same blob.
    crowded: Counter,
}

/// The read stamps of a load. The load took them before it read anything, and needs them to fill.
pub(crate) type ReadStamps = PerKey<ReadStamp>;

impl ReadStamps {
    /// Returns the stamps of a snapshot for the facts that `question` asks for.
    pub(crate) fn at(snapshot: &Snapshot, question: &Question) -> Self {
        let keys = QuestionRef::from(question).keys();
        keys.filter_map(|key| snapshot.read_stamp(&key))
    }
}

/// The trust and the time at one moment, which decide whether a fact is alive.
#[derive(Debug, Clone, Copy)]
struct Moment<'a> {
    trusted: Trusted<'a>,
    now: Tick,
}

impl Moment<'_> {
    fn is_live(self, validity: Validity) -> bool {
        validity.is_live(self.trusted, self.now)
    }
}

impl Memory {
    pub(crate) fn new(config: MemoryConfig, coherence: Arc<Coherence>) -> Self {
        describe();
        let evicted = limit_hits("memory");
        let holdings = Arc::new(Holdings::new());
        let held = Arc::clone(&holdings);
        let entries = moka::sync::Cache::builder()
            .max_capacity(config.capacity)
            .weigher(|_, entry: &Arc<Entry>| entry.size().try_into().unwrap_or(u32::MAX))
            .eviction_listener(move |_, entry: Arc<Entry>, cause| {
                // This runs for every cause, and before another entry takes the place.
                entry.mark_removed();
                held.take(entry.size());
                if cause == RemovalCause::Size {
                    evicted.increment(1);
                }
            })
            .build_with_hasher(foldhash::fast::RandomState::default());
        let ttl = config.ttl.min(config::MOST_TTL);
        Self::over(entries, coherence, holdings, ttl)
    }

    /// Returns a new name space over the same entries.
    pub(crate) fn in_new_space(&self) -> Self {
        let entries = self.entries.clone();
        let (coherence, holdings) = (Arc::clone(&self.coherence), Arc::clone(&self.holdings));
        Self::over(entries, coherence, holdings, self.ttl)
    }

    fn over(
        entries: Entries,
        coherence: Arc<Coherence>,
        holdings: Arc<Holdings>,
        ttl: Duration,
    ) -> Self {
        let space = SpaceNumber::fresh();
        Self {
            entries,
            thread_cache: ThreadCache::new(space),
            coherence,
            ttl,
            clock: Clock::new(),
            names: Mutex::new(Arc::new(RepositoryTable::new(space))),
            salt: space.salt(),
            holdings,
            crowded: limit_hits("memberships"),
        }
    }

    const fn space(&self) -> SpaceNumber {
        self.thread_cache.space()
    }

    fn tag(&self, subject: EntryKeyRef<'_>) -> Tag {
        subject.tag(self.salt)
    }

    pub(crate) fn generations(&self) -> &Generations {
        &self.coherence.generations
    }

    pub(crate) const fn coherence(&self) -> &Arc<Coherence> {
        &self.coherence
    }

    /// Returns the facts that memory has for `question`, or `None` while memory is not trusted.
    /// Allocates nothing. Reads the clock once and makes one look-up, except for
    /// [`QuestionRef::Own`], which may need two. An entry in this thread's cache needs no look-up
    /// in moka.
    pub(crate) fn get(&self, question: QuestionRef<'_>) -> Option<Found> {
        if let QuestionRef::Own(link) = question {
            return match self.object(link) {
                // The presence of the object is the membership.
                Some(meta) => Some(PerKey::two(Value::MEMBER, Value::Meta(meta))),
                None => self.get(QuestionRef::Link(link)),
            };
        }
        let moment = self.moment()?;
        let digest = question.digest();
        let is_whole = |found: &Found| found.is_whole(question);
        let hot = |entry: &Entry, meta: Option<&LayerMeta>| {
            let found = entry.read_with(meta, question, moment);
            is_whole(&found).then_some(found)
        };
        if let found @ Some(_) = self.thread_cache.read(digest, hot) {
            return found;
        }
        let Some(entry) = self.find(EntryKeyRef::Blob(digest)) else {
            return Some(Found::default());
        };
        let found = entry.read(question, moment);
        if is_whole(&found) {
            self.thread_cache.keep(digest, entry);
        }
        Some(found)
    }

    /// Returns the object whose presence is a membership, if memory has it. Memory keeps it in an
    /// entry of its own, once a caller has asked for it.
    pub(crate) fn object(&self, link: LinkRef<'_>) -> Option<LayerMeta> {
        let moment = self.moment()?;
        let entry = self.find(EntryKeyRef::Object(link))?;
        entry.meta(moment).cloned()
    }

    /// Returns whether memory has a fact for this key that it can answer now, or as soon as memory
    /// is trusted.
    pub(crate) fn keeps(&self, key: &Key) -> bool {
        let moment = Moment {
            trusted: self.coherence.regardless(),
            now: self.clock.tick(Instant::now()),
        };
        let key = KeyRef::from(key);
        let entry = self.find(key.into());
        let object = key.link().map(EntryKeyRef::Object);
        let object = object.and_then(|object| self.find(object));
        let has_meta = |entry: &Arc<Entry>| entry.meta(moment).is_some();
        let has_fact = |entry: &Arc<Entry>| match key {
            KeyRef::Link(link) => entry.is_member(link, moment),
            KeyRef::Meta(_) | KeyRef::Own(_) => has_meta(entry),
        };
        entry.as_ref().is_some_and(has_fact) || object.as_ref().is_some_and(has_meta)
    }

    fn find(&self, subject: EntryKeyRef<'_>) -> Option<Arc<Entry>> {
        let entry = self.entries.get(&self.tag(subject))?;
        entry.is_of(subject, self.space()).then_some(entry)
    }

    fn moment(&self) -> Option<Moment<'_>> {
        let now = Instant::now();
        let trusted = self.coherence.trusted(now)?;
        let now = self.clock.tick(now);
        Some(Moment { trusted, now })
    }

    /// Returns the stamps for a load of `question` that is about to read. They are empty while
    /// memory is not trusted.
    pub(crate) fn read_stamps(&self, question: &Question) -> ReadStamps {
        let Some(trusted) = self.coherence.trusted(Instant::now()) else {
            return ReadStamps::default();
        };
        let keys = QuestionRef::from(question).keys();
        keys.filter_map(|key| trusted.read_stamp(&key))
    }

    /// Returns the stamps of all keys, for a load that does not know yet which keys it will read.
    /// Returns `None` while memory is not trusted.
    pub(crate) fn snapshot(&self) -> Option<Snapshot> {
        let trusted = self.coherence.trusted(Instant::now())?;
        Some(trusted.snapshot())
    }

    /// Stores facts under their stamps. If a change came after the stamps were taken, the stored
    /// facts are dead from the beginning.
    pub(crate) fn fill(&self, facts: &Facts, read_stamps: ReadStamps) {
        self.fill_by(facts, read_stamps, Self::update);
    }

    /// As [`fill`](Self::fill), for facts that memory most likely does not have. An entry that
    /// another thread stores at the same moment may be lost, which costs a miss.
    pub(crate) fn fill_new(&self, facts: &Facts, read_stamps: ReadStamps) {
        self.fill_by(facts, read_stamps, Self::add);
    }

    fn fill_by(
        &self,
        facts: &Facts,
        read_stamps: ReadStamps,
        put: impl Fn(&Self, EntryKeyRef<'_>, &mut dyn FnMut(&mut Entry)),
    ) {
        let now = Instant::now();
        let deadline = self.clock.after(now, jittered(self.ttl));
        let now = self.clock.tick(now);
        let facts = facts.as_ref().zip(read_stamps);
        let facts = facts.filter(|(fact, _)| fact.is_plausible());
        let facts = facts.map(|(fact, read_stamp)| {
            let entry_stamp = self.generations().entry_stamp(&fact.key, read_stamp);
            let subject = EntryKeyRef::from(KeyRef::from(&fact.key));
            (subject, fact, Validity::new(entry_stamp, deadline))
        });
        // One update for all facts of an entry costs half as much as two.
        let mut left = facts;
        while let Some(subject) = left.find_map(|(subject, ..)| Some(subject)) {
            put(self, subject, &mut |entry| {
                for (_, fact, validity) in left.filter(|(of, ..)| *of == subject) {
                    if entry.set(fact, validity, now) {
                        self.crowded.increment(1);
                    }
                }
            });
            left = left.filter(|(of, ..)| *of != subject);
        }
        for (_, fact, validity) in facts {
            if let (
                Key::Link(link),
                Value::Member {
                    object: Some(object),
                },
            ) = (&fact.key, &fact.value)
            {
                let set = &mut |entry: &mut Entry| entry.set_meta(object.clone(), validity);
                self.update(EntryKeyRef::Object(link.into()), set);
            }
        }
    }

    /// Replaces an entry by a changed copy. If there is no entry yet, creates one.
    fn update(&self, subject: EntryKeyRef<'_>, change: &mut dyn FnMut(&mut Entry)) {
        let names = self.names();
        self.entries
            .entry(self.tag(subject))
            .and_upsert_with(|old| {
                let old = old.map(moka::Entry::into_value);
                let mut entry = match old.filter(|old| old.is_of(subject, self.space())) {
                    Some(old) => old.copy_into(&names),
                    None => Entry::new(subject, &names),
                };
                change(&mut entry);
                self.holdings.put(entry.size());
                Arc::new(entry)
            });
    }

    /// Creates an entry. If there is one already, replaces it by a changed copy.
    fn add(&self, subject: EntryKeyRef<'_>, change: &mut dyn FnMut(&mut Entry)) {
        if self.entries.contains_key(&self.tag(subject)) {
            return self.update(subject, change);
        }
        let mut entry = Entry::new(subject, &self.names());
        change(&mut entry);
        self.holdings.put(entry.size());
        self.entries.insert(self.tag(subject), Arc::new(entry));
    }

    /// Returns the current table, or a new one once that is full. Entries keep the table that they
    /// use.
    fn names(&self) -> Arc<RepositoryTable> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.is_full() {
            *names = Arc::new(RepositoryTable::new(self.space()));
        }
        Arc::clone(&names)
    }
}
