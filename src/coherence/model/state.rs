//! Defines the state of the model: nodes, one key, one Redis, and one backend.

use super::Model;
use super::rules::{Fault, Rule};
use super::signed::Signing;
use crate::coherence::Coherence;
use crate::coherence::change::{Change, ChangeKind, ChangeStep, Outcome};
use crate::coherence::flight::Arrival;
use crate::coherence::generation::{Generations, MemoryFence, ReadStamp, Stamp};
use crate::coherence::lease::{EndReply, Token};
use crate::coherence::load::{Load, LoadStep};
use crate::coherence::message::Message;
use crate::coherence::peers::PeerTracker;
use crate::coherence::peers::awaited::Awaited;
use crate::coherence::peers::peer_set::{Peer, PeerSet};
use crate::coherence::peers::term::Term;
use crate::coherence::slot::Slot;
use crate::coherence::trust::{Proof, Trust};
use crate::types::Digest;
use std::sync::LazyLock;
use std::time::Duration;
use tokio::time::Instant;

/// The one key.
pub(super) const KEY: Digest = Digest::Sha256([1; 32]);

/// Returns the term of a node that trusts its memory for `trust` ticks. The margin is 0, because
/// all clocks of the model run at the same speed.
const fn term(trust: u8) -> Term {
    Term {
        trust: Duration::from_secs(trust as u64),
        margin: Duration::ZERO,
    }
}

/// How many ticks before tick 0 the nodes started. This is longer than the trust of any node.
const BEFORE: u8 = 8;

/// Returns when the nodes started.
pub(super) fn long_ago() -> Instant {
    static BASE: LazyLock<Instant> = LazyLock::new(Instant::now);
    *BASE
}

/// Returns when a tick begins.
pub(super) fn at(tick: u8) -> Instant {
    long_ago() + Duration::from_secs((BEFORE + tick).into())
}

/// Returns the time at a tick by a correct clock, in milliseconds.
pub(super) fn millis(tick: u8) -> u64 {
    1000 * u64::from(BEFORE + tick)
}

/// The whole state of the model. The steps that are under way may go on in any order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) now: u8,
    /// Whether the backend has the object.
    pub(super) backend: bool,
    pub(super) redis: Redis,
    pub(super) nodes: Vec<Node>,
    pub(super) readers: Vec<Reader>,
    pub(super) loads: Vec<Loading>,
    pub(super) changes: Vec<Changing>,
    /// The faults that may still happen.
    pub(super) faults: Vec<Fault>,
    pub(super) sessions: u64,
    /// The commands and calls that were given up, and may still happen at any time.
    pub(super) late: Vec<Late>,
    pub(super) violation: Option<Violation>,
}

/// What must never happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Violation {
    /// A read that began after a delete was acknowledged found the deleted object.
    StalePositive,
    /// A read that began after a put was acknowledged did not find the object.
    StaleNegative,
    /// A change repeats itself for ever.
    Livelock,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Redis {
    pub(super) data: Data,
    /// How far Redis's clock was set forward, in ticks.
    pub(super) ahead: u8,
    /// The number of the server that is the primary.
    pub(super) server: u8,
    /// The old primary and its data, if it lives on after a hand-over.
    pub(super) before: Option<(u8, Data)>,
    /// The data of the replica, once it lags.
    pub(super) replica: Option<Data>,
}

/// The data of a server. A failover may bring an older state of it back.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Data {
    pub(super) slot: Slot<()>,
    /// The epoch of the peer set, and when Redis noted each node, in milliseconds of Redis's clock.
    pub(super) nodes: Option<(u64, Vec<Option<u64>>)>,
    pub(super) births: u64,
    /// The server that is recorded beside the peer set.
    pub(super) noted: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Node {
    pub(super) coherence: Coherence,
    pub(super) peers: PeerTracker,
    /// The stamp of the positive in memory, if there is one.
    pub(super) memory: Option<Stamp>,
    /// The connection that the node believes to be up.
    pub(super) session: Option<u64>,
    /// The server that this connection leads to.
    pub(super) server: u8,
    pub(super) hears_shared: bool,
    /// The messages that Redis has pushed, and that the node has not applied yet.
    pub(super) inbox: Vec<Message>,
    /// A heartbeat that is on its way to Redis.
    pub(super) beat: Option<Message>,
    pub(super) beats: u8,
    pub(super) check: Option<Check>,
    pub(super) checks: u8,
    /// The load that was started last, while it runs.
    pub(super) latest: Option<u64>,
    pub(super) departures: u64,
}

