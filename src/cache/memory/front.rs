//! [`Front`]: what each thread has just been asked.
//!
//! moka counts every hit in a channel that all threads share, and clones two reference counts that
//! they share, too: two threads that ask for the same ten keys get fewer answers than one alone
//! (measured: 0.7 ×). So each thread keeps the few entries that it is asked for again and again. They are
//! moka's own, with a copy of their metas (a value whose clones many threads count is no faster than the
//! channel), and no less coherent: a fact is checked against its stamp and its deadline wherever it
//! was found, and an entry that has left the cache, replaced or evicted, says so.

use super::entry::Entry;
use crate::{Digest, LayerMeta};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A thread keeps this many entries: sets of a few, as a processor's cache.
const SETS: usize = 32;
const WAYS: usize = 4;

/// An entry is kept when a thread finds it in moka again, with fewer than this many others in between
/// (about): most of what is asked once is not asked again soon, and would only make room for itself.
const RECENT: usize = 256;

/// One in so many hits goes to moka all the same, so that it knows what is hot.
const SAMPLE: u32 = 64;

/// One memory's part of what the threads keep. What they keep of one that is gone stays until
/// something else takes its place.
#[derive(Debug)]
pub(super) struct Front {
    memory: u64,
}

thread_local! {
    static KEPT: RefCell<Kept> = const { RefCell::new(Kept {
        sets: Vec::new(),
        recent: [0; RECENT],
        hits: 0,
    }) };
}

struct Kept {
    sets: Vec<Set>,
    /// Tags of what was found in moka.
    recent: [u64; RECENT],
    hits: u32,
}

#[derive(Default)]
struct Set {
    /// A part of each one's digest, to see at one look which it can be.
    tags: [u64; WAYS],
    ways: [Option<Hot>; WAYS],
    next: usize,
}

struct Hot {
    memory: u64,
    digest: Digest,
    entry: Arc<Entry>,
    /// The entry's, but for this thread alone.
    meta: Option<LayerMeta>,
}

impl Front {
    pub(super) fn new() -> Self {
        static MEMORIES: AtomicU64 = AtomicU64::new(0);
        Self {
            memory: MEMORIES.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// What is read of the entry, if this thread has it and `is_enough` is true of that.
    pub(super) fn read<T>(
        &self,
        digest: &Digest,
        read: impl FnOnce(&Entry, Option<&LayerMeta>) -> T,
        is_enough: impl FnOnce(&T) -> bool,
    ) -> Option<T> {
        let kept = |kept: &RefCell<Kept>| {
            let kept = &mut *kept.try_borrow_mut().ok()?;
            let hot = self.find(kept.sets.get(set_of(digest))?, digest)?;
            kept.hits = kept.hits.wrapping_add(1);
            if kept.hits % SAMPLE == 0 || hot.entry.has_left() {
                return None;
            }
            Some(read(&hot.entry, hot.meta.as_ref())).filter(is_enough)
        };
        // There is none while a thread ends.
        KEPT.try_with(kept).ok().flatten()
    }

    fn find<'a>(&self, set: &'a Set, digest: &Digest) -> Option<&'a Hot> {
        let tag = tag_of(digest);
        let ways = set.tags.iter().zip(&set.ways);
        let mut same = ways.filter_map(|(it, hot)| hot.as_ref().filter(|_| *it == tag));
        same.find(|hot| hot.memory == self.memory && hot.digest == *digest)
    }

    /// Keeps an entry for this thread, if it was found before.
    pub(super) fn keep(&self, digest: &Digest, entry: Arc<Entry>) {
        let tag = tag_of(digest);
        let keep = |kept: &RefCell<Kept>| {
            let mut kept = kept.try_borrow_mut().ok()?;
            let before = std::mem::replace(&mut kept.recent[place_of(digest)], tag);
            if before != tag {
                return None;
            }
            let hot = Hot {
                memory: self.memory,
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
        // What made room is dropped out here.
        drop(KEPT.try_with(keep));
    }

    /// Where an entry goes: in the place of the one before it, or else of the oldest.
    fn place(&self, set: &mut Set, digest: &Digest) -> usize {
        let tag = tag_of(digest);
        let is_same = |way: &usize| {
            let hot = set.ways[*way].as_ref().filter(|_| set.tags[*way] == tag);
            hot.is_some_and(|hot| hot.memory == self.memory && hot.digest == *digest)
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
    // The bytes after those of the tag.
    usize::from(digest.as_bytes()[8]) % SETS
}
