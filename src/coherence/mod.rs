//! Decides which cached values a node may still answer: the coherence protocol, without I/O.
//!
//! | module | what it decides |
//! |---|---|
//! | [`generation`] | whether a value in memory was read before a change of its key |
//! | [`trust`] | whether memory may answer: only while other nodes' changes are sure to arrive |
//! | [`flight`] | which load a caller joins: never one that started before the caller arrived |
//! | [`limiter`] | how many loads and changes run at a time |
//! | [`lease`] | who may fill a key of the shared tier, and whether the key is being changed |
//! | [`load`] | the steps of a load, from the shared tier to the backend |
//! | [`change`] | the steps of a change, before and after the backend's own call |
//! | [`used_connections`] | whether an operation's connections were replaced since |
//! | [`peers`] | which other nodes a change awaits |
//! | [`message`], [`action`] | what nodes send each other, and what the receiver does about it |
//! | [`clock`] | whether Redis's clock has been steady: it dates the members of the peer set |
//! | [`journal`] | which changed keys still have to be removed |
//! | [`rules`] | nothing: it names the rules, and other code names the rule that it keeps |
//!
//! The node runs this code, and so does a model checker: `model` (in tests) leaves out one rule at
//! a time and shows what breaks without it.

pub(crate) mod action;
pub(crate) mod change;
pub(crate) mod clock;
pub(crate) mod flight;
pub(crate) mod generation;
pub(crate) mod journal;
pub(crate) mod lease;
pub(crate) mod limiter;
pub(crate) mod load;
pub(crate) mod message;
#[cfg(test)]
mod model;
pub(crate) mod peers;
pub(crate) mod rules;
#[cfg(any(test, all(feature = "redis", feature = "testing")))]
pub(crate) mod slot;
pub(crate) mod trust;
pub(crate) mod used_connections;

use crate::types::link::WireName;
use action::{AckRequest, Action};
use generation::{EntryStamp, Generations, ReadStamp, Snapshot};
use rules::{Rule, kept};
use std::time::Duration;
use tokio::time::Instant;
use trust::{Proof, Trust};

/// Holds the state that decides whether a value in memory may be answered.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, PartialEq, Eq, Hash))]
pub(crate) struct Coherence {
    pub(crate) trust: Trust,
    pub(crate) generations: Generations,
}

/// Proves that trust was seen. Stamps to answer or to fill under are read only through this type,
/// and therefore after trust was seen. Otherwise trust could end and come back after the stamp was
/// read, and the stamp would miss the changes of that time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trusted<'a> {
    generations: &'a Generations,
}

impl Coherence {
    /// Returns the state of a node without other nodes.
    pub(crate) fn alone() -> Self {
        Self {
            trust: Trust::alone(),
            generations: Generations::new(),
        }
    }

    /// Returns the state of a node that shares its Redis with others. It has no trust until its
    /// first heartbeat has come back.
    pub(crate) fn among_others() -> Self {
        Self {
            trust: Trust::none(Instant::now()),
            generations: Generations::new(),
        }
    }

    /// Returns [`Trusted`] if memory may answer at `now`.
    pub(crate) fn trusted(&self, now: Instant) -> Option<Trusted<'_>> {
        let generations = &self.generations;
        let trusts = self.trust.holds(now) || !kept(Rule::Trust);
        trusts.then_some(Trusted { generations })
    }

    /// Returns [`Trusted`] without checking trust. Used to inspect entries that memory keeps and
    /// may not answer now.
    pub(crate) const fn regardless(&self) -> Trusted<'_> {
        let generations = &self.generations;
        Trusted { generations }
    }

    /// Ends trust and makes all values in memory outdated. Called when both channels are subscribed
    /// on a new connection, because the node may have missed messages before.
    pub(crate) fn connected(&self) {
        self.trust.lose();
        if kept(Rule::FlushOnResubscribe) {
            self.generations.flush();
        }
    }

    /// Ends trust, because the connection is lost.
    pub(crate) fn disconnected(&self) {
        self.trust.lose();
    }

    /// Applies a message. Returns the acknowledgement to send, if any. The caller applies messages
    /// in order, each to its end before the next.
    pub(crate) fn apply(&self, action: &Action, trust: Duration) -> Option<AckRequest> {
        match action {
            Action::Forget { names, ack, .. } => {
                for name in names {
                    self.generations.bump_named(*name);
                }
                *ack
            }
            Action::Flush { ack, .. } => {
                self.generations.flush();
                *ack
            }
            Action::Beat { sent } => {
                let began = match kept(Rule::TrustCountsFromTheSending) {
                    true => *sent,
                    false => Instant::now(),
                };
                self.trust.heartbeat_returned(began, trust);
                if !kept(Rule::TrustCountsFromTheSending) {
                    self.trust.proven(Proof::Identity, began, trust);
                }
                None
            }
            Action::Acknowledged { .. } | Action::Ignore => None,
        }
    }
}

impl Trusted<'_> {
    /// Returns whether a value with this stamp is current.
    pub(crate) fn is_current(self, entry_stamp: EntryStamp) -> bool {
        self.generations.is_current(entry_stamp) || !kept(Rule::StampOnValues)
    }

    /// Returns the stamp for a value that the caller reads from now on. Memory is filled under it.
    /// Returns `None` while the key is being changed.
    pub(crate) fn read_stamp(self, key: &impl WireName) -> Option<ReadStamp> {
        self.generations.read_stamp(key)
    }

    /// Returns the stamps of all keys, for values that the caller reads from now on.
    pub(crate) fn snapshot(self) -> Snapshot {
        self.generations.snapshot()
    }
}

/// For the model, which compares stamps in a step of its own.
#[cfg(test)]
impl Trusted<'_> {
    pub(crate) fn stamp(self, key: &impl WireName) -> generation::Stamp {
        self.generations.stamp(key)
    }
}
