//! The tier that nodes share: what the tiered cache asks of Redis.

use super::Forgotten;
use super::deadline::{Deadline, Patience};
use crate::coherence::change::ChangePolicy;
use crate::coherence::lease::{Ended, Grant, Token};
use crate::coherence::through::Through;
use crate::link::{Key, LinkRef, MetaKey, MetaRef, WireName};
use crate::metrics::Asked;
use crate::{Digest, Error, LayerMeta, Link};
use async_trait::async_trait;
use futures::future::BoxFuture;
use std::fmt::Debug;
use std::time::Duration;

/// The most questions of a round trip: an answer to more would be long in coming, and would keep others
/// waiting on the same connection.
pub(crate) const MOST_QUESTIONS: usize = 512;

/// Whether a repository is meant.
pub(crate) type Which<'a> = dyn Fn(&str) -> bool + Sync + 'a;

/// A tier outside the process. All of it may fail; every call is bounded in time, and is one round
/// trip for all that it is asked.
#[async_trait]
pub(crate) trait SharedTier: Debug + Send + Sync {
    /// Whether the connections are up that an operation went through. What went through one that is not
    /// may be lost.
    fn is_up(&self, through: &Through) -> bool;

    /// The same, and whether the servers behind them were the primaries still when this was called.
    ///
    /// # Errors
    /// Where nobody says it within the deadline.
    async fn stands(&self, through: &Through, deadline: Deadline) -> Result<bool, Error>;

    /// Whether an operation that failed with this error may have been executed, or may be later: not
    /// where nothing was sent.
    fn may_be_executed(&self, error: &Error) -> bool;

    /// Whether the connection broke before there was an answer. A server cuts a connection rather than
    /// send an answer that is too large.
    fn has_broken(&self, error: &Error) -> bool;

    /// What is known of these questions, [`MOST_QUESTIONS`] at most.
    async fn look_up(
        &self,
        questions: &[Question],
        deadline: Deadline,
    ) -> Result<Vec<Found>, Error>;

    /// Asks for leases to fill, key by key. With `steal`, what is there or somebody else's lease is
    /// no obstacle; a change that is under way always is.
    async fn grant(
        &self,
        keys: &[Key],
        token: Token,
        steal: bool,
        deadline: Deadline,
    ) -> Result<Vec<Grant>, Error>;

    /// Fills what it still has a lease for, for at most `ttl`; says which facts were accepted.
    async fn fill(&self, facts: Facts, leases: Leases, ttl: Duration) -> Result<Facts, Error>;

    /// Fills all of these under one lease each, all with this token; says of each which facts were
    /// accepted. Not one round trip but several, if they are many.
    async fn fill_all(
        &self,
        facts: Vec<Facts>,
        token: Token,
        ttl: Duration,
    ) -> Result<Vec<Facts>, Error>;

    /// Gives leases back that were not used.
    async fn release(&self, keys: &[Key], token: Token) -> Result<(), Error>;

    /// Takes entries and leases away, and puts up a fence: while it stands no lease is granted. A
    /// change that will fill what it writes takes the lease for it.
    async fn begin(
        &self,
        keys: &[Key],
        token: Token,
        take_lease: bool,
        deadline: Deadline,
    ) -> Result<Through, Error>;

    /// Keeps the fences of a change standing.
    async fn renew(&self, keys: &[Key], token: Token) -> Result<(), Error>;

    /// Keeps fences standing for this time; says whether all of them still stood.
    async fn renew_for(&self, keys: &[Key], token: Token, time: Duration) -> Result<bool, Error>;

    /// Takes entries, leases and this change's fences away, and fills what it has written if nobody
    /// else has changed it since it began.
    async fn end(
        &self,
        keys: &[Key],
        token: Token,
        written: Option<&Link>,
        ttl: Duration,
        deadline: Deadline,
    ) -> Result<(Ended, Through), Error>;

    /// Takes entries and leases away, without a fence.
    async fn withdraw(&self, keys: &[Key], deadline: Deadline) -> Result<Through, Error>;

    /// Takes entries and leases away of what the backend has denied, and says which entries there were.
    async fn deny(&self, keys: &[Key], deadline: Deadline) -> Result<Vec<bool>, Error>;

    /// Tells all other nodes to forget these keys, and waits for nobody.
    async fn mention(&self, keys: &[Key], deadline: Deadline) -> Result<(), Error>;

    /// Tells all other nodes to forget these keys. What it returns is over when none of them can
    /// answer from before: they have said so, or have lost their trust.
    async fn publish(
        &self,
        keys: &[Key],
        deadline: Deadline,
    ) -> Result<BoxFuture<'static, ()>, Error>;

    /// Takes all leases away, then all entries, and tells all other nodes to forget everything;
    /// returns when none of them can answer from before.
    async fn purge(&self) -> Result<(), Error>;

    /// The same for the memberships of some repositories alone, in this tier; all other nodes forget
    /// everything.
    async fn purge_repositories(&self, which: &Which<'_>) -> Result<Forgotten, Error>;

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
    /// How long all that one read asks of the tier may take.
    pub(crate) timeout: Duration,
    /// How long all that one change asks of it may take.
    pub(crate) change_timeout: Duration,
    /// How long after it was told a change has been heard of, by those who still trust their memory.
    pub(crate) trust: Duration,
}

impl SharedSettings {
    pub(crate) fn read_deadline(&self) -> Deadline {
        Deadline::new(self.timeout, Patience::Read)
    }

