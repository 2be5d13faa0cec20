//! What memory keeps of one digest.

use crate::cache::shared::Member;
use crate::coherence::generation::Stamp;
use crate::{LayerMeta, Link, LinkKind, RepositoryName};
use tokio::time::Instant;

/// A value, the stamp it was loaded under, and when it is too old.
#[derive(Debug, Clone)]
pub(super) struct Slot<T> {
    pub(super) value: T,
    pub(super) stamp: Stamp,
    pub(super) deadline: Instant,
}

impl<T> Slot<T> {
    /// The value, if it is not dead.
    pub(super) fn live(&self, stamp: Stamp, now: Instant) -> Option<&T> {
        (self.stamp == stamp && now < self.deadline).then_some(&self.value)
    }
}

/// The facts about one digest: its meta, and its memberships in the order of their repositories.
/// One entry for all of them is half the lookups and a fraction of the memory of an entry each.
#[derive(Debug, Clone, Default)]
pub(super) struct Entry {
    meta: Option<Slot<LayerMeta>>,
    members: Vec<(RepositoryName, LinkKind, Slot<Member>)>,
}

/// A blob in more repositories than this is asked for in Redis by the others.
const MOST_MEMBERS: usize = 1024;

/// What moka and the allocator need for an entry, about (measured: 340 to 500 bytes).
const OVERHEAD: usize = 400;

impl Entry {
    pub(super) const fn meta(&self) -> Option<&Slot<LayerMeta>> {
        self.meta.as_ref()
    }

    pub(super) fn member(&self, link: &Link) -> Option<&Slot<Member>> {
        let at = self.find(link).ok()?;
        Some(&self.members[at].2)
    }

    fn find(&self, link: &Link) -> Result<usize, usize> {
        let wanted = (link.repository.as_str(), link.kind);
        self.members
            .binary_search_by(|(name, kind, _)| (name.as_str(), *kind).cmp(&wanted))
    }

    pub(super) fn set_meta(&mut self, slot: Slot<LayerMeta>) {
        self.meta = Some(slot);
    }

    /// Says whether another one had to make room.
    pub(super) fn set_member(&mut self, link: &Link, slot: Slot<Member>, now: Instant) -> bool {
        match self.find(link) {
            Ok(at) => {
                self.members[at].2 = slot;
                false
            }
            Err(_) => {
                self.members.retain(|(_, _, slot)| now < slot.deadline);
                let is_full = self.members.len() >= MOST_MEMBERS;
                if is_full {
                    self.drop_oldest();
                }
                let at = self.find(link).unwrap_or_else(|at| at);
                let member = (link.repository.clone(), link.kind, slot);
                self.members.insert(at, member);
                is_full
            }
        }
    }

    fn drop_oldest(&mut self) {
        let deadlines = self.members.iter().map(|(_, _, slot)| slot.deadline);
        if let Some((oldest, _)) = deadlines.enumerate().min_by_key(|(_, deadline)| *deadline) {
            self.members.remove(oldest);
        }
    }

    /// The bytes that the entry takes, about.
    pub(super) fn size(&self) -> usize {
        let heap = |meta: &LayerMeta| meta.heap_size();
        let meta = self.meta.as_ref().map_or(0, |slot| heap(&slot.value));
        let members = self.members.iter().map(|(name, _, slot)| {
            size_of::<(RepositoryName, LinkKind, Slot<Member>)>()
                + name.as_str().len()
                + slot.value.object.as_ref().map_or(0, heap)
        });
        OVERHEAD + meta + members.sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;
    use crate::coherence::Coherence;
    use std::time::Duration;

    #[test]
    fn a_blob_in_many_repositories_is_bounded_and_drops_the_oldest() {
        let now = Instant::now();
        let digest = Digest::Sha256([1; 32]);
        let coherence = Coherence::alone();
        let stamp = coherence.trusted(now).unwrap().stamp(&digest);
        let link = |i: u64| Link::layer(format!("r{i}").parse().unwrap(), digest);
        let mut entry = Entry::default();
        let count = MOST_MEMBERS as u64 + 10;
        for i in 0..count {
            let slot = Slot {
                value: Member::default(),
                stamp,
                deadline: now + Duration::from_secs(60 + i),
            };
            let made_room = entry.set_member(&link(i), slot, now);
            assert_eq!(made_room, i >= MOST_MEMBERS as u64, "{i}");
        }
        assert_eq!(entry.members.len(), MOST_MEMBERS);
        assert!(entry.member(&link(9)).is_none());
        for i in 10..count {
            assert!(entry.member(&link(i)).is_some(), "{i}");
        }
    }
}
