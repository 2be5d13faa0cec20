//! [`Question`]: the facts that a caller asks for, about one blob.

use super::digest::Digest;
use super::link::{Key, KeyRef, Link, LinkRef};
use super::per_key::PerKey;

/// The facts that one call asks for. At most one load runs for each question.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Question {
    /// Membership, and the meta of the blob's object that all repositories share.
    Stat(Link),
    /// Membership, and the meta of the repository's own object.
    Own(Link),
    /// Membership alone.
    Link(Link),
    /// Meta alone.
    Meta(Digest),
}

/// A borrowed [`Question`], for look-ups in memory: most of them need no clone.
#[derive(Debug, Clone, Copy)]
pub(crate) enum QuestionRef<'a> {
    Stat(LinkRef<'a>),
    Own(LinkRef<'a>),
    Link(LinkRef<'a>),
    Meta(&'a Digest),
}

impl Question {
    /// Returns the question for membership and meta. `shares_blobs` says whether repositories share
    /// the content of blobs.
    pub(crate) const fn stat(link: Link, shares_blobs: bool) -> Self {
        match shares_blobs {
            true => Self::Stat(link),
            false => Self::Own(link),
        }
    }

    pub(crate) const fn link(&self) -> Option<&Link> {
        match self {
            Self::Stat(link) | Self::Own(link) | Self::Link(link) => Some(link),
            Self::Meta(_) => None,
        }
    }

    /// Returns the keys of the facts that are asked for. Every [`PerKey`] of this question has their
    /// order.
    pub(crate) fn keys(&self) -> PerKey<Key> {
        QuestionRef::from(self).keys().map(KeyRef::to_owned)
    }
}

impl<'a> QuestionRef<'a> {
    /// Returns the keys of the facts that are asked for, the membership first.
    pub(crate) const fn keys(self) -> PerKey<KeyRef<'a>> {
        match self {
            Self::Stat(link) => PerKey::two(KeyRef::Link(link), KeyRef::Meta(link.digest)),
            Self::Own(link) => PerKey::two(KeyRef::Link(link), KeyRef::Own(link)),
            Self::Link(link) => PerKey::one(KeyRef::Link(link)),
            Self::Meta(digest) => PerKey::one(KeyRef::Meta(digest)),
        }
    }

    /// Returns the digest of the blob that the question is about.
    pub(crate) const fn digest(self) -> &'a Digest {
        match self {
            Self::Stat(link) | Self::Own(link) | Self::Link(link) => link.digest,
            Self::Meta(digest) => digest,
        }
    }

    pub(crate) fn to_owned(self) -> Question {
        match self {
            Self::Stat(link) => Question::Stat(link.to_owned()),
            Self::Own(link) => Question::Own(link.to_owned()),
            Self::Link(link) => Question::Link(link.to_owned()),
            Self::Meta(digest) => Question::Meta(*digest),
        }
    }
}

/// Returns the question that asks for this fact. Membership comes with a repository's own object,
/// because the object's presence is the membership.
impl From<Key> for Question {
    fn from(key: Key) -> Self {
        match key {
            Key::Link(link) => Self::Link(link),
            Key::Meta(digest) => Self::Meta(digest),
            Key::Own(link) => Self::Own(link),
        }
    }
}

impl<'a> From<&'a Question> for QuestionRef<'a> {
    fn from(question: &'a Question) -> Self {
        match question {
            Question::Stat(link) => Self::Stat(link.into()),
            Question::Own(link) => Self::Own(link.into()),
            Question::Link(link) => Self::Link(link.into()),
            Question::Meta(digest) => Self::Meta(digest),
        }
    }
}
