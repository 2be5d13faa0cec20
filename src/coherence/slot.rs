//! Does in plain Rust what the scripts do to one key of the shared tier.
//!
//! The model checker and the tests' fake tier use it. A test runs it beside the scripts on a real
//! server, and checks that both give the same results.

use super::lease::{EndReply, Grant, Token};
use std::collections::BTreeSet;

/// Holds an entry, the lease to fill it, and the fence of its changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Slot<V> {
    pub(crate) entry: Option<V>,
    pub(crate) lease: Option<Token>,
    pub(crate) age: Age,
    pub(crate) fence: BTreeSet<Token>,
}

/// Says how old a lease is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) enum Age {
    /// The load that holds the lease may still be under way.
    #[default]
    Young,
    /// The lease is older than a load takes. No load waits for it.
    Old,
    /// The lease is so old that another load may take it.
    Overdue,
}

impl<V> Default for Slot<V> {
    fn default() -> Self {
        Self {
            entry: None,
            lease: None,
            age: Age::Young,
            fence: BTreeSet::new(),
        }
    }
}

impl<V> Slot<V> {
    pub(crate) fn grant(&mut self, token: Token, steal: bool) -> Grant {
        if !steal && self.entry.is_some() {
            return Grant::Hit;
        }
        if !self.fence.is_empty() {
            return Grant::Blocked;
        }
        match self.age {
            Age::Young if !steal && self.lease.is_some() => return Grant::Wait,
            Age::Old if !steal && self.lease.is_some() => return Grant::Blocked,
            _ => {}
        }
        (self.lease, self.age) = (Some(token), Age::Young);
        Grant::Granted
    }

    /// Fills the entry if `token` holds the lease. Returns whether it did.
    pub(crate) fn fill(&mut self, token: Token, value: V) -> bool {
        let accepted = self.release(token);
        if accepted {
            self.entry = Some(value);
        }
        accepted
    }

    /// Removes the lease if `token` holds it. Returns whether it did.
    pub(crate) fn release(&mut self, token: Token) -> bool {
        let is_held = self.lease.take_if(|lease| *lease == token).is_some();
        if is_held {
            self.age = Age::Young;
        }
        is_held
    }

    /// Removes entry and lease of a key that the backend has denied. Returns whether there was an
    /// entry.
    pub(crate) fn deny(&mut self) -> bool {
        (self.lease, self.age) = (None, Age::Young);
        self.entry.take().is_some()
    }

    pub(crate) fn begin(&mut self, token: Token, take_lease: bool) {
        (self.entry, self.age) = (None, Age::Young);
        self.lease = take_lease.then_some(token);
        self.fence.insert(token);
    }

    /// Returns whether the fence of `token` still stands.
    pub(crate) fn renew(&self, token: Token) -> bool {
        self.fence.contains(&token)
    }

    pub(crate) fn end(&mut self, token: Token, written: Option<V>) -> EndReply {
        let stood = self.fence.remove(&token);
        let own = self.lease.take() == Some(token);
        self.age = Age::Young;
        self.entry = written.filter(|_| stood && own && self.fence.is_empty());
        EndReply {
            stood,
            filled: self.entry.is_some(),
        }
    }
}
