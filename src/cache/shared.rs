//! The tier that nodes share: what the tiered cache asks of Redis.

use crate::link::Key;
use crate::metrics::Asked;
use crate::{Digest, Error, LayerMeta, Link};
use async_trait::async_trait;
use std::fmt::Debug;
use std::time::Duration;

/// A tier outside the process. All of it may fail; every call is bounded in time.
///
/// The lease that a fill needs, and the fence around a change, are verbs of this trait when they
/// come: `fill` takes the lease's token then, and `withdraw` becomes the two ends of a bracket.
#[async_trait]
pub(crate) trait SharedTier: Debug + Send + Sync {
    /// What is known of these questions, in one round trip for all of them.
    async fn look_up(&self, questions: &[Question]) -> Result<Vec<Found>, Error>;

    /// Remembers facts, for at most `ttl`.
    async fn fill(&self, facts: &Facts, ttl: Duration) -> Result<(), Error>;

    /// Takes facts away, in one round trip for all of them.
    async fn withdraw(&self, keys: &[Key]) -> Result<(), Error>;
}

/// What is asked, as one: a question has one load at a time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Question {
    /// Membership and meta.
    Stat(Link),
    /// Membership alone.
    Link(Link),
    /// Meta alone.
    Meta(Digest),
}

/// What a tier knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) member: Option<Member>,
    pub(crate) meta: Option<LayerMeta>,
}

/// A membership, and what is known of the object whose presence it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) object: Option<LayerMeta>,
}

/// Positive facts that a backend has confirmed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) member: Option<(Link, Member)>,
    pub(crate) meta: Option<(Digest, LayerMeta)>,
}

impl Question {
    pub(crate) const fn link(&self) -> Option<&Link> {
        match self {
            Self::Stat(link) | Self::Link(link) => Some(link),
            Self::Meta(_) => None,
        }
    }

    /// The blob whose meta is asked for.
    pub(crate) const fn meta(&self) -> Option<&Digest> {
        match self {
            Self::Stat(link) => Some(&link.digest),
            Self::Link(_) => None,
            Self::Meta(digest) => Some(digest),
        }
    }

    /// The keys of the facts that are asked for.
    pub(crate) fn keys(&self) -> Vec<Key> {
        let link = self.link().cloned().map(Key::Link);
        let meta = self.meta().copied().map(Key::Meta);
        link.into_iter().chain(meta).collect()
    }
}

impl Found {
    /// Whether nothing that `question` asks for is missing. Where repositories share no content,
    /// the object that is the membership is the blob.
    pub(crate) fn answers(&self, question: &Question, shares_blobs: bool) -> bool {
        match (question, &self.member) {
            (Question::Stat(_), Some(_)) if shares_blobs => self.meta.is_some(),
            (Question::Stat(_), Some(member)) => member.object.is_some(),
            (Question::Link(_), Some(_)) => true,
            (Question::Meta(_), _) => self.meta.is_some(),
            (_, None) => false,
        }
    }

    /// What of `question` this answers, to be counted.
    pub(crate) fn asked(&self, question: &Question) -> Asked {
        Asked {
            membership: question.link().map(|_| self.member.is_some()),
            meta: question.meta().map(|_| self.meta.is_some()),
        }
    }

    /// The same as facts, which say of what.
    pub(crate) fn of(self, question: &Question) -> Facts {
        Facts {
            member: question.link().cloned().zip(self.member),
            meta: question.meta().copied().zip(self.meta),
        }
    }

    /// This, and what `other` knows besides.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            member: self.member.or(other.member),
            meta: self.meta.or(other.meta),
        }
    }
}

impl Facts {
    /// The one blob that all the facts are about.
    pub(crate) fn digest(&self) -> Option<&Digest> {
        let member = self.member.as_ref().map(|(link, _)| &link.digest);
        member.or(self.meta.as_ref().map(|(digest, _)| digest))
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.member.is_none() && self.meta.is_none()
    }
}

/// Whether `meta` can be of that blob: only the empty blob has length 0. A backend that is asked
/// while an object is being written may say otherwise, and must not be believed for long.
pub(crate) fn is_plausible(digest: &Digest, meta: &LayerMeta) -> bool {
    (meta.length() == 0) == digest.is_of_nothing()
}
