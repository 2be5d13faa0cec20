//! [`SharedTier`]: which operations does the tiered cache need from the tier that nodes share?

use super::Forgotten;
use super::deadline::{Deadline, Patience};
use crate::coherence::change::ChangePolicy;
use crate::coherence::lease::{EndReply, Grant, Token};
use crate::coherence::used_connections::UsedConnections;
use crate::telemetry::metrics::LookupResult;
use crate::types::link::{Key, MetaKey, MetaRef, WireName};
use crate::types::question::{Question, QuestionRef};
use crate::types::{Digest, Error, LayerMeta, Link};
use async_trait::async_trait;
use futures::future::BoxFuture;
use std::fmt::Debug;
use std::time::Duration;

/// The most questions of one round trip. The answer to more questions would take long, and would
/// delay other callers on the same connection.
pub(crate) const MOST_QUESTIONS: usize = 512;

/// Selects repositories by name.
pub(crate) type Which<'a> = dyn Fn(&str) -> bool + Sync + 'a;

/// A tier outside the process. Every operation may fail, and has a bounded duration. Most
/// operations take one round trip for all their keys.
#[async_trait]
pub(crate) trait SharedTier: Debug + Send + Sync {
    /// Returns whether all connections that an operation used are still up. If one is not, the
    /// operation may be lost.
    fn is_up(&self, through: &UsedConnections) -> bool;

    /// As [`is_up`](Self::is_up), and also checks that the servers behind these connections were
    /// still the primaries when this was called.
    ///
    /// # Errors
    /// Fails if the check gets no answer within the deadline.
    async fn stands(&self, through: &UsedConnections, deadline: Deadline) -> Result<bool, Error>;

    /// Returns whether an operation that failed with this error may have been executed, or may
    /// still be executed. Returns `false` if nothing was sent.
    fn may_be_executed(&self, error: &Error) -> bool;

    /// Returns whether the connection broke before an answer came. A server closes a connection
    /// instead of sending an answer that is too large.
    fn has_broken(&self, error: &Error) -> bool;

    /// Returns the facts that the tier has for these questions, [`MOST_QUESTIONS`] at most.
    async fn fetch(&self, questions: &[Question], deadline: Deadline) -> Result<Vec<Found>, Error>;

    /// Asks for a lease for each key. With `steal`, the tier grants it despite an entry or another
    /// lease. While a change of the key is under way, the tier never grants a lease.
    async fn grant(
        &self,
        keys: &[Key],
        token: Token,
        steal: bool,
        deadline: Deadline,
    ) -> Result<Vec<Grant>, Error>;

    /// Stores the facts whose leases the tier still has, for at most `ttl`. Returns the facts that
    /// the tier accepted.
    async fn fill(&self, facts: Facts, leases: Leases, ttl: Duration) -> Result<Facts, Error>;

    /// Stores many facts, each under its own lease and all with this token. Returns for each
    /// element the facts that the tier accepted. Many facts take several round trips.
    async fn fill_all(
        &self,
        facts: Vec<Facts>,
        token: Token,
        ttl: Duration,
    ) -> Result<Vec<Facts>, Error>;

    /// Gives back leases that were not used.
    async fn release(&self, keys: &[Key], token: Token) -> Result<(), Error>;

    /// Removes entries and leases, and puts up a fence on each key. While a fence stands, the tier
    /// grants no lease. With `take_lease`, the change itself takes the leases, to fill the link
    /// that it writes.
    async fn begin(
        &self,
        keys: &[Key],
        token: Token,
        take_lease: bool,
        deadline: Deadline,
    ) -> Result<UsedConnections, Error>;

    /// Renews the fences of a change, so that they stand for another fence TTL.
    async fn renew(&self, keys: &[Key], token: Token) -> Result<(), Error>;

    /// Renews fences, so that they stand for at least this time. Returns whether all of them still
    /// stood.
    async fn renew_for(&self, keys: &[Key], token: Token, time: Duration) -> Result<bool, Error>;

    /// Removes entries, leases and this change's fences. Stores the written link, unless another
    /// change of its key came after this change began.
    async fn end(
        &self,
        keys: &[Key],
        token: Token,
        written: Option<&Link>,
        ttl: Duration,
        deadline: Deadline,
    ) -> Result<(EndReply, UsedConnections), Error>;

    /// Removes entries and leases, and leaves no fence.
    async fn invalidate(&self, keys: &[Key], deadline: Deadline) -> Result<UsedConnections, Error>;

    /// Removes the entries and leases of keys that the backend has denied. Returns for each key
    /// whether it had an entry.
    async fn deny(&self, keys: &[Key], deadline: Deadline) -> Result<Vec<bool>, Error>;

    /// Tells all other nodes to forget these keys, and does not wait for them.
    async fn notify(&self, keys: &[Key], deadline: Deadline) -> Result<(), Error>;

