//! Generations: which values in memory were loaded before a change of their key.

use crate::link::WireName;
use std::sync::atomic::{AtomicU64, Ordering};

/// Striped generations of keys, and the global one.
///
/// A stripe is one word: the generation above, and in the low [`FENCE_BITS`] how many changes of
/// its keys are under way. A key without a fence and with the same generation has not been changed
/// in between. Keys that share a stripe share its changes, which costs a miss and nothing else.
#[derive(Debug)]
pub(crate) struct Generations {
    global: AtomicU64,
    stripes: Box<[AtomicU64]>,
}

/// The generation of a key at one moment, all changes counted. It only ever grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Stamp(u64);

/// The right to fill under the stamp that it carries: the key was not being changed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Right(Stamp);

/// A stamp to fill under and the stripe that it is of, in one word: where the fences are counted in a
/// stripe, a stamp to fill under has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark(u64);

/// The generations of all keys at one moment, for one who does not know yet which keys it will read
/// of. Half a megabyte.
#[derive(Debug)]
pub(crate) struct Snapshot {
    global: u64,
    stripes: Box<[u64]>,
}

/// A change that is under way. Whoever holds it must give it back to [`Generations::end`]; a key
/// whose change never ends is never cached again.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, PartialEq, Eq, Hash))]
#[must_use = "a change that never ends keeps its key out of the cache"]
pub(crate) struct Fence {
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

    /// There has to be a power of two of stripes.
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

    /// The key's stamp now.
    pub(super) fn stamp(&self, key: &impl WireName) -> Stamp {
        self.stamp_of(self.stripe(key))
    }

    /// The right to fill what is read from here on, unless the key is being changed.
    pub(super) fn right(&self, key: &impl WireName) -> Option<Right> {
        self.stamp(key).right()
    }

    /// The generations of all keys, to fill what is read from here on.
    pub(super) fn snapshot(&self) -> Snapshot {
        // The global one first: one that grows meanwhile makes older stamps, not newer ones.
        let global = self.global.load(Ordering::Acquire);
        let stripes = self.stripes.iter();
        Snapshot {
            global,
            stripes: stripes.map(|word| word.load(Ordering::Acquire)).collect(),
        }
    }

    /// Whether what was read under this right may still be filled.
    pub(crate) fn holds(&self, key: &impl WireName, right: Right) -> bool {
        self.stamp(key) == right.0
    }

    /// What a value of this key is marked with that is filled under this right.
    pub(crate) fn mark(&self, key: &impl WireName, right: Right) -> Mark {
        Mark(right.0.0 | self.stripe(key) as u64)
    }

    /// Whether the keys of a value's stripe have not been changed since it was read.
    pub(super) fn is_current(&self, mark: Mark) -> bool {
        let stripe = (mark.0 & (GENERATION - 1)) as usize;
        self.stamp_of(stripe & (self.stripes.len() - 1)) == Stamp(mark.0 & !(GENERATION - 1))
    }

    /// Begins a change: what was filled is dead, and nothing is filled until the change ends.
    pub(crate) fn begin(&self, key: &impl WireName) -> Fence {
        let stripe = self.stripe(key);
        self.stripes[stripe].fetch_add(GENERATION + FENCE, Ordering::AcqRel);
        Fence {
            stripe,
            stamp: self.stamp_of(stripe),
        }
    }

    /// Ends a change: what was read while it was under way is not filled either. Returns the right
    /// to fill what the change itself has written, unless another change came in between.
    pub(crate) fn end(&self, fence: Fence) -> Option<Right> {
        let Fence { stripe, stamp } = fence;
        let before = self.stripes[stripe].fetch_add(GENERATION - FENCE, Ordering::AcqRel);
        let global = self.global.load(Ordering::Acquire);
        let undisturbed = Stamp(global.wrapping_add(before)) == stamp;
        let after = Stamp(stamp.0.wrapping_add(GENERATION - FENCE));
        (undisturbed && after.0 & (GENERATION - 1) == 0).then_some(Right(after))
    }

    /// Forgets one key: what was filled is dead.
    pub(crate) fn bump(&self, key: &impl WireName) {
        self.stripes[self.stripe(key)].fetch_add(GENERATION, Ordering::AcqRel);
    }

    /// Forgets what another node calls by this name.
    pub(crate) fn bump_named(&self, name: u64) {
        self.stripes[self.stripe_of(name)].fetch_add(GENERATION, Ordering::AcqRel);
    }

    /// Forgets all keys.
    pub(crate) fn flush(&self) {
        self.global.fetch_add(GENERATION, Ordering::AcqRel);
    }
}

/// There is a power of two of stripes.
fn stripe_of(name: u64, stripes: usize) -> usize {
    // The product's upper bits depend on all of the name's.
    (name.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as usize & (stripes - 1)
}

impl Stamp {
    fn right(self) -> Option<Right> {
        (self.0 & (GENERATION - 1) == 0).then_some(Right(self))
    }
}

impl Snapshot {
    /// The right to fill what was read after this was taken, unless the key was being changed then.
    pub(crate) fn right(&self, key: &impl WireName) -> Option<Right> {
        let stripe = stripe_of(key.wire_name(), self.stripes.len());
        Stamp(self.global.wrapping_add(self.stripes[stripe])).right()
    }
}

impl Fence {
    /// Keys of the same stripe are fenced together.
    pub(crate) const fn stripe(&self) -> usize {
        self.stripe
    }
}

impl Mark {
    pub(crate) const fn word(self) -> u64 {
        self.0
    }

    pub(crate) const fn of_word(word: u64) -> Self {
        Self(word)
    }
}

/// For the model: one stripe, to be copied and compared.
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

    impl Right {
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
    use crate::Digest;
    use crate::link::Key;

    const KEY: Key = Key::Meta(Digest::Sha256([1; 32]));

    #[test]
    fn a_right_from_before_a_change_is_gone_and_none_is_given_during_it() {
        let generations = Generations::new();
        let before = generations.right(&KEY).unwrap();
        let fence = generations.begin(&KEY);
        assert!(!generations.holds(&KEY, before));
        assert_eq!(generations.right(&KEY), None);
        generations.end(fence);
        assert!(!generations.holds(&KEY, before));
        assert!(generations.right(&KEY).is_some());
    }

    #[test]
    fn the_end_gives_a_right_that_holds_unless_disturbed() {
        let generations = Generations::new();
        let fence = generations.begin(&KEY);
        let right = generations.end(fence).unwrap();
        assert!(generations.holds(&KEY, right));
        generations.bump(&KEY);
        assert!(!generations.holds(&KEY, right));

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
        assert_eq!(generations.right(&KEY), None, "the second is under way");
        generations.end(second);
        assert!(generations.right(&KEY).is_some());
    }

    #[test]
    fn a_snapshot_gives_the_rights_of_its_moment() {
        let generations = Generations::new();
        let other = Key::Meta(Digest::Sha256([2; 32]));
        let fence = generations.begin(&KEY);
        let snapshot = generations.snapshot();
        generations.end(fence);
        assert_eq!(snapshot.right(&KEY), None, "it was being changed");
        let right = snapshot.right(&other).unwrap();
        assert!(generations.holds(&other, right));
        generations.bump(&other);
        assert!(!generations.holds(&other, right));
        let right = generations.snapshot().right(&other).unwrap();
        assert!(generations.holds(&other, right));
        generations.flush();
        assert!(!generations.holds(&other, right));
    }

    #[test]
    fn a_flush_takes_all_rights() {
        let generations = Generations::new();
        let right = generations.right(&KEY).unwrap();
        generations.flush();
        assert!(!generations.holds(&KEY, right));
    }
}
