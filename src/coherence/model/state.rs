//! What the model knows: nodes, one key, one Redis, one backend.

use super::Model;
use super::rules::{Fault, Rule};
use super::signed::Signing;
use crate::Digest;
use crate::coherence::Coherence;
use crate::coherence::change::{Change, ChangeKind, Outcome, Step as ChangeStep};
use crate::coherence::flight::Ticket;
use crate::coherence::generation::{Fence, Generations, Right, Stamp};
use crate::coherence::lease::{Ended, Token};
use crate::coherence::load::{Load, Step as LoadStep};
use crate::coherence::message::Message;
use crate::coherence::peers::{Awaited, Peers, Roll, Seen, Term};
use crate::coherence::slot::Slot;
use crate::coherence::trust::{Proof, Trust};
use std::sync::LazyLock;
use std::time::Duration;
use tokio::time::Instant;

/// The one key.
pub(super) const KEY: Digest = Digest::Sha256([1; 32]);

/// Trust is so many ticks long, and nobody's clock is faster than another's.
const fn term(trust: u8) -> Term {
    Term {
        trust: Duration::from_secs(trust as u64),
        margin: Duration::ZERO,
    }
}

/// How many ticks before the first one the nodes have come: longer ago than anybody trusts.
const BEFORE: u8 = 8;

/// When the nodes have come.
pub(super) fn long_ago() -> Instant {
    static BASE: LazyLock<Instant> = LazyLock::new(Instant::now);
    *BASE
}

/// When a tick begins.
pub(super) fn at(tick: u8) -> Instant {
    long_ago() + Duration::from_secs((BEFORE + tick).into())
}

/// What a clock says then that is right, in milliseconds.
pub(super) fn millis(tick: u8) -> u64 {
    1000 * u64::from(BEFORE + tick)
}

/// Everything. All that is under way is in here, and may go on in any order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) now: u8,
    /// Whether the object is there.
    pub(super) backend: bool,
    pub(super) redis: Redis,
    pub(super) nodes: Vec<Node>,
    pub(super) readers: Vec<Reader>,
    pub(super) loads: Vec<Loading>,
    pub(super) changes: Vec<Changing>,
    /// What may still go wrong.
    pub(super) faults: Vec<Fault>,
    pub(super) sessions: u64,
    /// Commands and calls that were given up, and may happen at any time.
    pub(super) late: Vec<Late>,
    pub(super) violation: Option<Violation>,
}

/// What must never be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Violation {
    /// A read that began after a delete was acknowledged found what was deleted.
    StalePositive,
    /// A read that began after a put was acknowledged did not find it.
    StaleNegative,
    /// A change repeats itself.
    Livelock,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Redis {
    pub(super) data: Data,
    /// How far the clock was set forward, in ticks.
    pub(super) ahead: u8,
    /// Which server it is.
    pub(super) server: u8,
    /// The old primary and its data, if it lives on after a hand-over.
    pub(super) before: Option<(u8, Data)>,
    /// What the replica has, once it lags.
    pub(super) replica: Option<Data>,
}

/// What a failover may bring back.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Data {
    pub(super) slot: Slot<()>,
    /// Which set of nodes it is, and when each was seen, in milliseconds.
    pub(super) nodes: Option<(u64, Vec<Option<u64>>)>,
    pub(super) births: u64,
    /// The server that is noted beside the nodes.
    pub(super) noted: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Node {
    pub(super) coherence: Coherence,
    pub(super) peers: Peers,
    /// The stamp of the positive in memory.
    pub(super) memory: Option<Stamp>,
    /// The connection that is up, as far as the node knows.
    pub(super) session: Option<u64>,
    /// The server that it is to.
    pub(super) server: u8,
    pub(super) hears_shared: bool,
    /// What Redis has pushed and is not applied yet.
    pub(super) inbox: Vec<Message>,
    /// A heartbeat on its way to Redis.
    pub(super) beat: Option<Message>,
    pub(super) beats: u8,
    pub(super) check: Option<Check>,
    pub(super) checks: u8,
    /// The load that was started last, while it runs.
    pub(super) latest: Option<u64>,
    pub(super) departures: u64,
}