    /// Tells all other nodes to forget these keys. The returned future is ready when no other node
    /// can answer with an older value: each node has acknowledged the message or has lost its
    /// trust.
    async fn publish(
        &self,
        keys: &[Key],
        deadline: Deadline,
    ) -> Result<BoxFuture<'static, ()>, Error>;

    /// Removes all leases, then all entries, and tells all other nodes to forget everything.
    /// Returns when no other node can answer with an older value.
    async fn purge(&self) -> Result<(), Error>;

    /// Removes the memberships of the selected repositories from this tier, and the metas of their
    /// own objects. Tells all other nodes to forget everything, and waits for them as
    /// [`purge`](Self::purge) does.
    async fn purge_repositories(&self, which: &Which<'_>) -> Result<Forgotten, Error>;

    /// Removes this node from the peer set, so that the other nodes no longer wait for it. The tier
    /// cannot be asked afterwards.
    async fn shutdown(&self);
}

/// How the tiered cache uses the shared tier.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SharedSettings {
    pub(crate) ttl: Duration,
    /// How long a fence stands after its last renewal.
    pub(crate) fence_ttl: Duration,
    pub(crate) policy: ChangePolicy,
    /// How long one read may wait for the tier, in all its operations together.
    pub(crate) timeout: Duration,
    /// How long one change may wait for the tier, in all its operations together.
    pub(crate) change_timeout: Duration,
    /// How long a node trusts its memory after it has sent a heartbeat. After this time, each node
    /// has applied a change that was published before, or no longer trusts its memory.
    pub(crate) trust_timeout: Duration,
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

/// The leases under which the facts of a question may be stored in the shared tier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Leases {
    pub(crate) member: Option<Token>,
    pub(crate) meta: Option<Token>,
}

/// The facts that a tier has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) member: Option<Member>,
    pub(crate) meta: Option<LayerMeta>,
}

/// A membership, and the metadata of the object whose presence is the membership, if it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) object: Option<LayerMeta>,
}

/// The keys of facts, each by its [`WireName`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyNames {
    pub(crate) member: Option<u64>,
    pub(crate) meta: Option<u64>,
}

impl KeyNames {
    /// Returns the names of the keys that have a lease.
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
    /// Returns the keys of the facts that are not in `found` and have no lease.
    pub(crate) fn missing(&self, found: &Found, leases: Leases) -> Vec<Key> {
        let is_missing = |key: &Key| !found.has(key) && leases.of_key(key).is_none();
        self.keys().into_iter().filter(is_missing).collect()
    }
}

impl Leases {
    /// Stores the token of each key whose lease was granted.
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

    /// Returns whether these are all facts that `question` asks for.
    pub(crate) fn is_whole<'a>(&self, question: impl Into<QuestionRef<'a>>) -> bool {
        match question.into() {
            QuestionRef::Stat(_) | QuestionRef::Own(_) => {
                self.member.is_some() && self.meta.is_some()
            }
            QuestionRef::Link(_) => self.member.is_some(),
            QuestionRef::Meta(_) => self.meta.is_some(),
        }
    }

    /// Returns which facts `question` asks for, and whether each is found, for the metrics.
    pub(crate) fn lookup_result<'a>(&self, question: impl Into<QuestionRef<'a>>) -> LookupResult {
        let question = question.into();
        LookupResult {
            membership: question.link().map(|_| self.member.is_some()),
            meta: question.meta().map(|_| self.meta.is_some()),
        }
    }

    /// Returns these facts together with their keys.
    pub(crate) fn of(self, question: &Question) -> Facts {
        Facts {
            member: question.link().cloned().zip(self.member),
            meta: question.meta().map(MetaRef::to_owned).zip(self.meta),
        }
    }

    /// Adds the facts of `other` that are missing here.
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

    /// Returns the names of the facts' keys, without cloning the keys.
    pub(crate) fn names(&self) -> KeyNames {
        KeyNames {
            member: self.member.as_ref().map(|(link, _)| link.wire_name()),
            meta: self.meta.as_ref().map(|(key, _)| key.wire_name()),
        }
    }

    /// Returns the keys of the facts.
    pub(crate) fn keys(&self) -> impl Iterator<Item = Key> {
        let link = self
            .member
            .as_ref()
            .map(|(link, _)| Key::Link(link.clone()));
        let meta = self.meta.as_ref().map(|(key, _)| key.clone().into());
        link.into_iter().chain(meta)
    }
}

/// Returns whether a blob with this digest can have this length: length 0 belongs to the empty blob
/// and to no other. A backend that is asked while an object is being written may answer otherwise.
/// The cache must not keep such an answer.
pub(crate) fn is_plausible(digest: &Digest, meta: &LayerMeta) -> bool {
    (meta.length() == 0) == digest.is_of_nothing()
}
