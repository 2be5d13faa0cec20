//! [`Question`]: the facts that a caller asks for, about one blob.

use super::digest::Digest;
use super::link::{Key, Link, LinkRef, MetaRef};

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

    /// Returns the key of the meta that is asked for.
    pub(crate) fn meta(&self) -> Option<MetaRef<'_>> {
        QuestionRef::from(self).meta()
    }

    /// Returns the keys of the facts that are asked for.
    pub(crate) fn keys(&self) -> Vec<Key> {
        let link = self.link().cloned().map(Key::Link);
        let meta = self.meta().map(|meta| Key::from(meta.to_owned()));
        link.into_iter().chain(meta).collect()
    }
}

impl<'a> QuestionRef<'a> {
    pub(crate) const fn link(self) -> Option<LinkRef<'a>> {
        match self {
            Self::Stat(link) | Self::Own(link) | Self::Link(link) => Some(link),
            Self::Meta(_) => None,
        }
    }

    /// Returns the key of the meta that is asked for.
    pub(crate) const fn meta(self) -> Option<MetaRef<'a>> {
        match self {
            Self::Stat(link) => Some(MetaRef::Shared(link.digest)),
            Self::Own(link) => Some(MetaRef::Own(link)),
            Self::Link(_) => None,
            Self::Meta(digest) => Some(MetaRef::Shared(digest)),
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
