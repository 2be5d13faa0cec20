//! [`Members`]: which repositories have a blob?

use super::repository_table::OwnerId;
use super::validity::Validity;
use std::ops::{Deref, DerefMut};

/// A repository that has the blob, and the validity of this fact.
#[derive(Debug, Clone, Copy)]
pub(super) struct Membership {
    pub(super) owner: OwnerId,
    pub(super) validity: Validity,
}

/// A slice of memberships. Most blobs are in one repository. Its membership is stored in the entry
/// itself, so that reading it needs no further cache line.
#[derive(Debug, Clone)]
pub(super) enum Members {
    One([Membership; 1]),
    Many(Box<[Membership]>),
}

impl Members {
    /// Returns the number of bytes that the memberships take outside of the entry.
    pub(super) fn heap_size(&self) -> usize {
        match self {
            Self::One(_) => 0,
            Self::Many(members) => size_of_val(&**members),
        }
    }
}

impl Default for Members {
    fn default() -> Self {
        Self::Many(Box::default())
    }
}

impl FromIterator<Membership> for Members {
    fn from_iter<I: IntoIterator<Item = Membership>>(members: I) -> Self {
        let members: Box<[_]> = members.into_iter().collect();
        match *members {
            [one] => Self::One([one]),
            _ => Self::Many(members),
        }
    }
}

impl Deref for Members {
    type Target = [Membership];

    fn deref(&self) -> &[Membership] {
        match self {
            Self::One(one) => one,
            Self::Many(members) => members,
        }
    }
}

impl DerefMut for Members {
    fn deref_mut(&mut self) -> &mut [Membership] {
        match self {
            Self::One(one) => one,
            Self::Many(members) => members,
        }
    }
}
