//! The first state of a world.

use super::Model;
use super::state::{Data, KEY, Node, Redis, State};
use super::ticks::{at, long_ago, millis, term};
use crate::coherence::Coherence;
use crate::coherence::generation::Generations;
use crate::coherence::peers::PeerTracker;
use crate::coherence::peers::peer_set::{Peer, PeerSet};
use crate::coherence::slot::Slot;
use crate::coherence::trust::{Proof, Trust};

/// Says what exists in the first state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Has {
    pub(super) object: bool,
    pub(super) entry: bool,
    pub(super) memory: bool,
}

impl Model {
    /// Returns a state in which all nodes are connected, know each other, and have trust. `has`
    /// says whether the object exists, and which tiers hold it.
    pub(super) fn initial(&self, has: Has) -> State {
        let nodes = self.beats.len();
        let trust_of = |i: usize| self.trusts.get(i).copied().unwrap_or(1);
        let peer = |i: usize| Peer {
            node: i as u64,
            trust: term(trust_of(i)).trust,
            time: millis(1),
        };
        let set = PeerSet {
            epoch: 1,
            time: millis(1),
            nodes: (0..nodes).map(peer).collect(),
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
                has_shared_channel: true,
                inbox: Vec::new(),
                beat: None,
                beats: *beats,
                check: None,
                checks: self.checks.get(i).copied().unwrap_or(0),
                latest: None,
                loads_started: 0,
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
                    epochs: 1,
                    recorded: 0,
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
}

impl State {
    /// Makes a node absent: it is not connected, and no other node knows it.
    pub(super) fn absent(mut self, n: usize) -> Self {
        let node = &mut self.nodes[n];
        if let Some(session) = node.session.take() {
            node.peers.disconnect(session);
        }
        node.coherence.disconnected();
        if let Some((_, nodes)) = &mut self.redis.data.nodes {
            nodes[n] = None;
        }
        self
    }
}
