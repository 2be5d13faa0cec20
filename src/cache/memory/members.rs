//! [`Members`]: the memberships of one blob.

use super::label::Label;
use super::names::Number;
use std::ops::{Deref, DerefMut};

/// A repository that has the blob.
#[derive(Debug, Clone, Copy)]
pub(super) struct Membership {
    pub(super) owner: Number,
    pub(super) label: Label,
}

/// A slice of them. Most blobs are in one repository: its membership stands in the entry itself, where
/// reading it costs no cache line more.
#[derive(Debug, Clone)]
pub(super) enum Members {
    One([Membership; 1]),
    Many(Box<[Membership]>),
}

impl Members {
    /// The bytes that they take beside the entry.
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
