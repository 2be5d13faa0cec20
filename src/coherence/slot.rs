//! What the scripts do to one key of the shared tier, in plain Rust.
//!
//! The model checker and the tests' fake tier run it, and a test runs it beside the scripts on a
//! real server: all three mean the same.

use super::lease::{Ended, Grant, Token};
use std::collections::BTreeSet;

/// An entry, the lease to fill it, and the fence around it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Slot<V> {
    pub(crate) entry: Option<V>,
    pub(crate) lease: Option<Token>,
    pub(crate) fence: BTreeSet<Token>,
}

impl<V> Default for Slot<V> {
    fn default() -> Self {
        Self {
            entry: None,
            lease: None,
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
        if !steal && self.lease.is_some() {
            return Grant::Wait;
        }
        self.lease = Some(token);
        Grant::Granted
    }

    /// Says whether the lease was still there.
    pub(crate) fn fill(&mut self, token: Token, value: V) -> bool {
        let accepted = self.release(token);
        if accepted {
            self.entry = Some(value);
        }
        accepted
    }

    /// Says whether the lease was still there.
    pub(crate) fn release(&mut self, token: Token) -> bool {
        self.lease.take_if(|lease| *lease == token).is_some()
    }

    pub(crate) fn begin(&mut self, token: Token, take_lease: bool) {
        self.entry = None;
        self.lease = take_lease.then_some(token);
        self.fence.insert(token);
    }

    /// Says whether the fence still stood.
    pub(crate) fn renew(&self, token: Token) -> bool {
        self.fence.contains(&token)
    }

    pub(crate) fn end(&mut self, token: Token, written: Option<V>) -> Ended {
        let stood = self.fence.remove(&token);
        let own = self.lease.take() == Some(token);
        self.entry = written.filter(|_| stood && own && self.fence.is_empty());
        Ended {
            stood,
            filled: self.entry.is_some(),
        }
    }
}
