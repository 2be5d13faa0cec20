//! The tier that nodes share: what the tiered cache asks of Redis.

use crate::coherence::change::ChangePolicy;
use crate::coherence::lease::{Ended, Grant, Token};
use crate::link::Key;
use crate::metrics::Asked;
use crate::{Digest, Error, LayerMeta, Link};
use async_trait::async_trait;
use futures::future::BoxFuture;
use std::fmt::Debug;
use std::time::Duration;

/// A tier outside the process. All of it may fail; every call is bounded in time, and is one round
/// trip for all that it is asked.
#[async_trait]
pub(crate) trait SharedTier: Debug + Send + Sync {
    /// Which connection is up. What went through another may have been lost with it.
    fn session(&self) -> u64;

    /// What is known of these questions.
    async fn look_up(&self, questions: &[Question]) -> Result<Vec<Found>, Error>;

    /// Asks for leases to fill, key by key. With `steal`, what is there or somebody else's lease is
    /// no obstacle; a change that is under way always is.
    async fn grant(&self, keys: &[Key], token: Token, steal: bool) -> Result<Vec<Grant>, Error>;

    /// Fills what it still has a lease for, for at most `ttl`; says which facts were accepted.
    async fn fill(&self, facts: Facts, leases: Leases, ttl: Duration) -> Result<Facts, Error>;

    /// Gives leases back that were not used.
    async fn release(&self, keys: &[Key], token: Token) -> Result<(), Error>;

    /// Takes entries and leases away, and puts up a fence: while it stands no lease is granted. A
    /// change that will fill what it writes takes the lease for it.
    async fn begin(&self, keys: &[Key], token: Token, take_lease: bool) -> Result<(), Error>;

    /// Keeps the fences of a change standing.
    async fn renew(&self, keys: &[Key], token: Token) -> Result<(), Error>;

    /// Takes entries, leases and this change's fences away, and fills what it has written if nobody
    /// else has changed it since it began.
    async fn end(
        &self,
        keys: &[Key],
        token: Token,
        written: Option<&Link>,
        ttl: Duration,
    ) -> Result<Ended, Error>;

    /// Takes entries and leases away, without a fence.
    async fn withdraw(&self, keys: &[Key]) -> Result<(), Error>;

    /// Tells all other nodes to forget these keys, and waits for nobody.
    async fn mention(&self, keys: &[Key]) -> Result<(), Error>;

    /// Tells all other nodes to forget these keys. What it returns is over when none of them can
    /// answer from before: they have said so, or have lost their trust.
    async fn publish(&self, keys: &[Key]) -> Result<BoxFuture<'static, ()>, Error>;

    /// Takes all leases away, then all entries, and tells all other nodes to forget everything;
    /// returns when none of them can answer from before.
    async fn purge(&self) -> Result<(), Error>;

    /// Leaves the other nodes for good: they wait for this one no more. Nothing can be asked after.
    async fn leave(&self);
}

/// How the tiers treat the shared one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SharedSettings {
    pub(crate) ttl: Duration,
    /// How long a fence stands after its last renewal.
    pub(crate) fence: Duration,
    pub(crate) policy: ChangePolicy,
}

/// Which facts may be filled in the shared tier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Leases {
    pub(crate) member: Option<Token>,
    pub(crate) meta: Option<Token>,
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

impl Question {
    /// The keys of the facts that neither are in `found` nor have a lease.
    pub(crate) fn missing(&self, found: &Found, leases: Leases) -> Vec<Key> {
        let is_missing = |key: &Key| !found.has(key) && leases.of_key(key).is_none();
        self.keys().into_iter().filter(is_missing).collect()
    }
}

impl Leases {
    /// All that a question may need, with one token.
    pub(crate) fn of_all(question: &Question, token: Token) -> Self {
        Self {
            member: question.link().map(|_| token),
            meta: question.meta().map(|_| token),
        }
    }

    /// Notes which of these keys were granted.
    pub(crate) fn take(&mut self, keys: &[Key], grants: &[Grant], token: Token) {
        let granted = keys.iter().zip(grants);
        for (key, _) in granted.filter(|(_, grant)| **grant == Grant::Granted) {
            match key {
                Key::Link(_) => self.member = Some(token),
                Key::Meta(_) => self.meta = Some(token),
            }
        }
    }

    pub(crate) const fn of_key(self, key: &Key) -> Option<Token> {
        match key {
            Key::Link(_) => self.member,
            Key::Meta(_) => self.meta,
        }
    }
}

impl Found {
    pub(crate) const fn has(&self, key: &Key) -> bool {
        match key {
            Key::Link(_) => self.member.is_some(),
            Key::Meta(_) => self.meta.is_some(),
        }
    }

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
    pub(crate) const fn is_empty(&self) -> bool {
        self.member.is_none() && self.meta.is_none()
    }
}

/// Whether `meta` can be of that blob: only the empty blob has length 0. A backend that is asked
/// while an object is being written may say otherwise, and must not be believed for long.
pub(crate) fn is_plausible(digest: &Digest, meta: &LayerMeta) -> bool {
    (meta.length() == 0) == digest.is_of_nothing()
}
