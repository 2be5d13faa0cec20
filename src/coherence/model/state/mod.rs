//! The state of the model: nodes, one key, one Redis, and one backend.

pub(crate) mod change;
pub(crate) mod read;

use super::faults::Fault;
use super::ticks::{at, millis};
use crate::coherence::Coherence;
use crate::coherence::generation::Stamp;
use crate::coherence::lease::Token;
use crate::coherence::message::Message;
use crate::coherence::peers::PeerTracker;
use crate::coherence::slot::Slot;
use crate::types::Digest;
use change::{ChangeAt, Changing, Kind};
use read::{Loading, Reader};

/// The one key.
pub(crate) const KEY: Digest = Digest::Sha256([1; 32]);

/// The whole state of the model. The steps that are under way may go on in any order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) now: u8,
    /// Whether the backend has the object.
    pub(crate) backend: bool,
    pub(crate) redis: Redis,
    pub(crate) nodes: Vec<Node>,
    pub(crate) readers: Vec<Reader>,
    pub(crate) loads: Vec<Loading>,
    pub(crate) changes: Vec<Changing>,
    /// The faults that may still happen.
    pub(crate) faults: Vec<Fault>,
    pub(crate) sessions: u64,
    /// The commands and calls that were given up, and may still happen at any time.
    pub(crate) late: Vec<LateCommand>,
    pub(crate) violation: Option<Violation>,
}

/// What must never happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Violation {
    /// A read that began after a delete was acknowledged found the deleted object.
    StalePositive,
    /// A read that began after a put was acknowledged did not find the object.
    StaleNegative,
    /// A change repeats itself for ever.
    Livelock,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Redis {
    pub(crate) data: Data,
    /// How far Redis's clock was set forward, in ticks.
    pub(crate) ahead: u8,
    /// The number of the server that is the primary.
    pub(crate) server: u8,
    /// The old primary and its data, if it lives on after a hand-over.
    pub(crate) before: Option<(u8, Data)>,
    /// The data of the replica, once it lags.
    pub(crate) replica: Option<Data>,
}

/// The data of a server. A failover may bring an older state of it back.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Data {
    pub(crate) slot: Slot<()>,
    /// The epoch of the peer set, and when Redis noted each node, in milliseconds of Redis's clock.
    pub(crate) nodes: Option<(u64, Vec<Option<u64>>)>,
    pub(crate) epochs: u64,
    /// The server that is recorded beside the peer set.
    pub(crate) recorded: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub(crate) coherence: Coherence,
    pub(crate) peers: PeerTracker,
    /// The stamp of the positive in memory, if there is one.
    pub(crate) memory: Option<Stamp>,
    /// The connection that the node believes to be up.
    pub(crate) session: Option<u64>,
    /// The server that this connection leads to.
    pub(crate) server: u8,
    pub(crate) has_shared_channel: bool,
    /// The messages that Redis has pushed, and that the node has not applied yet.
    pub(crate) inbox: Vec<Message>,
    /// A heartbeat that is on its way to Redis.
    pub(crate) beat: Option<Message>,
    pub(crate) beats: u8,
    pub(crate) check: Option<Check>,
    pub(crate) checks: u8,
    /// The load that was started last, while it runs.
    pub(crate) latest: Option<u64>,
    pub(crate) loads_started: u64,
}

/// A node's question whether the primary has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Check {
    pub(crate) begun: u8,
    /// The answer, fixed when the question is asked. A later answer would reveal at least as much.
    pub(crate) has_moved: bool,
}

/// A command or call that was given up, and may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum LateCommand {
    /// A `BEGIN` for this server.
    Begin(u8, Token, bool),
    /// A `GRANT` for this server, with or without `steal`.
    Grant(u8, Token, bool),
    Fill(u8, Token),
    Call(Kind),
}

impl State {
    /// Returns, as bits, the changes that a read must see if it begins now on this node. A change
    /// in the retry queue counts only on its own node, but a put without Redis counts on all nodes.
    pub(crate) fn acknowledged(&self, n: usize) -> u8 {
        self.bits(|change| {
            change.at == ChangeAt::Acknowledged
                || change.is_promised
                || change.is_queued() && (change.node == n || change.kind == Kind::Put)
        })
    }

    /// Returns the changes that have returned to their callers, as bits.
    pub(crate) fn returned(&self) -> u8 {
        self.bits(|change| {
            change.at == ChangeAt::Acknowledged || change.is_promised || change.is_queued()
        })
    }

    fn bits(&self, are: impl Fn(&Changing) -> bool) -> u8 {
        let bits = self.changes.iter().enumerate();
        bits.filter(|(_, change)| are(change))
            .map(|(i, _)| 1 << i)
            .sum()
    }

    /// Returns whether a node's retry queue holds a change.
    pub(crate) fn has_queued(&self, n: usize) -> bool {
        let is_queued = |change: &Changing| matches!(change.at, ChangeAt::Queued { .. });
        self.changes
            .iter()
            .any(|change| change.node == n && is_queued(change))
    }

    /// Removes a fault from those that may still happen. Returns `None` if it is not among them.
    pub(crate) fn spend(&mut self, fault: Fault) -> Option<()> {
        let at = self.faults.iter().position(|other| *other == fault)?;
        self.faults.remove(at);
        Some(())
    }

    /// Returns whether a node's commands reach the primary, and the primary's messages reach the
    /// node.
    pub(crate) fn reaches(&self, n: usize) -> bool {
        let node = &self.nodes[n];
        node.session.is_some() && node.server == self.redis.server
    }

    /// Returns whether a node's connection leads to the old primary, which still accepts all
    /// commands.
    pub(crate) fn lags(&self, n: usize) -> bool {
        let node = &self.nodes[n];
        let before = self.redis.before.as_ref();
        node.session.is_some() && before.is_some_and(|(before, _)| *before == node.server)
    }

    /// Returns the data of the server that a node's connection leads to.
    pub(crate) fn data_of(&mut self, n: usize) -> &mut Data {
        let lags = self.lags(n);
        match &mut self.redis.before {
            Some((_, data)) if lags => data,
            _ => &mut self.redis.data,
        }
    }

    /// Returns the time of Redis's clock, in milliseconds.
    pub(crate) fn redis_time(&self) -> u64 {
        millis(self.now + self.redis.ahead)
    }

    /// Returns whether no step is under way that could still remove a stale entry.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.loads.is_empty()
            && self.late.is_empty()
            && self.redis.data.slot.fence.is_empty()
            && self.nodes.iter().all(|node| node.inbox.is_empty())
            // No node reads from a new primary before the first node has connected and purged it.
            && self.redis.data.recorded == self.redis.server
            && self
                .changes
                .iter()
                .all(|change| change.at == ChangeAt::Idle || change.at.is_over())
    }

    /// Returns whether Redis, or the memory of a node with trust, holds an object that the backend
    /// does not have.
    pub(crate) fn is_stale(&self) -> bool {
        let is_live = |node: &Node| {
            let trusted = node.coherence.trusted(at(self.now));
            trusted.is_some_and(|trusted| node.memory == Some(trusted.stamp(&KEY)))
        };
        let tiers = self.redis.data.slot.entry.is_some() || self.nodes.iter().any(is_live);
        tiers && !self.backend
    }
}
