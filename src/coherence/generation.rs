//! Decides whether a value in memory was read before a change of its key.

use crate::types::link::WireName;
use std::sync::atomic::{AtomicU64, Ordering};

/// Holds the generations of all keys, in stripes, and a global generation.
///
/// A stripe is one word. Its upper bits hold the generation, and its low [`FENCE_BITS`] count the
/// changes of its keys that are under way. If a key has no fence and its generation is the same as
/// before, the key was not changed in between. Keys of one stripe share their changes, which costs
/// only a miss.
#[derive(Debug)]
pub(crate) struct Generations {
    global: AtomicU64,
    stripes: Box<[AtomicU64]>,
}

/// The generation of a key at one moment: the sum of its stripe and the global generation. It never
/// decreases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Stamp(u64);

/// The stamp of a key from before a value was read. It permits filling memory with that value, and
/// exists only if the key was not being changed at that moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ReadStamp(Stamp);

/// The stamp of a memory entry and the index of its stripe, in one word. The index takes the bits
/// that count fences in a stripe: they are 0 in a [`ReadStamp`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntryStamp(u64);

/// The generations of all keys at one moment, for a caller that does not know yet which keys it
/// will read. It takes half a megabyte.
#[derive(Debug)]
pub(crate) struct Snapshot {
    global: u64,
    stripes: Box<[u64]>,
}

/// The fence of a change in memory. Its holder must pass it to [`Generations::end`]: a key whose
/// change never ends is never cached again.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, PartialEq, Eq, Hash))]
#[must_use = "a change that never ends keeps its key out of the cache"]
pub(crate) struct MemoryFence {
    stripe: usize,
    stamp: Stamp,
}

const STRIPES: usize = 1 << 16;
const FENCE_BITS: u32 = 24;
const FENCE: u64 = 1;
const GENERATION: u64 = 1 << FENCE_BITS;

impl Generations {
    pub(crate) fn new() -> Self {
        Self::of(0, std::iter::repeat_n(0, STRIPES))
    }

    /// Returns a table of these stripes. The number of stripes must be a power of two.
    fn of(global: u64, stripes: impl Iterator<Item = u64>) -> Self {
        Self {
            global: AtomicU64::new(global),
            stripes: stripes.map(AtomicU64::new).collect(),
        }
    }

    fn stripe_of(&self, name: u64) -> usize {
        stripe_of(name, self.stripes.len())
    }

    fn stripe(&self, key: &impl WireName) -> usize {
        self.stripe_of(key.wire_name())
    }

    fn stamp_of(&self, stripe: usize) -> Stamp {
        let global = self.global.load(Ordering::Acquire);
        Stamp(global.wrapping_add(self.stripes[stripe].load(Ordering::Acquire)))
    }

    /// Returns the key's stamp now.
    pub(super) fn stamp(&self, key: &impl WireName) -> Stamp {
        self.stamp_of(self.stripe(key))
    }

    /// Returns the stamp for a value that the caller reads from now on. Memory is filled under it.
    /// Returns `None` while the key is being changed.
    pub(super) fn read_stamp(&self, key: &impl WireName) -> Option<ReadStamp> {
        self.stamp(key).read_stamp()
    }

    /// Returns the generations of all keys, for values that the caller reads from now on.
    pub(super) fn snapshot(&self) -> Snapshot {
        // The global generation is read first: if it grows meanwhile, the stamps are too old, never
        // too new.
        let global = self.global.load(Ordering::Acquire);
        let stripes = self.stripes.iter();
        Snapshot {
            global,
            stripes: stripes.map(|word| word.load(Ordering::Acquire)).collect(),
        }
    }

    /// Returns whether a value that was read under this stamp may still be filled.
    pub(crate) fn holds(&self, key: &impl WireName, read_stamp: ReadStamp) -> bool {
        self.stamp(key) == read_stamp.0
    }

