//! [`Entry`]: which facts does memory have about one digest?

use super::Moment;
use super::entry_key::{EntryKey, EntryKeyRef};
use super::members::{Members, Membership};
use super::repository_table::{RepositoryTable, SpaceNumber};
use super::validity::{Tick, Validity};
use crate::cache::shared::{Fact, Found, Value};
use crate::types::link::{Key, KeyRef, LinkRef};
use crate::types::question::QuestionRef;
use crate::types::{LayerMeta, Link};
use std::cmp::Ordering as Order;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The facts about one digest: its meta, and its memberships in the order of their repositories.
/// One entry for all of them needs half the look-ups, and a fraction of the memory, of one entry
/// for each fact.
///
/// An entry does not change once it is in the cache, so a reader always sees a consistent entry.
#[derive(Debug)]
pub(super) struct Entry {
    subject: EntryKey,
    meta: Option<LayerMeta>,
    /// The validity of the meta. It is not inside the option, which would then take 8 bytes more.
    validity: Validity,
    members: Members,
    /// The table that maps the memberships' numbers to repositories. It also says which name
    /// space the entry belongs to.
    names: Arc<RepositoryTable>,
    is_removed: AtomicBool,
}

/// The most memberships of one entry. A further one replaces the one that expires first. The node
/// then asks Redis for the replaced one.
const MOST_MEMBERS: usize = 1024;

/// The approximate number of bytes that moka and the allocator need for an entry (measured: 226 to
/// 250 bytes requested from the allocator).
const OVERHEAD: usize = 300;

impl Entry {
    pub(super) fn new(subject: EntryKeyRef<'_>, names: &Arc<RepositoryTable>) -> Self {
        Self::empty(subject.to_owned(), names)
    }

    fn empty(subject: EntryKey, names: &Arc<RepositoryTable>) -> Self {
        Self {
            subject,
            meta: None,
            validity: Validity::DEAD,
            members: Members::default(),
            names: Arc::clone(names),
            is_removed: AtomicBool::new(false),
        }
    }

    /// Returns a copy that uses the numbers of this table.
    pub(super) fn copy_into(&self, names: &Arc<RepositoryTable>) -> Self {
        let members = match Arc::ptr_eq(names, &self.names) {
            true => self.members.clone(),
            false => self
                .members
                .iter()
                .filter_map(|member| self.renamed(*member, names))
                .collect(),
        };
        Self {
            meta: self.meta.clone(),
            validity: self.validity,
            members,
            ..Self::empty(self.subject.clone(), names)
        }
    }

    fn renamed(&self, member: Membership, names: &RepositoryTable) -> Option<Membership> {
        let owner = names.number_of(self.names.owner(member.owner)?)?;
        Some(Membership { owner, ..member })
    }

    /// Returns whether this is the entry of `subject` in this name space. Their tags must be equal.
    pub(super) fn is_of(&self, subject: EntryKeyRef<'_>, space: SpaceNumber) -> bool {
        subject.is(&self.subject) && self.names.space() == space
    }

    /// Marks an entry that is no longer in the cache. A thread that has kept the entry must look it
    /// up in the cache again.
    pub(super) fn mark_removed(&self) {
        self.is_removed.store(true, Ordering::Release);
    }

    pub(super) fn is_removed(&self) -> bool {
        self.is_removed.load(Ordering::Acquire)
    }

    /// Returns the values that `question` asks for and that are alive.
    pub(super) fn read(&self, question: QuestionRef<'_>, moment: Moment<'_>) -> Found {
        self.read_with(self.meta.as_ref(), question, moment)
    }

    /// As [`read`](Self::read), with the caller's copy of the meta.
    pub(super) fn read_with(
        &self,
        meta: Option<&LayerMeta>,
        question: QuestionRef<'_>,
        moment: Moment<'_>,
    ) -> Found {
        let keys = question.keys();
        keys.filter_map(|key| match key {
            KeyRef::Link(link) => self.is_member(link, moment).then_some(Value::MEMBER),
            KeyRef::Meta(_) | KeyRef::Own(_) => {
                let meta = meta.filter(|_| moment.is_live(self.validity));
                meta.cloned().map(Value::Meta)
            }
        })
    }

    /// Stores a fact of this entry. Returns whether a membership was dropped to make room.
    pub(super) fn set(&mut self, fact: &Fact, validity: Validity, now: Tick) -> bool {
        match (&fact.key, &fact.value) {
            (Key::Link(link), Value::Member { .. }) => self.set_member(link, validity, now),
            (_, Value::Meta(meta)) => {
                self.set_meta(meta.clone(), validity);
                false
            }
            (_, Value::Member { .. }) => false,
        }
    }

