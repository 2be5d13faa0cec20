//! Models how a change notifies the other nodes, and which of them it awaits.

use super::Model;
use super::rules::Rule;
use super::signed::Signing;
use super::state::{ChangeAt, KEY, Kind, State, Telling, at, long_ago, millis};
use crate::coherence::change::ChangeStep;
use crate::coherence::message::Message;
use crate::coherence::peers::PeerTracker;
use crate::coherence::peers::awaited::Awaited;
use crate::coherence::peers::peer_set::{Peer, PeerSet};
use crate::types::link::WireName;

impl Model {
    /// Takes the next step of notifying the other nodes. These steps go on beside the backend's
    /// call.
    pub(super) fn tell(&self, state: &mut State, i: usize) -> Option<()> {
        let change = &state.changes[i];
        let is_due = matches!(
            change.at,
            ChangeAt::Next(
                ChangeStep::Publish | ChangeStep::Call { fenced: true } | ChangeStep::PublishAgain
            ) | ChangeAt::Queued { session: Some(_) }
                | ChangeAt::Signing(Signing::Tell | Signing::Expired)
                | ChangeAt::Purging {
                    leases: true,
                    entries: true,
                }
        );
        if change.at == ChangeAt::Signing(Signing::Open) {
            return self.sign_again(state, i);
        }
        if !is_due {
            // Bent: the peer set is read before the message is published.
            if self.bends(Rule::NodesReadAfterThePublish)
                && change.at == ChangeAt::Next(ChangeStep::Begin)
                && matches!(change.telling, Telling::Not)
            {
                let awaited = self.awaited(state, i);
                state.changes[i].telling = Telling::Early(awaited);
                return Some(());
            }
            return None;
        }
        state.changes[i].telling = match &change.telling {
            Telling::Not => Telling::Awaiting(self.publish(state, i)?),
            Telling::Early(awaited) => {
                let awaited = awaited.clone();
                self.publish(state, i)?;
                Telling::Awaiting(awaited)
            }
            Telling::Awaiting(awaited)
                if awaited.is_over(at(state.now))
                    || self.bends(Rule::WaitingForAcknowledgements) =>
            {
                Telling::Over
            }
            Telling::Awaiting(_) | Telling::Over => return None,
        };
        Some(())
    }

    /// Publishes the message of a change, and reads the peer set in the same script.
    pub(super) fn publish(&self, state: &mut State, i: usize) -> Option<Awaited> {
        let n = state.changes[i].node;
        self.session_of(state, i)?;
        let change = &mut state.changes[i];
        // A message with id 0 would ask for no acknowledgement.
        change.id = 1 + 10 * i as u64 + u64::from(change.tellings);
        change.tellings += 1;
        let (from, id) = (n as u64, change.id);
        let message = match change.kind {
            Kind::Purge => Message::Flush { from, id },
            Kind::Delete | Kind::Put | Kind::Replace | Kind::Signed => Message::Invalidate {
                from,
                id,
                names: vec![KEY.wire_name()],
            },
        };
        // The sender does not need its own message: it has already dropped the key.
        for other in (0..state.nodes.len()).filter(|other| *other != n) {
            let (sender, node) = (&state.nodes[n], &state.nodes[other]);
            let hears = node.session.is_some() && node.hears_shared;
            if hears && node.server == sender.server {
                state.nodes[other].inbox.push(message.clone());
            }
        }
        Some(self.awaited(state, i))
    }

    fn awaited(&self, state: &mut State, i: usize) -> Awaited {
        let now = state.now;
        let time = state.redis_time();
        let n = state.changes[i].node;
        let published = match self.bends(Rule::WaitCountsFromTheConfirmation) {
            true => state.changes[i].since,
            false => now,
        };
        let (epoch, seen) = state.data_of(n).nodes.clone().unwrap_or_default();
        let seen = seen.iter().enumerate().filter_map(|(node, seen)| {
            seen.map(|time| Peer {
                node: node as u64,
                trust: state.nodes[node].peers.term().trust,
                time,
            })
        });
        let mut set = PeerSet {
            epoch,
            time,
            nodes: seen.collect(),
        };
        if self.bends(Rule::AStepHidesNoPeer) {
            set.nodes.retain(|seen| {
                let age = u128::from(time - seen.time);
                age <= 2 * seen.trust.as_millis()
            });
        }
        let (asked, published) = (at(now), at(published));
        // With a bent rule, the node's tracker is replaced by one that knows too little.
        if let Some(mut believer) = self.believer(state, n, &mut set) {
            return believer.awaited(&set, asked, published);
        }
        state.nodes[n].peers.awaited(&set, asked, published)
    }

    /// If a rule that waits T is bent, returns a tracker to which the peer set seems known, or
    /// which has forgotten what it should remember.
    fn believer(&self, state: &State, n: usize, set: &mut PeerSet) -> Option<PeerTracker> {
        let mut peers = state.nodes[n].peers.clone();
        let own = Peer {
            node: n as u64,
            trust: peers.term().trust,
            time: set.time,
        };
        let known = |peers: &mut PeerTracker, set: &PeerSet| {
            // The tracker sees a clock that has always been as far ahead as it is now.
            let before = set.time - (millis(state.now) - millis(0));
            let before = before - millis(0);
            peers.connect(99, long_ago());
            peers.noted(99, (set.epoch, before), long_ago());
        };
        match self.bent? {
            Rule::WaitWhenTheNodesAreLost | Rule::WaitWhenJustConnected => {
                if !set.nodes.iter().any(|seen| seen.node == own.node) {
                    set.nodes.push(own);
                }
                set.epoch = set.epoch.max(1);
                known(&mut peers, set);
            }
            Rule::WaitWhenTheClockWasSet => known(&mut peers, set),
            Rule::StepsBetweenHeartbeatsCount => peers.forget_steps(),
            Rule::TheLongestTrustIsRemembered => peers.forget_the_longest(),
            _ => return None,
        }
        Some(peers)
    }
}
