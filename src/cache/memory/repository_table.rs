//! [`RepositoryTable`]: which repository has which number in the entries of memory?

use crate::types::{Link, LinkKind, RepositoryName};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// The number of owners at which a table is full, so that memory starts a new one.
const MOST: usize = 1 << 16;

/// The repositories and kinds of membership that entries refer to, by number. A table only grows.
/// Memory replaces a full table by an empty one, and the full one is freed with the last entry that
/// uses it.
///
/// Looking up an owner by its number takes no lock.
#[derive(Debug)]
pub(super) struct RepositoryTable {
    /// The name space whose entries use this table.
    space: SpaceNumber,
    /// The owners by number, in chunks of [`CHUNK`]. A chunk is allocated for its first owner.
    owners: [OnceLock<Box<[OnceLock<Owner>]>>; CHUNKS],
    count: AtomicUsize,
    numbers: Mutex<HashMap<Owner, OwnerId>>,
}

/// The most owners of a table: twice the number at which memory replaces it. Updates that took the
/// table before may still add owners to it.
const MOST_OWNERS: usize = 2 * MOST;

const CHUNK: usize = 1 << 10;
const CHUNKS: usize = MOST_OWNERS / CHUNK;

/// A repository and the kind of a membership in it.
pub(super) type Owner = (RepositoryName, LinkKind);

/// The number of a name space in memory. No two name spaces of the process have the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SpaceNumber(u64);

impl SpaceNumber {
    /// Returns a number that no name space has had before.
    pub(super) fn fresh() -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        Self(NUMBERS.fetch_add(1, Ordering::Relaxed))
    }

    /// Returns the number that is mixed into the tags of the name space's entries. Each name space
    /// has another one, because the factor is odd.
    pub(super) const fn salt(self) -> u64 {
        self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// The number of an owner in its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OwnerId(u32);

impl RepositoryTable {
    pub(super) fn new(space: SpaceNumber) -> Self {
        Self {
            space,
            owners: [const { OnceLock::new() }; CHUNKS],
            count: AtomicUsize::new(0),
            numbers: Mutex::default(),
        }
    }

    pub(super) const fn space(&self) -> SpaceNumber {
        self.space
    }

    pub(super) fn is_full(&self) -> bool {
        self.count.load(Ordering::Relaxed) >= MOST
    }

    /// Returns the owner with this number.
    pub(super) fn owner(&self, number: OwnerId) -> Option<&Owner> {
        let number = number.0 as usize;
        let chunk = self.owners.get(number / CHUNK)?.get()?;
        chunk.get(number % CHUNK)?.get()
    }

    /// Returns the number of a link's owner, and adds the owner if it has no number yet. Returns
    /// `None` if the table has no room for it.
    pub(super) fn number(&self, link: &Link) -> Option<OwnerId> {
        self.number_of(&(link.repository.clone(), link.kind))
    }

    pub(super) fn number_of(&self, owner: &Owner) -> Option<OwnerId> {
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = numbers.get(owner) {
            return Some(*number);
        }
        // Only the holder of the lock adds owners.
        let count = numbers.len();
        let chunk = self.owners.get(count / CHUNK)?;
        let chunk = chunk.get_or_init(|| (0..CHUNK).map(|_| OnceLock::new()).collect());
        let stored = chunk[count % CHUNK].get_or_init(|| owner.clone());
        // A panic before the insertion below would have left another owner here.
        if stored != owner {
            return None;
        }
        let number = OwnerId(count.try_into().ok()?);
        numbers.insert(owner.clone(), number);
        self.count.store(numbers.len(), Ordering::Relaxed);
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Digest;

    #[test]
    fn a_name_has_one_number_and_a_table_has_an_end() {
        let names = RepositoryTable::new(SpaceNumber::fresh());
        let link = |i: usize| {
            let name = format!("r{i}").parse().unwrap();
            Link::layer(name, Digest::Sha256([1; 32]))
        };
        for i in 0..MOST {
            assert!(!names.is_full());
            let number = names.number(&link(i)).unwrap();
            assert_eq!(names.number(&link(i)), Some(number));
            let (name, kind) = names.owner(number).unwrap();
            assert_eq!((name, *kind), (&link(i).repository, LinkKind::Layer));
        }
        assert!(names.is_full());
        for i in MOST..2 * MOST {
            assert!(names.number(&link(i)).is_some());
        }
        assert_eq!(names.number(&link(2 * MOST)), None);
        assert!(names.number(&link(0)).is_some(), "it was there before");
    }
}
