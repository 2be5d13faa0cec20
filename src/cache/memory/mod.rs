//! The memory tier: moka, with one entry per digest.
//!
//! | | |
//! |---|---|
//! | [`entry`] | what is known of one blob: its meta, and its memberships |
//! | [`label`] | under which stamp a fact was filled and when it is too old, in 12 bytes |
//! | [`members`] | the repositories that have it |
//! | [`names`] | repositories by number, so that a membership takes 16 bytes |
//! | [`subject`] | what an entry is about |
//! | [`front`] | what each thread has just been asked, without moka's bookkeeping |

mod alone;
mod config;
mod entry;
mod front;
mod label;
mod members;
mod names;
mod subject;
#[cfg(test)]
mod tests;

pub use alone::MemoryCache;
pub use config::MemoryConfig;
pub(crate) use config::jittered;

use super::shared::{Facts, Found, Member, Question, QuestionRef, is_plausible};
use crate::coherence::generation::{Generations, Right, Snapshot};
use crate::coherence::{Coherence, Trusted};
use crate::link::{Key, LinkRef, WireName};
use crate::metrics::{Holdings, describe, limit_hits};
use crate::{LayerMeta, Link};
use entry::Entry;
use front::Front;
use label::{Clock, Label, Tick};
use metrics::Counter;
use moka::notification::RemovalCause;
use names::Names;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use subject::{SubjectRef, Tag};
use tokio::time::Instant;

/// The tier in the process.
#[derive(Debug)]
pub(crate) struct Memory {
    entries: moka::sync::Cache<Tag, Arc<Entry>, foldhash::fast::RandomState>,
    front: Front,
    coherence: Arc<Coherence>,
    ttl: Duration,
    clock: Clock,
    /// Where new memberships' names go.
    names: Mutex<Arc<Names>>,
    holdings: Arc<Holdings>,
    /// Times that one membership of a blob had to make room for another.
    crowded: Counter,
}

/// The rights to fill that a load took before it read anything.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rights {
    pub(crate) member: Option<Right>,
    pub(crate) meta: Option<Right>,
}

impl Rights {
    /// Those of a moment, for what `question` asks.
    pub(crate) fn at(snapshot: &Snapshot, question: &Question) -> Self {
        Self {
            member: question.link().and_then(|link| snapshot.right(link)),
            meta: question.meta().and_then(|digest| snapshot.right(digest)),
        }
    }
}

/// What it takes to tell whether a fact is alive.
#[derive(Debug, Clone, Copy)]
struct Moment<'a> {
    trusted: Trusted<'a>,
    now: Tick,
}