    pub(crate) fn creation_deadline(&self) -> Deadline {
        Deadline::new(self.change_timeout, Patience::Creation)
    }

    pub(crate) fn removal_deadline(&self) -> Deadline {
        Deadline::new(self.change_timeout, Patience::Removal)
    }
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
    /// Membership, and the meta of the blob that all repositories share.
    Stat(Link),
    /// Membership, and the meta of the repository's own object.
    Own(Link),
    /// Membership alone.
    Link(Link),
    /// Meta alone.
    Meta(Digest),
}

/// A [`Question`], asked of memory: most of them need nothing of their own.
#[derive(Debug, Clone, Copy)]
pub(crate) enum QuestionRef<'a> {
    Stat(LinkRef<'a>),
    Own(LinkRef<'a>),
    Link(LinkRef<'a>),
    Meta(&'a Digest),
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

/// What facts are about, each by its [`WireName`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names {
    pub(crate) member: Option<u64>,
    pub(crate) meta: Option<u64>,
}

impl Names {
    /// Those that there is a lease for.
    pub(crate) fn leased(self, leases: Leases) -> Self {
        Self {
            member: self.member.filter(|_| leases.member.is_some()),
            meta: self.meta.filter(|_| leases.meta.is_some()),
        }
    }

    pub(crate) fn count(self) -> u64 {
        u64::from(self.member.is_some()) + u64::from(self.meta.is_some())
    }
}

/// Positive facts that a backend has confirmed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) member: Option<(Link, Member)>,
    pub(crate) meta: Option<(MetaKey, LayerMeta)>,
}

impl Question {
    /// Membership and meta, where repositories share the content of blobs or do not.
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

    /// Whose meta is asked for.
    pub(crate) fn meta(&self) -> Option<MetaRef<'_>> {
        QuestionRef::from(self).meta()
    }

    /// The keys of the facts that are asked for.
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

    /// Whose meta is asked for.
    pub(crate) const fn meta(self) -> Option<MetaRef<'a>> {
        match self {
            Self::Stat(link) => Some(MetaRef::Shared(link.digest)),
            Self::Own(link) => Some(MetaRef::Own(link)),
            Self::Link(_) => None,
            Self::Meta(digest) => Some(MetaRef::Shared(digest)),
        }
    }

    /// The blob that the question is about.
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

impl Question {
    /// The keys of the facts that neither are in `found` nor have a lease.
    pub(crate) fn missing(&self, found: &Found, leases: Leases) -> Vec<Key> {
        let is_missing = |key: &Key| !found.has(key) && leases.of_key(key).is_none();
        self.keys().into_iter().filter(is_missing).collect()
    }
}

impl Leases {
    /// Notes which of these keys were granted.
    pub(crate) fn take(&mut self, keys: &[Key], grants: &[Grant], token: Token) {
        let granted = keys.iter().zip(grants);
        for (key, _) in granted.filter(|(_, grant)| **grant == Grant::Granted) {
            match key {
                Key::Link(_) => self.member = Some(token),
                Key::Meta(_) | Key::Own(_) => self.meta = Some(token),
            }
        }
    }

    pub(crate) const fn of_key(self, key: &Key) -> Option<Token> {
        match key {
            Key::Link(_) => self.member,
            Key::Meta(_) | Key::Own(_) => self.meta,
        }
    }
}

impl Found {
    pub(crate) const fn has(&self, key: &Key) -> bool {
        match key {
            Key::Link(_) => self.member.is_some(),
            Key::Meta(_) | Key::Own(_) => self.meta.is_some(),
        }
    }

    /// Whether nothing that `question` asks for is missing.
    pub(crate) fn is_whole<'a>(&self, question: impl Into<QuestionRef<'a>>) -> bool {
        match question.into() {
            QuestionRef::Stat(_) | QuestionRef::Own(_) => {
                self.member.is_some() && self.meta.is_some()
            }
            QuestionRef::Link(_) => self.member.is_some(),
            QuestionRef::Meta(_) => self.meta.is_some(),
        }
    }

    /// What of `question` this answers, to be counted.
    pub(crate) fn asked<'a>(&self, question: impl Into<QuestionRef<'a>>) -> Asked {
        let question = question.into();
        Asked {
            membership: question.link().map(|_| self.member.is_some()),
            meta: question.meta().map(|_| self.meta.is_some()),
        }
    }

    /// The same as facts, which say of what.
    pub(crate) fn of(self, question: &Question) -> Facts {
        Facts {
            member: question.link().cloned().zip(self.member),
            meta: question.meta().map(MetaRef::to_owned).zip(self.meta),
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

    /// What they are about, for one who needs no keys.
    pub(crate) fn names(&self) -> Names {
        Names {
            member: self.member.as_ref().map(|(link, _)| link.wire_name()),
            meta: self.meta.as_ref().map(|(key, _)| key.wire_name()),
        }
    }

    /// What they are about.
    pub(crate) fn keys(&self) -> impl Iterator<Item = Key> {
        let link = self
            .member
            .as_ref()
            .map(|(link, _)| Key::Link(link.clone()));
        let meta = self.meta.as_ref().map(|(key, _)| key.clone().into());
        link.into_iter().chain(meta)
    }
}

/// Whether `meta` can be of that blob: only the empty blob has length 0. A backend that is asked
/// while an object is being written may say otherwise, and must not be believed for long.
pub(crate) fn is_plausible(digest: &Digest, meta: &LayerMeta) -> bool {
    (meta.length() == 0) == digest.is_of_nothing()
}
