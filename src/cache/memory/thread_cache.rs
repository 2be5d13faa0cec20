//! [`ThreadCache`]: which entries has this thread read often?
//!
//! moka records every hit in a channel that all threads share, and each hit changes two reference
//! counts that they share too. Two threads that ask for the same ten keys therefore get fewer
//! answers than one thread alone (measured: 0.7 ×). So each thread keeps the few entries that it
//! reads often.
//!
//! It keeps moka's own entries, and a copy of their metas, because a reference count that many
//! threads change is no faster than the channel. The copies are as coherent as moka's entries: the
//! reader checks the stamp and the deadline of each fact, wherever it found the fact. An entry that
//! was replaced or evicted is marked as removed.

use super::entry::Entry;
use super::repository_table::SpaceNumber;
use crate::types::{Digest, LayerMeta};
use std::cell::RefCell;
use std::sync::Arc;

/// A thread keeps `SETS` × `WAYS` entries, in small sets like the cache of a processor. With 32 sets,
/// a fifth of 100 hot entries shared a full set, and each displaced the others.
const SETS: usize = 64;
const WAYS: usize = 4;

/// A thread keeps an entry when it has found the entry in moka twice, with fewer than about this
/// many other entries in between. Most entries that are read once are not read again soon, and
/// would only displace others.
const RECENT: usize = 256;

/// One in this many hits still goes to moka, so that moka knows which entries are read often.
const SAMPLE: u32 = 64;

/// The entries of one name space in the caches of all threads. Entries of a name space that was
/// dropped stay until other entries take their place.
#[derive(Debug)]
pub(super) struct ThreadCache {
    space: SpaceNumber,
}

thread_local! {
    static ENTRIES: RefCell<ThreadEntries> = const { RefCell::new(ThreadEntries {
        sets: Vec::new(),
        recent: [0; RECENT],
        hits: 0,
    }) };
}

struct ThreadEntries {
    sets: Vec<Set>,
    /// The tags of entries that the thread found in moka.
    recent: [u64; RECENT],
    hits: u32,
}

#[derive(Default)]
struct Set {
    /// A part of each entry's digest, to find candidates without reading the entries.
    tags: [u64; WAYS],
    ways: [Option<ThreadEntry>; WAYS],
    next: usize,
}

struct ThreadEntry {
    space: SpaceNumber,
    digest: Digest,
    entry: Arc<Entry>,
    /// A copy of the entry's meta that only this thread uses.
    meta: Option<LayerMeta>,
}

impl ThreadCache {
    pub(super) const fn new(space: SpaceNumber) -> Self {
        Self { space }
    }

    pub(super) const fn space(&self) -> SpaceNumber {
        self.space
    }

    /// Reads the entry of this digest with `read`. Returns `None` if this thread does not have the
    /// entry.
    pub(super) fn read<T>(
        &self,
        digest: &Digest,
        read: impl FnOnce(&Entry, Option<&LayerMeta>) -> Option<T>,
    ) -> Option<T> {
        let kept = |kept: &RefCell<ThreadEntries>| {
            let kept = &mut *kept.try_borrow_mut().ok()?;
            let hot = self.find(kept.sets.get(set_of(digest))?, digest)?;
            kept.hits = kept.hits.wrapping_add(1);
            if kept.hits % SAMPLE == 0 || hot.entry.is_removed() {
                return None;
            }
            read(&hot.entry, hot.meta.as_ref())
        };
        // This fails while the thread ends.
        ENTRIES.try_with(kept).ok().flatten()
    }

    fn find<'a>(&self, set: &'a Set, digest: &Digest) -> Option<&'a ThreadEntry> {
        let tag = tag_of(digest);
        let ways = set.tags.iter().zip(&set.ways);
        let mut same = ways.filter_map(|(it, hot)| hot.as_ref().filter(|_| *it == tag));
        same.find(|hot| hot.space == self.space && hot.digest == *digest)
    }

    /// Keeps an entry for this thread, if the thread has found it recently before.
    pub(super) fn keep(&self, digest: &Digest, entry: Arc<Entry>) {
        let tag = tag_of(digest);
        let keep = |kept: &RefCell<ThreadEntries>| {
            let mut kept = kept.try_borrow_mut().ok()?;
            let before = std::mem::replace(&mut kept.recent[place_of(digest)], tag);
            if before != tag {
                return None;
            }
            let hot = ThreadEntry {
                space: self.space,
                digest: *digest,
                meta: entry.meta_apart(),
                entry,
            };
            if kept.sets.is_empty() {
                kept.sets.resize_with(SETS, Set::default);
            }
            let set = &mut kept.sets[set_of(digest)];
            let at = self.place(set, digest);
            set.tags[at] = tag;
            set.ways[at].replace(hot)
        };
        // The replaced entry is dropped here, after the borrow has ended.
        drop(ENTRIES.try_with(keep));
    }

    /// Returns the place for an entry: that of an older entry of the same digest, or else the next
    /// in order.
    fn place(&self, set: &mut Set, digest: &Digest) -> usize {
        let tag = tag_of(digest);
        let is_same = |way: &usize| {
            let hot = set.ways[*way].as_ref().filter(|_| set.tags[*way] == tag);
            hot.is_some_and(|hot| hot.space == self.space && hot.digest == *digest)
        };
        (0..WAYS).find(is_same).unwrap_or_else(|| {
            set.next = (set.next + 1) % WAYS;
            set.next
        })
    }
}

fn tag_of(digest: &Digest) -> u64 {
    match digest.as_bytes().split_first_chunk::<8>() {
        Some((first, _)) => u64::from_le_bytes(*first),
        None => 0,
    }
}

fn place_of(digest: &Digest) -> usize {
    usize::from(digest.as_bytes()[9]) % RECENT
}

fn set_of(digest: &Digest) -> usize {
    // The byte after those of the tag.
    usize::from(digest.as_bytes()[8]) % SETS
}