impl Moment<'_> {
    fn is_live(self, label: Label) -> bool {
        label.is_live(self.trusted, self.now)
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
                // Whatever takes it out of the cache, and before anything else has its place.
                entry.leave();
                held.take(entry.size());
                if cause == RemovalCause::Size {
                    evicted.increment(1);
                }
            })
            .build_with_hasher(foldhash::fast::RandomState::default());
        Self {
            entries,
            front: Front::new(),
            coherence,
            ttl: config.ttl,
            clock: Clock::new(),
            names: Mutex::default(),
            holdings,
            crowded: limit_hits("memberships"),
        }
    }

    pub(crate) fn generations(&self) -> &Generations {
        &self.coherence.generations
    }

    pub(crate) const fn coherence(&self) -> &Arc<Coherence> {
        &self.coherence
    }

    /// What memory knows; `None` if it is not trusted. One reading of the clock, no allocation; one
    /// look-up, and none in moka for what this thread has just been asked.
    pub(crate) fn look_up(&self, question: QuestionRef<'_>) -> Option<Found> {
        let moment = self.moment()?;
        let digest = question.digest();
        let is_whole = |found: &Found| found.is_whole(question);
        let hot = |entry: &Entry, meta: Option<&LayerMeta>| entry.read_with(meta, question, moment);
        if let found @ Some(_) = self.front.read(digest, hot, is_whole) {
            return found;
        }
        let Some(entry) = self.find(SubjectRef::Blob(digest)) else {
            return Some(Found::default());
        };
        let found = entry.read(question, moment);
        if is_whole(&found) {
            self.front.keep(digest, entry);
        }
        Some(found)
    }

    /// The object whose presence is a membership, if it is known. It is kept where somebody asked
    /// for it, in an entry of its own.
    pub(crate) fn object(&self, link: LinkRef<'_>) -> Option<LayerMeta> {
        let moment = self.moment()?;
        let entry = self.find(SubjectRef::Object(link))?;
        entry.meta(moment).cloned()
    }

    /// Whether it keeps what is an answer as soon as memory is trusted.
    pub(crate) fn keeps(&self, key: &Key) -> bool {
        let moment = Moment {
            trusted: self.coherence.regardless(),
            now: self.clock.tick(Instant::now()),
        };
        let question = match key {
            Key::Link(link) => QuestionRef::Link(link.into()),
            Key::Meta(digest) => QuestionRef::Meta(digest),
        };
        let entry = self.find(SubjectRef::Blob(question.digest()));
        let object = question.link().map(SubjectRef::Object);
        let object = object.and_then(|object| self.find(object));
        entry.is_some_and(|entry| entry.read(question, moment).has(key))
            || object.is_some_and(|object| object.meta(moment).is_some())
    }

    fn find(&self, subject: SubjectRef<'_>) -> Option<Arc<Entry>> {
        let entry = self.entries.get(&subject.tag())?;
        entry.is_of(subject).then_some(entry)
    }

    fn moment(&self) -> Option<Moment<'_>> {
        let now = Instant::now();
        let trusted = self.coherence.trusted(now)?;
        let now = self.clock.tick(now);
        Some(Moment { trusted, now })
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

    /// The rights of all keys, for a load that does not know yet what it will read of.
    pub(crate) fn snapshot(&self) -> Option<Snapshot> {
        let trusted = self.coherence.trusted(Instant::now())?;
        Some(trusted.snapshot())
    }

    /// Remembers facts under the stamps of their rights: dead on arrival if a change came first.
    pub(crate) fn fill(&self, facts: &Facts, rights: Rights) {
        let now = Instant::now();
        let deadline = self.clock.after(now, jittered(self.ttl));
        let now = self.clock.tick(now);
        let member = facts.member.as_ref().zip(rights.member);
        let member = member.map(|((link, member), right)| {
            let label = self.label(link, right, deadline);
            (link, member, label)
        });
        let meta = facts.meta.as_ref().zip(rights.meta);
        let meta = meta.filter(|((digest, meta), _)| is_plausible(digest, meta));
        let meta = meta.map(|((digest, meta), right)| {
            let label = self.label(digest, right, deadline);
            (digest, meta, label)
        });
        let set_member = |entry: &mut Entry, link: &Link, label: Label| {
            if entry.set_member(link, label, now) {
                self.crowded.increment(1);
            }
        };
        match (member, meta) {
            // One update for both is half of what it costs.
            (Some((link, _, label)), Some((digest, meta, other))) if link.digest == *digest => {
                self.update(SubjectRef::Blob(digest), |entry| {
                    set_member(entry, link, label);
                    entry.set_meta(meta.clone(), other);
                });
            }
            _ => {
                if let Some((link, _, label)) = member {
                    let blob = SubjectRef::Blob(&link.digest);
                    self.update(blob, |entry| set_member(entry, link, label));
                }
                if let Some((digest, meta, label)) = meta {
                    let blob = SubjectRef::Blob(digest);
                    self.update(blob, |entry| entry.set_meta(meta.clone(), label));
                }
            }
        }
        if let Some((
            link,
            Member {
                object: Some(object),
            },
            label,
        )) = member
        {
            let subject = SubjectRef::Object(link.into());
            self.update(subject, |entry| entry.set_meta(object.clone(), label));
        }
    }

    fn label(&self, key: &impl WireName, right: Right, deadline: Tick) -> Label {
        Label::new(self.generations().mark(key, right), deadline)
    }

    /// As [`fill`](Self::fill), for what is most likely unknown: an entry that another one makes at the
    /// same moment may be lost, which costs a miss.
    pub(crate) fn fill_new(&self, facts: &Facts, rights: Rights) {
        match (facts, rights.meta) {
            (
                Facts {
                    member: None,
                    meta: Some((digest, meta)),
                },
                Some(right),
            ) if is_plausible(digest, meta)
                && !self.entries.contains_key(&SubjectRef::Blob(digest).tag()) =>
            {
                let deadline = self.clock.after(Instant::now(), jittered(self.ttl));
                let blob = SubjectRef::Blob(digest);
                let mut entry = Entry::new(blob, &self.names());
                entry.set_meta(meta.clone(), self.label(digest, right, deadline));
                self.holdings.put(entry.size());
                self.entries.insert(blob.tag(), Arc::new(entry));
            }
            _ => self.fill(facts, rights),
        }
    }

    /// Changes a copy of an entry and puts it in the entry's place.
    fn update(&self, subject: SubjectRef<'_>, change: impl FnOnce(&mut Entry)) {
        let names = self.names();
        self.entries.entry(subject.tag()).and_upsert_with(|old| {
            let old = old.map(moka::Entry::into_value);
            let mut entry = match old.filter(|old| old.is_of(subject)) {
                Some(old) => old.copy_into(&names),
                None => Entry::new(subject, &names),
            };
            change(&mut entry);
            self.holdings.put(entry.size());
            Arc::new(entry)
        });
    }

    /// The names' present table; a new one once that is full. Entries keep theirs.
    fn names(&self) -> Arc<Names> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.is_full() {
            *names = Arc::default();
        }
        Arc::clone(&names)
    }
}