/// A node's question whether the primary has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Check {
    pub(super) begun: u8,
    /// The answer, fixed when the question is asked. A later answer would reveal at least as much.
    pub(super) has_moved: bool,
}

/// One read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Reader {
    pub(super) node: usize,
    /// The changes that were acknowledged before the read began, as bits.
    pub(super) acknowledged: u8,
    pub(super) arrival: Option<Arrival>,
    pub(super) at: Reading,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Reading {
    Idle,
    /// The read has seen trust, and then this entry in memory.
    Looking {
        entry: Option<Stamp>,
    },
    /// Bent: the read has read the stamp before it checked trust.
    Stamped {
        stamp: Stamp,
    },
    /// The read waits for the end of this load, which started before the read.
    Waiting(u64),
    Joined {
        number: u64,
        /// Bent: the read takes only the answer that the object was not found.
        negative_only: bool,
    },
    Done,
}

/// One load.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Loading {
    pub(super) node: usize,
    pub(super) number: u64,
    pub(super) load: Load,
    pub(super) read_stamp: Option<ReadStamp>,
    pub(super) token: Token,
    pub(super) lease: Option<Token>,
    pub(super) waited: bool,
    pub(super) at: LoadAt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum LoadAt {
    /// The load has not taken its read stamp yet.
    Start,
    Next(LoadStep),
    /// Redis has answered.
    LookedUp(bool),
    /// The backend has answered.
    Read(bool),
    Fill,
    Filled(bool),
    Release,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Changing {
    pub(super) node: usize,
    pub(super) kind: Kind,
    pub(super) change: Change,
    pub(super) token: Token,
    pub(super) tries: u64,
    pub(super) fence: Option<MemoryFence>,
    /// The changes that had returned before this change began, as bits.
    pub(super) before: u8,
    pub(super) id: u64,
    pub(super) tellings: u8,
    pub(super) begins: u8,
    /// The connection that `END` went through.
    pub(super) end: Option<u64>,
    /// The tick at which `BEGIN` was over.
    pub(super) since: u8,
    pub(super) called: Option<Outcome>,
    /// Whether a client called the signed URL while its first fence stood. Every later read must
    /// see that call, although the URL has not expired.
    pub(super) is_promised: bool,
    pub(super) telling: Telling,
    pub(super) at: ChangeAt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Delete,
    Put,
    /// A garbage collection deletes the object without a node's help, and then a node purges.
    Purge,
    /// A put of another version. It counts as a delete of the old version.
    Replace,
    /// A signed URL that deletes the object.
    Signed,
}

impl Kind {
    pub(super) const fn of_change(self) -> ChangeKind {
        match self {
            Self::Put | Self::Replace => ChangeKind::Creation,
            Self::Delete | Self::Purge | Self::Signed => ChangeKind::Removal,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Telling {
    Not,
    /// Bent: the message was published, or the peer set was read, too early.
    Early(Awaited),
    Awaiting(Awaited),
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum ChangeAt {
    Idle,
    Next(ChangeStep),
    EndReply(EndReply, u64),
    Signing(Signing),
    /// A purge, and whether it has removed the leases and the entries.
    Purging {
        leases: bool,
        entries: bool,
    },
    Acknowledged,
    /// The change was refused, or its call may still happen. Its caller was promised nothing.
    Unpromised,
    /// The change is in the retry queue. With a `session`, its keys were removed through that
    /// connection, and the other nodes are being notified.
    Queued {
        session: Option<u64>,
    },
    /// Bent: the change has returned, and is not in the retry queue yet.
    Unqueued,
    Dead,
}

/// A command or call that was given up, and may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Late {
    /// A `BEGIN` for this server.
    Begin(u8, Token, bool),
    /// A `GRANT` for this server, with or without `steal`.
    Grant(u8, Token, bool),
    Fill(u8, Token),
    Call(Kind),
}

impl Model {
    /// Returns a state in which all nodes are connected, know each other, and have trust. `has`
    /// says whether the object exists, and which tiers hold it.
    pub(super) fn finished(&self, has: Has) -> State {
        let nodes = self.beats.len();
        let trust_of = |i: usize| self.trusts.get(i).copied().unwrap_or(1);
        let seen = |i: usize| Peer {
            node: i as u64,
            trust: term(trust_of(i)).trust,
            time: millis(1),
        };
        let set = PeerSet {
            epoch: 1,
            time: millis(1),
            nodes: (0..nodes).map(seen).collect(),
        };
        let node = |(i, beats): (usize, &u8)| {
            let coherence = Coherence {
                trust: Trust::none(long_ago()),
                generations: Generations::of_one_stripe(),
            };
            let (session, term) = (i as u64 + 1, term(trust_of(i)));
            let mut peers = PeerTracker::new(i as u64, term, long_ago());
            peers.connect(session, long_ago());
            peers.noted(session, (1, 0), long_ago());
            peers.heartbeat(session, at(1));
            peers.noted(session, (1, millis(1)), at(1));
            // The node has read the peer set.
            peers.awaited(&set, at(1), at(1));
            coherence.trust.heartbeat_returned(at(1), term.trust);
            if self.asks(i) {
                coherence.trust.proven(Proof::Place, at(1), term.trust);
            }
            let trusted = coherence.trusted(at(1));
            let stamp = trusted.map(|trusted| trusted.stamp(&KEY));
            Node {
                memory: stamp.filter(|_| has.memory),
                coherence,
                peers,
                session: Some(session),
                server: 0,
                hears_shared: true,
                inbox: Vec::new(),
                beat: None,
                beats: *beats,
                check: None,
                checks: self.checks.get(i).copied().unwrap_or(0),
                latest: None,
                departures: 0,
            }
        };
        State {
            now: 1,
            backend: has.object,
            redis: Redis {
                data: Data {
                    slot: Slot {
                        entry: has.entry.then_some(()),
                        ..Slot::default()
                    },
                    nodes: Some((1, vec![Some(millis(1)); nodes])),
                    births: 1,
                    noted: 0,
                },
                ahead: 0,
                server: 0,
                before: None,
                replica: None,
            },
            nodes: self.beats.iter().enumerate().map(node).collect(),
            readers: Vec::new(),
            loads: Vec::new(),
            changes: Vec::new(),
            faults: Vec::new(),
            sessions: nodes as u64 + 1,
            late: Vec::new(),
            violation: None,
        }
    }

    /// Returns whether a node has to know that the primary has not moved.
    pub(super) fn asks(&self, n: usize) -> bool {
        let asks = self.checks.get(n).is_some_and(|checks| *checks > 0);
        asks && !self.bends(Rule::StandingNeedsThePlace)
    }
}

impl State {
    /// Returns, as bits, the changes that a read must see if it begins now on this node. A change
    /// in the retry queue counts only on its own node, but a put without Redis counts on all nodes.
    pub(super) fn acknowledged(&self, n: usize) -> u8 {
        self.bits(|change| {
            change.at == ChangeAt::Acknowledged
                || change.is_promised
                || change.is_owed() && (change.node == n || change.kind == Kind::Put)
        })
    }

    /// Returns the changes that have returned to their callers, as bits.
    pub(super) fn returned(&self) -> u8 {
        self.bits(|change| {
            change.at == ChangeAt::Acknowledged || change.is_promised || change.is_owed()
        })
    }

    fn bits(&self, are: impl Fn(&Changing) -> bool) -> u8 {
        let bits = self.changes.iter().enumerate();
        bits.filter(|(_, change)| are(change))
            .map(|(i, _)| 1 << i)
            .sum()
    }

    /// Returns whether a node's retry queue holds a change.
    pub(super) fn owes(&self, n: usize) -> bool {
        let owed = |change: &Changing| matches!(change.at, ChangeAt::Queued { .. });
        self.changes
            .iter()
            .any(|change| change.node == n && owed(change))
    }

    /// Removes a fault from those that may still happen. Returns `None` if it is not among them.
    pub(super) fn spend(&mut self, fault: Fault) -> Option<()> {
        let at = self.faults.iter().position(|other| *other == fault)?;
        self.faults.remove(at);
        Some(())
    }

    /// Returns whether a node's commands reach the primary, and the primary's messages reach the
    /// node.
    pub(super) fn reaches(&self, n: usize) -> bool {
        let node = &self.nodes[n];
        node.session.is_some() && node.server == self.redis.server
    }

    /// Makes a node absent: it is not connected, and no other node knows it.
    pub(super) fn absent(mut self, n: usize) -> Self {
        let node = &mut self.nodes[n];
        if let Some(session) = node.session.take() {
            node.peers.disconnect(session);
        }
        node.coherence.disconnected();
        if let Some((_, seen)) = &mut self.redis.data.nodes {
            seen[n] = None;
        }
        self
    }

    /// Returns whether a node's connection leads to the old primary, which still accepts all
    /// commands.
    pub(super) fn lags(&self, n: usize) -> bool {
        let node = &self.nodes[n];
        let before = self.redis.before.as_ref();
        node.session.is_some() && before.is_some_and(|(before, _)| *before == node.server)
    }

    /// Returns the data of the server that a node's connection leads to.
    pub(super) fn data_of(&mut self, n: usize) -> &mut Data {
        let lags = self.lags(n);
        match &mut self.redis.before {
            Some((_, data)) if lags => data,
            _ => &mut self.redis.data,
        }
    }

    /// Returns the time of Redis's clock, in milliseconds.
    pub(super) fn redis_time(&self) -> u64 {
        millis(self.now + self.redis.ahead)
    }

    /// Returns whether no step is under way that could still remove a stale entry.
    pub(super) fn is_at_rest(&self) -> bool {
        self.loads.is_empty()
            && self.late.is_empty()
            && self.redis.data.slot.fence.is_empty()
            && self.nodes.iter().all(|node| node.inbox.is_empty())
            // No node reads from a new primary before the first node has connected and purged it.
            && self.redis.data.noted == self.redis.server
            && self
                .changes
                .iter()
                .all(|change| change.at == ChangeAt::Idle || change.at.is_over())
    }

    /// Returns whether Redis, or the memory of a node with trust, holds an object that the backend
    /// does not have.
    pub(super) fn is_stale(&self) -> bool {
        let is_live = |node: &Node| {
            let trusted = node.coherence.trusted(at(self.now));
            trusted.is_some_and(|trusted| node.memory == Some(trusted.stamp(&KEY)))
        };
        let tiers = self.redis.data.slot.entry.is_some() || self.nodes.iter().any(is_live);
        tiers && !self.backend
    }
}

/// Says what exists in the first state.
#[derive(Debug, Clone, Copy)]
pub(super) struct Has {
    pub(super) object: bool,
    pub(super) entry: bool,
    pub(super) memory: bool,
}

impl Reader {
    pub(super) const fn new(node: usize) -> Self {
        Self {
            node,
            acknowledged: 0,
            arrival: None,
            at: Reading::Idle,
        }
    }
}

impl ChangeAt {
    pub(super) const fn is_over(self) -> bool {
        matches!(self, Self::Acknowledged | Self::Unpromised | Self::Dead)
    }
}

impl Changing {
    /// Returns whether the change has returned, is known to have happened, and is in the retry
    /// queue.
    fn is_owed(&self) -> bool {
        matches!(self.at, ChangeAt::Queued { .. }) && self.called != Some(Outcome::Unknown)
    }

    pub(super) fn new(node: usize, kind: Kind, change: Change) -> Self {
        Self {
            node,
            kind,
            change,
            token: Token::of(0),
            tries: 0,
            fence: None,
            before: 0,
            id: 0,
            tellings: 0,
            begins: 0,
            end: None,
            since: 0,
            called: None,
            is_promised: false,
            telling: Telling::Not,
            at: ChangeAt::Idle,
        }
    }
}