    /// Returns the stamp of an entry of this key that is filled under `read_stamp`.
    pub(crate) fn entry_stamp(&self, key: &impl WireName, read_stamp: ReadStamp) -> EntryStamp {
        EntryStamp(read_stamp.0.0 | self.stripe(key) as u64)
    }

    /// Returns whether no key of the entry's stripe was changed since the entry's value was read.
    pub(super) fn is_current(&self, entry_stamp: EntryStamp) -> bool {
        let stripe = (entry_stamp.0 & (GENERATION - 1)) as usize;
        self.stamp_of(stripe & (self.stripes.len() - 1)) == Stamp(entry_stamp.0 & !(GENERATION - 1))
    }

    /// Begins a change. All values of the key are outdated, and none is filled until the change
    /// ends.
    pub(crate) fn begin(&self, key: &impl WireName) -> MemoryFence {
        let stripe = self.stripe(key);
        self.stripes[stripe].fetch_add(GENERATION + FENCE, Ordering::AcqRel);
        MemoryFence {
            stripe,
            stamp: self.stamp_of(stripe),
        }
    }

    /// Ends a change. Values that were read during the change are not filled either. Returns the
    /// stamp to fill what the change itself has written, or `None` if another change or a flush
    /// came in between.
    pub(crate) fn end(&self, fence: MemoryFence) -> Option<ReadStamp> {
        let MemoryFence { stripe, stamp } = fence;
        let before = self.stripes[stripe].fetch_add(GENERATION - FENCE, Ordering::AcqRel);
        let global = self.global.load(Ordering::Acquire);
        let is_undisturbed = Stamp(global.wrapping_add(before)) == stamp;
        let after = Stamp(stamp.0.wrapping_add(GENERATION - FENCE));
        (is_undisturbed && after.0 & (GENERATION - 1) == 0).then_some(ReadStamp(after))
    }

    /// Makes all values of one key outdated.
    pub(crate) fn bump(&self, key: &impl WireName) {
        self.stripes[self.stripe(key)].fetch_add(GENERATION, Ordering::AcqRel);
    }

    /// Makes all values of a key outdated, which another node has named by its wire name.
    pub(crate) fn bump_named(&self, name: u64) {
        self.stripes[self.stripe_of(name)].fetch_add(GENERATION, Ordering::AcqRel);
    }

    /// Makes all values of all keys outdated.
    pub(crate) fn flush(&self) {
        self.global.fetch_add(GENERATION, Ordering::AcqRel);
    }
}