/// A question whether the primary has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Check {
    pub(super) begun: u8,
    /// What is answered. A later answer to the same question would say no less.
    pub(super) has_moved: bool,
}

/// One read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Reader {
    pub(super) node: usize,
    /// The changes that were acknowledged before it began.
    pub(super) acknowledged: u8,
    pub(super) ticket: Option<Ticket>,
    pub(super) at: Reading,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Reading {
    Idle,
    /// It has seen trust, and this in memory.
    Looking {
        entry: Option<Stamp>,
    },
    /// Bent: it has read the stamp first.
    Stamped {
        stamp: Stamp,
    },
    /// It waits for a load to end that left before it came.
    Waiting(u64),
    Boarded {
        number: u64,
        /// Bent: it takes only what was not found.
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
    pub(super) right: Option<Right>,
    pub(super) token: Token,
    pub(super) lease: Option<Token>,
    pub(super) waited: bool,
    pub(super) at: LoadAt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum LoadAt {
    /// Its rights are not yet taken.
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
    pub(super) fence: Option<Fence>,
    /// The changes that were acknowledged before it began.
    pub(super) before: u8,
    pub(super) id: u64,
    pub(super) tellings: u8,
    pub(super) begins: u8,
    /// The connection that `END` went through.
    pub(super) end: Option<u64>,
    /// When it came to its call.
    pub(super) since: u8,
    pub(super) called: Option<Outcome>,
    /// Whether a signed URL was called while its first fence stood: who reads after that reads what is
    /// there, though the URL has not expired.
    pub(super) is_promised: bool,
    pub(super) telling: Telling,
    pub(super) at: ChangeAt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Delete,
    Put,
    /// A collection behind the cache's back, and then a purge.
    Purge,
    /// A put of another version: to whoever knows the one that there is, a delete of that.
    Replace,
    /// A signed URL that deletes.
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
    /// Bent: published, or the nodes read, before its time.
    Early(Awaited),
    Awaiting(Awaited),
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum ChangeAt {
    Idle,
    Next(ChangeStep),
    Ended(Ended, u64),
    Signing(Signing),
    /// A purge, which has taken away the leases, the entries.
    Purging {
        leases: bool,
        entries: bool,
    },
    Acknowledged,
    /// Refused, or its call may still happen: nothing was promised.
    Unpromised,
    /// It is in the retry queue. Taken away through this connection, and the others are being told.
    Owed {
        session: Option<u64>,
    },
    /// Bent: it has returned, and is not in the queue yet.
    Unqueued,
    Dead,
}

/// What was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Late {
    /// To this server.
    Begin(u8, Token, bool),
    /// With or without `steal`.
    Grant(u8, Token, bool),
    Fill(u8, Token),
    Call(Kind),
}

impl Model {
    /// All nodes connected, known to each other and trusted; the object as it is, and what the tiers
    /// have of it.
    pub(super) fn settled(&self, has: Has) -> State {
        let nodes = self.beats.len();
        let trust_of = |i: usize| self.trusts.get(i).copied().unwrap_or(1);
        let seen = |i: usize| Seen {
            node: i as u64,
            trust: term(trust_of(i)).trust,
            time: millis(1),
        };
        let roll = Roll {
            born: 1,
            time: millis(1),
            nodes: (0..nodes).map(seen).collect(),
        };
        let node = |(i, beats): (usize, &u8)| {
            let coherence = Coherence {
                trust: Trust::none(long_ago()),
                generations: Generations::of_one_stripe(),
            };
            let (session, term) = (i as u64 + 1, term(trust_of(i)));
            let mut peers = Peers::new(i as u64, term, long_ago());
            peers.connect(session, long_ago());
            peers.noted(session, (1, 0), long_ago());
            peers.heartbeat(session, at(1));
            peers.noted(session, (1, millis(1)), at(1));
            // It has seen the others.
            peers.awaited(&roll, at(1), at(1));
            coherence.trust.heard(at(1), term.trust);
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

    /// Whether a node has to know that the primary has not moved.
    pub(super) fn asks(&self, n: usize) -> bool {
        let asks = self.checks.get(n).is_some_and(|checks| *checks > 0);
        asks && !self.bends(Rule::StandingNeedsThePlace)
    }
}

impl State {
    /// The changes that a read which begins now, on this node, must not be answered from before, as
    /// bits. What is owed binds its own node; a put without Redis binds all.
    pub(super) fn acknowledged(&self, n: usize) -> u8 {
        self.bits(|change| {
            change.at == ChangeAt::Acknowledged
                || change.is_promised
                || change.is_owed() && (change.node == n || change.kind == Kind::Put)
        })
    }

    /// The changes that have returned, as bits.
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

    /// Whether a node has something in its retry queue.
    pub(super) fn owes(&self, n: usize) -> bool {
        let owed = |change: &Changing| matches!(change.at, ChangeAt::Owed { .. });
        self.changes
            .iter()
            .any(|change| change.node == n && owed(change))
    }

    /// Takes a fault from those that may still happen.
    pub(super) fn spend(&mut self, fault: Fault) -> Option<()> {
        let at = self.faults.iter().position(|other| *other == fault)?;
        self.faults.remove(at);
        Some(())
    }

    /// Whether a node's commands reach Redis, and what Redis pushes reaches the node.
    pub(super) fn reaches(&self, n: usize) -> bool {
        let node = &self.nodes[n];
        node.session.is_some() && node.server == self.redis.server
    }

    /// A node that has never been there: not connected, and known to nobody.
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

    /// Whether a node's connection leads to the server before, which accepts whatever it is sent.
    pub(super) fn lags(&self, n: usize) -> bool {
        let node = &self.nodes[n];
        let before = self.redis.before.as_ref();
        node.session.is_some() && before.is_some_and(|(before, _)| *before == node.server)
    }

    /// The data of the server that a node's connection leads to.
    pub(super) fn data_of(&mut self, n: usize) -> &mut Data {
        let lags = self.lags(n);
        match &mut self.redis.before {
            Some((_, data)) if lags => data,
            _ => &mut self.redis.data,
        }
    }

    /// Redis's clock.
    pub(super) fn redis_time(&self) -> u64 {
        millis(self.now + self.redis.ahead)
    }

    /// Whether nothing is under way that could still mend what is at rest.
    pub(super) fn is_at_rest(&self) -> bool {
        self.loads.is_empty()
            && self.late.is_empty()
            && self.redis.data.slot.fence.is_empty()
            && self.nodes.iter().all(|node| node.inbox.is_empty())
            // Nobody asks a server that nobody has greeted.
            && self.redis.data.noted == self.redis.server
            && self
                .changes
                .iter()
                .all(|change| change.at == ChangeAt::Idle || change.at.is_over())
    }

    /// Whether Redis or a memory that is trusted has a positive that the backend does not have.
    pub(super) fn is_stale(&self) -> bool {
        let is_live = |node: &Node| {
            let trusted = node.coherence.trusted(at(self.now));
            trusted.is_some_and(|trusted| node.memory == Some(trusted.stamp(&KEY)))
        };
        let tiers = self.redis.data.slot.entry.is_some() || self.nodes.iter().any(is_live);
        tiers && !self.backend
    }
}

/// What there is at first.
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
            ticket: None,
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
    /// Whether it has returned, is known to have happened, and is in the retry queue.
    fn is_owed(&self) -> bool {
        matches!(self.at, ChangeAt::Owed { .. }) && self.called != Some(Outcome::Unknown)
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
