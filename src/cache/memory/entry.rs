//! [`Entry`]: what memory keeps of one digest.

use super::Moment;
use super::label::{Label, Tick};
use super::members::{Members, Membership};
use super::names::Names;
use super::subject::{Subject, SubjectRef};
use crate::cache::shared::{Found, Member, QuestionRef};
use crate::link::LinkRef;
use crate::{LayerMeta, Link};
use std::cmp::Ordering as Order;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The facts about one digest: its meta, and its memberships in the order of their repositories.
/// One entry for all of them is half the look-ups and a fraction of the memory of an entry each.
///
/// It is not changed once it is in the cache: whoever reads one reads it whole.
#[derive(Debug)]
pub(super) struct Entry {
    subject: Subject,
    meta: Option<LayerMeta>,
    /// The meta's; beside it, not in the option, which would take 8 bytes more.
    label: Label,
    members: Members,
    /// What the memberships' numbers mean.
    names: Arc<Names>,
    has_left: AtomicBool,
}

/// A blob in more repositories than this is asked for in Redis by the others.
const MOST_MEMBERS: usize = 1024;

/// What moka and the allocator need for an entry, about (measured: 226 to 250 bytes asked of the allocator).
const OVERHEAD: usize = 300;

impl Entry {
    pub(super) fn new(subject: SubjectRef<'_>, names: &Arc<Names>) -> Self {
        Self::empty(subject.to_owned(), names)
    }

    fn empty(subject: Subject, names: &Arc<Names>) -> Self {
        Self {
            subject,
            meta: None,
            label: Label::DEAD,
            members: Members::default(),
            names: Arc::clone(names),
            has_left: AtomicBool::new(false),
        }
    }

    /// A copy whose names are in this table.
    pub(super) fn copy_into(&self, names: &Arc<Names>) -> Self {
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
            label: self.label,
            members,
            ..Self::empty(self.subject.clone(), names)
        }
    }

    fn renamed(&self, member: Membership, names: &Names) -> Option<Membership> {
        let owner = names.number_of(self.names.owner(member.owner)?)?;
        Some(Membership { owner, ..member })
    }

    pub(super) fn is_of(&self, subject: SubjectRef<'_>) -> bool {
        subject.is(&self.subject)
    }

    /// It is in the cache no more: whoever has kept it has to look there again.
    pub(super) fn leave(&self) {
        self.has_left.store(true, Ordering::Release);
    }

    pub(super) fn has_left(&self) -> bool {
        self.has_left.load(Ordering::Acquire)
    }

    /// What of it is alive, and asked for.
    pub(super) fn read(&self, question: QuestionRef<'_>, moment: Moment<'_>) -> Found {
        self.read_with(self.meta.as_ref(), question, moment)
    }

    /// The same, of one who has a copy of the meta.
    pub(super) fn read_with(
        &self,
        meta: Option<&LayerMeta>,
        question: QuestionRef<'_>,
        moment: Moment<'_>,
    ) -> Found {
        let member = question.link().filter(|link| {
            let label = self.member(*link);
            label.is_some_and(|label| moment.is_live(label))
        });
        Found {
            member: member.map(|_| Member::default()),
            meta: meta
                .filter(|_| question.meta().is_some() && moment.is_live(self.label))
                .cloned(),
        }
    }

    /// A copy of the meta that shares nothing with it.
    pub(super) fn meta_apart(&self) -> Option<LayerMeta> {
        self.meta.as_ref().map(LayerMeta::apart)
    }

    pub(super) fn meta(&self, moment: Moment<'_>) -> Option<&LayerMeta> {
        self.meta.as_ref().filter(|_| moment.is_live(self.label))
    }

    fn member(&self, link: LinkRef<'_>) -> Option<Label> {
        let at = self.find(link).ok()?;
        Some(self.members[at].label)
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

    pub(super) fn set_meta(&mut self, meta: LayerMeta, label: Label) {
        (self.meta, self.label) = (Some(meta), label);
    }

    /// Says whether another one had to make room.
    pub(super) fn set_member(&mut self, link: &Link, label: Label, now: Tick) -> bool {
        if let Ok(at) = self.find(link.into()) {
            self.members[at].label = label;
            return false;
        }
        let Some(owner) = self.names.number(link) else {
            return false;
        };
        let mut members = self.members.to_vec();
        members.retain(|member| now < member.label.deadline());
        let is_full = members.len() >= MOST_MEMBERS;
        if is_full {
            drop_oldest(&mut members);
        }
        self.members = members.into_iter().collect();
        let at = self.find(link.into()).unwrap_or_else(|at| at);
        let (before, after) = self.members.split_at(at);
        let new = [Membership { owner, label }];
        let all = before.iter().chain(&new).chain(after);
        self.members = all.copied().collect();
        is_full
    }

    /// The bytes that the entry takes, about.
    pub(super) fn size(&self) -> usize {
        let meta = self.meta.as_ref().map_or(0, LayerMeta::heap_size);
        OVERHEAD + size_of::<Self>() + self.subject.heap_size() + meta + self.members.heap_size()
    }
}

fn drop_oldest(members: &mut Vec<Membership>) {
    let deadlines = members.iter().map(|member| member.label.deadline());
    if let Some((oldest, _)) = deadlines.enumerate().min_by_key(|(_, deadline)| *deadline) {
        members.remove(oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;
    use crate::cache::memory::label::Clock;
    use crate::coherence::Coherence;
    use crate::link::WireName;
    use std::time::Duration;
    use tokio::time::Instant;

    fn label_of(key: &impl WireName, coherence: &Coherence, deadline: Tick) -> Label {
        let trusted = coherence.trusted(Instant::now()).unwrap();
        let right = trusted.right(key).unwrap();
        Label::new(coherence.generations.mark(key, right), deadline)
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
        let mut entry = Entry::new(SubjectRef::Blob(&digest), &Arc::default());
        let count = MOST_MEMBERS as u64 + 10;
        for i in 0..count {
            let deadline = clock.after(now, Duration::from_secs(60 + i));
            let label = label_of(&link(i), &coherence, deadline);
            let made_room = entry.set_member(&link(i), label, clock.tick(now));
            assert_eq!(made_room, i >= MOST_MEMBERS as u64, "{i}");
        }
        assert_eq!(entry.members.len(), MOST_MEMBERS);
        let is_known = |entry: &Entry, i| entry.member((&link(i)).into()).is_some();
        assert!(!is_known(&entry, 9));
        assert!((10..count).all(|i| is_known(&entry, i)));

        let copy = entry.copy_into(&Arc::default());
        assert!(
            (10..count).all(|i| is_known(&copy, i)),
            "under other numbers"
        );
    }
}