/// Returns the stripe of a wire name. The number of stripes must be a power of two.
fn stripe_of(name: u64, stripes: usize) -> usize {
    // The product's upper bits depend on all bits of the name.
    (name.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as usize & (stripes - 1)
}

impl Stamp {
    fn read_stamp(self) -> Option<ReadStamp> {
        (self.0 & (GENERATION - 1) == 0).then_some(ReadStamp(self))
    }
}

impl Snapshot {
    /// Returns the stamp to fill what was read after the snapshot, or `None` if the key was being
    /// changed at its moment.
    pub(crate) fn read_stamp(&self, key: &impl WireName) -> Option<ReadStamp> {
        let stripe = stripe_of(key.wire_name(), self.stripes.len());
        Stamp(self.global.wrapping_add(self.stripes[stripe])).read_stamp()
    }
}

impl MemoryFence {
    /// Returns the index of the stripe. Keys of one stripe are fenced together.
    pub(crate) const fn stripe(&self) -> usize {
        self.stripe
    }
}

impl EntryStamp {
    pub(crate) const fn word(self) -> u64 {
        self.0
    }

    pub(crate) const fn from_word(word: u64) -> Self {
        Self(word)
    }
}

/// For the model, which copies and compares a table of one stripe.
#[cfg(test)]
mod snapshot {
    use super::*;
    use std::hash::{Hash, Hasher};

    impl Generations {
        pub(crate) fn of_one_stripe() -> Self {
            Self::of(0, std::iter::once(0))
        }

        pub(crate) fn now(&self, key: &impl WireName) -> Stamp {
            self.stamp(key)
        }

        fn words(&self) -> (u64, Vec<u64>) {
            let read = |word: &AtomicU64| word.load(Ordering::Relaxed);
            (read(&self.global), self.stripes.iter().map(read).collect())
        }
    }

    impl ReadStamp {
        pub(crate) const fn stamp(self) -> Stamp {
            self.0
        }
    }

    impl Clone for Generations {
        fn clone(&self) -> Self {
            let (global, stripes) = self.words();
            Self::of(global, stripes.into_iter())
        }
    }

    impl PartialEq for Generations {
        fn eq(&self, other: &Self) -> bool {
            self.words() == other.words()
        }
    }

    impl Eq for Generations {}

    impl Hash for Generations {
        fn hash<H: Hasher>(&self, state: &mut H) {
            self.words().hash(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Digest;
    use crate::types::link::Key;

    const KEY: Key = Key::Meta(Digest::Sha256([1; 32]));

    #[test]
    fn a_stamp_from_before_a_change_is_invalid_and_none_is_given_during_it() {
        let generations = Generations::new();
        let before = generations.read_stamp(&KEY).unwrap();
        let fence = generations.begin(&KEY);
        assert!(!generations.holds(&KEY, before));
        assert_eq!(generations.read_stamp(&KEY), None);
        generations.end(fence);
        assert!(!generations.holds(&KEY, before));
        assert!(generations.read_stamp(&KEY).is_some());
    }

    #[test]
    fn the_end_of_a_change_gives_a_valid_stamp_unless_another_change_came_in_between() {
        let generations = Generations::new();
        let fence = generations.begin(&KEY);
        let read_stamp = generations.end(fence).unwrap();
        assert!(generations.holds(&KEY, read_stamp));
        generations.bump(&KEY);
        assert!(!generations.holds(&KEY, read_stamp));

        type Disturbance = fn(&Generations);
        let disturbances: [Disturbance; 3] = [
            |generations| generations.bump(&KEY),
            |generations| generations.flush(),
            |generations| {
                let other = generations.begin(&KEY);
                generations.end(other);
            },
        ];
        for disturb in disturbances {
            let fence = generations.begin(&KEY);
            disturb(&generations);
            assert_eq!(generations.end(fence), None);
        }
    }

    #[test]
    fn two_changes_of_a_key_wait_for_each_other() {
        let generations = Generations::new();
        let first = generations.begin(&KEY);
        let second = generations.begin(&KEY);
        assert_eq!(generations.end(first), None);
        assert_eq!(
            generations.read_stamp(&KEY),
            None,
            "the second change is under way"
        );
        generations.end(second);
        assert!(generations.read_stamp(&KEY).is_some());
    }

    #[test]
    fn a_snapshot_gives_the_stamps_of_its_moment() {
        let generations = Generations::new();
        let other = Key::Meta(Digest::Sha256([2; 32]));
        let fence = generations.begin(&KEY);
        let snapshot = generations.snapshot();
        generations.end(fence);
        assert_eq!(snapshot.read_stamp(&KEY), None, "the key was being changed");
        let read_stamp = snapshot.read_stamp(&other).unwrap();
        assert!(generations.holds(&other, read_stamp));
        generations.bump(&other);
        assert!(!generations.holds(&other, read_stamp));
        let read_stamp = generations.snapshot().read_stamp(&other).unwrap();
        assert!(generations.holds(&other, read_stamp));
        generations.flush();
        assert!(!generations.holds(&other, read_stamp));
    }

    #[test]
    fn a_flush_makes_all_stamps_invalid() {
        let generations = Generations::new();
        let read_stamp = generations.read_stamp(&KEY).unwrap();
        generations.flush();
        assert!(!generations.holds(&KEY, read_stamp));
    }
}