    /// Returns a copy of the meta that shares no memory with it.
    pub(super) fn meta_apart(&self) -> Option<LayerMeta> {
        self.meta.as_ref().map(LayerMeta::apart)
    }

    pub(super) fn meta(&self, moment: Moment<'_>) -> Option<&LayerMeta> {
        self.meta.as_ref().filter(|_| moment.is_live(self.validity))
    }

    pub(super) fn is_member(&self, link: LinkRef<'_>, moment: Moment<'_>) -> bool {
        let at = self.find(link);
        at.is_ok_and(|at| moment.is_live(self.members[at].validity))
    }

    fn find(&self, link: LinkRef<'_>) -> Result<usize, usize> {
        let wanted = (link.repository.as_str(), link.kind);
        self.members.binary_search_by(|member| {
            let owner = self.names.owner(member.owner);
            owner.map_or(Order::Less, |(name, kind)| {
                (name.as_str(), *kind).cmp(&wanted)
            })
        })
    }

    pub(super) fn set_meta(&mut self, meta: LayerMeta, validity: Validity) {
        (self.meta, self.validity) = (Some(meta), validity);
    }

    /// Adds a membership, or updates its validity. Returns whether another membership was dropped
    /// to make room.
    fn set_member(&mut self, link: &Link, validity: Validity, now: Tick) -> bool {
        if let Ok(at) = self.find(link.into()) {
            self.members[at].validity = validity;
            return false;
        }
        let Some(owner) = self.names.number(link) else {
            return false;
        };
        let mut members = self.members.to_vec();
        members.retain(|member| now < member.validity.deadline());
        let is_full = members.len() >= MOST_MEMBERS;
        if is_full {
            drop_oldest(&mut members);
        }
        self.members = members.into_iter().collect();
        let at = self.find(link.into()).unwrap_or_else(|at| at);
        let (before, after) = self.members.split_at(at);
        let new = [Membership { owner, validity }];
        let all = before.iter().chain(&new).chain(after);
        self.members = all.copied().collect();
        is_full
    }

    /// Returns the approximate number of bytes that the entry takes.
    pub(super) fn size(&self) -> usize {
        let meta = self.meta.as_ref().map_or(0, LayerMeta::heap_size);
        OVERHEAD + size_of::<Self>() + self.subject.heap_size() + meta + self.members.heap_size()
    }
}

fn drop_oldest(members: &mut Vec<Membership>) {
    let deadlines = members.iter().map(|member| member.validity.deadline());
    if let Some((oldest, _)) = deadlines.enumerate().min_by_key(|(_, deadline)| *deadline) {
        members.remove(oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::memory::validity::Clock;
    use crate::coherence::Coherence;
    use crate::types::Digest;
    use crate::types::link::WireName;
    use std::time::Duration;
    use tokio::time::Instant;

    fn validity_of(key: &impl WireName, coherence: &Coherence, deadline: Tick) -> Validity {
        let trusted = coherence.trusted(Instant::now()).unwrap();
        let read_stamp = trusted.read_stamp(key).unwrap();
        Validity::new(coherence.generations.entry_stamp(key, read_stamp), deadline)
    }

    #[test]
    fn an_entry_is_small() {
        assert_eq!(size_of::<Membership>(), 16);
        assert_eq!(size_of::<Entry>(), 88);
    }

    #[test]
    fn a_blob_in_many_repositories_is_bounded_and_drops_the_oldest() {
        let (clock, now) = (Clock::new(), Instant::now());
        let digest = Digest::Sha256([1; 32]);
        let coherence = Coherence::alone();
        let link = |i: u64| Link::layer(format!("r{i}").parse().unwrap(), digest);
        let table = || Arc::new(RepositoryTable::new(SpaceNumber::fresh()));
        let mut entry = Entry::new(EntryKeyRef::Blob(&digest), &table());
        let count = MOST_MEMBERS as u64 + 10;
        for i in 0..count {
            let deadline = clock.after(now, Duration::from_secs(60 + i));
            let validity = validity_of(&link(i), &coherence, deadline);
            let made_room = entry.set_member(&link(i), validity, clock.tick(now));
            assert_eq!(made_room, i >= MOST_MEMBERS as u64, "{i}");
        }
        assert_eq!(entry.members.len(), MOST_MEMBERS);
        let is_known = |entry: &Entry, i| entry.find((&link(i)).into()).is_ok();
        assert!(!is_known(&entry, 9));
        assert!((10..count).all(|i| is_known(&entry, i)));

        let copy = entry.copy_into(&table());
        assert!(
            (10..count).all(|i| is_known(&copy, i)),
            "under other numbers"
        );
    }
}
