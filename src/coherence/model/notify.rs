//! Models how a change notifies the other nodes, and which of them it awaits.

use super::Model;
use super::state::change::{ChangeAt, Kind, Notifying, Signing};
use super::state::{KEY, State};
use super::ticks::{at, long_ago, millis};
use crate::coherence::change::ChangeStep;
use crate::coherence::message::Message;
use crate::coherence::peers::PeerTracker;
use crate::coherence::peers::awaited::Awaited;
use crate::coherence::peers::peer_set::{Peer, PeerSet};
use crate::coherence::rules::Rule;
use crate::types::link::WireName;

impl Model {
    /// Takes the next step of notifying the other nodes. These steps go on beside the backend's
    /// call.
    pub(super) fn notify(&self, state: &mut State, i: usize) -> Option<()> {
        let change = &state.changes[i];
        let is_due = matches!(
            change.at,
            ChangeAt::Next(
                ChangeStep::Publish | ChangeStep::Call { fenced: true } | ChangeStep::PublishAgain
            ) | ChangeAt::Queued { session: Some(_) }
                | ChangeAt::Signing(Signing::Notify | Signing::Expired)
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
            if self.bends(Rule::PeerSetReadAfterThePublish)
                && change.at == ChangeAt::Next(ChangeStep::Begin)
                && matches!(change.notifying, Notifying::Not)
            {
                let awaited = self.awaited(state, i);
                state.changes[i].notifying = Notifying::Early(awaited);
                return Some(());
            }
            return None;
        }
        state.changes[i].notifying = match &change.notifying {
            Notifying::Not => Notifying::Awaiting(self.publish(state, i)?),
            Notifying::Early(awaited) => {
                let awaited = awaited.clone();
                self.publish(state, i)?;
                Notifying::Awaiting(awaited)
            }
            Notifying::Awaiting(awaited)
                if awaited.is_over(at(state.now))
                    || self.bends(Rule::WaitingForAcknowledgements) =>
            {
                Notifying::Over
            }
            Notifying::Awaiting(_) | Notifying::Over => return None,
        };
        Some(())
    }

    /// Publishes the message of a change, and reads the peer set in the same script.
    pub(super) fn publish(&self, state: &mut State, i: usize) -> Option<Awaited> {
        let n = state.changes[i].node;
        self.session_of(state, i)?;
        let change = &mut state.changes[i];
        // A message with id 0 would ask for no acknowledgement.
        change.id = 1 + 10 * i as u64 + u64::from(change.notices);
        change.notices += 1;
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
            let receives = node.session.is_some() && node.has_shared_channel;
            if receives && node.server == sender.server {
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
        let (epoch, peer) = state.data_of(n).nodes.clone().unwrap_or_default();
        let peer = peer.iter().enumerate().filter_map(|(node, peer)| {
            peer.map(|time| Peer {
                node: node as u64,
                trust: state.nodes[node].peers.term().trust,
                time,
            })
        });
        let mut set = PeerSet {
            epoch,
            time,
            nodes: peer.collect(),
        };
        if self.bends(Rule::AStepHidesNoPeer) {
            set.nodes.retain(|peer| {
                let age = u128::from(time - peer.time);
                age <= 2 * peer.trust.as_millis()
            });
        }
        let (asked, published) = (at(now), at(published));
        // With a bent rule, the node's tracker is replaced by one that knows too little.
        if let Some(mut bent_tracker) = self.bent_tracker(state, n, &mut set) {
            return bent_tracker.awaited(&set, asked, published);
        }
        state.nodes[n].peers.awaited(&set, asked, published)
    }

    /// If a rule that waits T is bent, returns a tracker to which the peer set seems known, or
    /// which has forgotten what it should remember.
    fn bent_tracker(&self, state: &State, n: usize, set: &mut PeerSet) -> Option<PeerTracker> {
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
            Rule::WaitWhenThePeerSetIsLost | Rule::WaitWhenJustConnected => {
                if !set.nodes.iter().any(|peer| peer.node == own.node) {
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
