//! [`Names`]: repositories by number.

use crate::{Link, LinkKind, RepositoryName};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// The most names of one table.
const MOST: usize = 1 << 16;

/// A table of the repositories, and kinds of membership, that entries speak of. It only grows; one
/// that is full is replaced by an empty one, and ends with the last entry that uses it.
///
/// Numbers are read without a lock.
#[derive(Debug, Default)]
pub(super) struct Names {
    owners: boxcar::Vec<Owner>,
    numbers: Mutex<HashMap<Owner, Number>>,
}

/// What a membership is in.
pub(super) type Owner = (RepositoryName, LinkKind);

/// An owner's number in its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number(u32);

impl Names {
    pub(super) fn is_full(&self) -> bool {
        self.owners.count() >= MOST
    }

    /// Whose number this is.
    pub(super) fn owner(&self, number: Number) -> Option<&Owner> {
        self.owners.get(number.0 as usize)
    }

    /// The number of a link's owner, whose name is kept if it has none yet. `None` if there is no
    /// room for it.
    pub(super) fn number(&self, link: &Link) -> Option<Number> {
        self.number_of(&(link.repository.clone(), link.kind))
    }

    pub(super) fn number_of(&self, owner: &Owner) -> Option<Number> {
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = numbers.get(owner) {
            return Some(*number);
        }
        // Some more than at which it is replaced: those who have it already may go on.
        if self.owners.count() >= 2 * MOST {
            return None;
        }
        let number = Number(self.owners.push(owner.clone()).try_into().ok()?);
        numbers.insert(owner.clone(), number);
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;

    #[test]
    fn a_name_has_one_number_and_a_table_has_an_end() {
        let names = Names::default();
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
