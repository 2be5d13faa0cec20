//! [`SharedTier`]: which operations does the tiered cache need from the tier that nodes share?

use super::Forgotten;
use super::deadline::{Deadline, Patience};
use super::storage::Storage;
use crate::coherence::change::ChangePolicy;
use crate::coherence::lease::{EndReply, Grant, Token};
use crate::coherence::used_connections::UsedConnections;
use crate::telemetry::metrics::LookupResult;
use crate::types::link::{Key, KeyKind, WireName};
use crate::types::namespace::Namespace;
use crate::types::per_key::PerKey;
use crate::types::question::{Question, QuestionRef};
use crate::types::{Digest, Error, LayerMeta, Link};
use async_trait::async_trait;
use futures::future::BoxFuture;
use std::fmt::Debug;
use std::sync::Arc;
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

    /// Renews fences, so that they stand for at least this time. Returns whether all of them still
    /// stood.
    async fn renew(
        &self,
        keys: &[Key],
        token: Token,
        time: Duration,
        deadline: Deadline,
    ) -> Result<bool, Error>;

    /// Removes entries, leases and this change's fences. Stores the written fact, unless another
    /// change of its key came after this change began.
    async fn end(
        &self,
        keys: &[Key],
        token: Token,
        written: Option<&Fact>,
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

    /// Returns the tier of one name space: its facts are separate from all others. It is the same
    /// node, and uses the same connections. While the name space has the facts of another storage,
    /// all operations of the returned tier fail, and none is sent.
    ///
    /// The names in messages to other nodes stay the same in all name spaces. A change in one name
    /// space may therefore cost another one a miss.
    fn in_namespace(&self, name: &Namespace, storage: Option<&Storage>) -> Arc<dyn SharedTier>;
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
pub(crate) type Leases = PerKey<Token>;

/// The values that a tier has for the keys of a question.
pub(crate) type Found = PerKey<Value>;

/// Positive facts that a backend has confirmed.
pub(crate) type Facts = PerKey<Fact>;

/// The value of a cached fact. Each [`KeyKind`] has one variant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// A membership, and the metadata of the object whose presence is the membership, if it is
    /// known.
    Member {
        object: Option<LayerMeta>,
    },
    Meta(LayerMeta),
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fact {
    pub(crate) key: Key,
    pub(crate) value: Value,
}

impl Value {
    /// A membership whose object is not known.
    pub(crate) const MEMBER: Self = Self::Member { object: None };

    const fn kind(&self) -> KeyKind {
        match self {
            Self::Member { .. } => KeyKind::Membership,
            Self::Meta(_) => KeyKind::Meta,
        }
    }
}

impl Fact {
    pub(crate) const fn member(link: Link) -> Self {
        Self {
            key: Key::Link(link),
            value: Value::MEMBER,
        }
    }

    pub(crate) const fn meta(digest: Digest, meta: LayerMeta) -> Self {
        Self {
            key: Key::Meta(digest),
            value: Value::Meta(meta),
        }
    }

    /// Returns whether the key can have this value. See [`is_plausible`].
    pub(crate) fn is_plausible(&self) -> bool {
        match &self.value {
            Value::Member { .. } => true,
            Value::Meta(meta) => is_plausible(self.key.digest(), meta),
        }
    }
}

impl Question {
    /// Returns the keys of the facts that are not in `found` and have no lease.
    pub(crate) fn missing(&self, found: &Found, leases: Leases) -> Vec<Key> {
        let keys = self.keys().with(found.as_ref()).with(leases);
        let missing = keys.filter_map(|((key, value), lease)| match (value, lease) {
            (None, None) => Some(key),
            _ => None,
        });
        missing.into_iter().collect()
    }
}

impl Found {
    pub(crate) fn has(&self, kind: KeyKind) -> bool {
        self.any(|value| value.kind() == kind)
    }

    pub(crate) fn is_member(&self) -> bool {
        self.has(KeyKind::Membership)
    }

    /// Returns the object of the membership: `Some(None)` if only the membership is known.
    pub(crate) fn object(self) -> Option<Option<LayerMeta>> {
        self.find_map(|value| match value {
            Value::Member { object } => Some(object),
            Value::Meta(_) => None,
        })
    }

    pub(crate) fn meta(self) -> Option<LayerMeta> {
        self.find_map(|value| match value {
            Value::Meta(meta) => Some(meta),
            Value::Member { .. } => None,
        })
    }

    /// Returns the metadata if the blob is a member. Membership alone decides access.
    pub(crate) fn meta_if_member(self) -> Option<LayerMeta> {
        if self.is_member() { self.meta() } else { None }
    }

    /// Returns these values without the objects of memberships, which take ten times the memory of
    /// the memberships.
    pub(crate) fn without_objects(self) -> Self {
        self.map(|value| match value {
            Value::Member { .. } => Value::MEMBER,
            value @ Value::Meta(_) => value,
        })
    }

    /// Returns whether these are all facts that `question` asks for.
    pub(crate) fn is_whole<'a>(&self, question: impl Into<QuestionRef<'a>>) -> bool {
        self.count() == question.into().keys().count()
    }

    /// Returns which facts `question` asks for, and whether each is found, for the metrics.
    pub(crate) fn lookup_result<'a>(&self, question: impl Into<QuestionRef<'a>>) -> LookupResult {
        let keys = question.into().keys().with(self.as_ref());
        keys.map(|(key, value)| (key.kind(), value.is_some()))
    }

    /// Returns these values together with their keys.
    pub(crate) fn of(self, question: &Question) -> Facts {
        let facts = question.keys().zip(self);
        facts.map(|(key, value)| Fact { key, value })
    }
}

impl Facts {
    /// Returns the [`WireName`]s of the keys, without cloning the keys.
    pub(crate) fn names(&self) -> PerKey<u64> {
        self.as_ref().map(|fact| fact.key.wire_name())
    }

    pub(crate) fn keys(&self) -> PerKey<Key> {
        self.as_ref().map(|fact| fact.key.clone())
    }
}

/// Returns whether a blob with this digest can have this length: length 0 belongs to the empty blob
/// and to no other. A backend that is asked while an object is being written may answer otherwise.
/// The cache must not keep such an answer.
pub(crate) fn is_plausible(digest: &Digest, meta: &LayerMeta) -> bool {
    (meta.length() == 0) == digest.is_of_nothing()
}
