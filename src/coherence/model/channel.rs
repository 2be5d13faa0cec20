//! Models the channel: heartbeats, messages, and connections that are lost and made.

use super::Model;
use super::state::change::Notifying;
use super::state::{Check, KEY, State};
use super::ticks::at;
use crate::coherence::action::{AckRequest, Action};
use crate::coherence::message::Message;
use crate::coherence::rules::Rule;
use crate::coherence::trust::Proof;

impl Model {
    /// Sends a heartbeat of a node.
    pub(super) fn beat(&self, state: &mut State, n: usize) -> Option<()> {
        let now = at(state.now);
        let node = &mut state.nodes[n];
        let session = node.session?;
        if node.beats == 0 || node.beat.is_some() {
            return None;
        }
        node.beats -= 1;
        node.beat = Some(node.peers.heartbeat(session, now));
        Some(())
    }

    /// Executes a heartbeat: Redis notes the node, and pushes the message back to it.
    pub(super) fn note(&self, state: &mut State, n: usize) -> Option<()> {
        let (now, time) = (at(state.now), state.redis_time());
        let (count, arrives) = (state.nodes.len(), state.reaches(n) || state.lags(n));
        let beat = state.nodes[n].beat.take()?;
        let session = state.nodes[n].session.filter(|_| arrives)?;
        let data = state.data_of(n);
        if data.nodes.is_none() {
            data.epochs += 1;
        }
        let epochs = data.epochs;
        let (epoch, seen) = data
            .nodes
            .get_or_insert_with(|| (epochs, vec![None; count]));
        seen[n] = Some(time);
        let epoch = *epoch;
        let node = &mut state.nodes[n];
        node.peers.noted(session, (epoch, time), now);
        node.inbox.push(beat);
        Some(())
    }

    /// Applies the first message of a node's inbox. If the rule of the order is bent, it may apply
    /// a later one, number `i`.
    pub(super) fn on_message(&self, state: &mut State, n: usize, i: usize) -> Option<()> {
        let now = at(state.now);
        let node = &mut state.nodes[n];
        let session = node.session?;
        if i >= node.inbox.len() {
            return None;
        }
        if i > 0
            && !(self.bends(Rule::HeartbeatInOrder)
                && matches!(node.inbox[i], Message::Heartbeat { .. }))
        {
            return None;
        }
        let message = node.inbox.remove(i);
        let mut action = node.peers.on_message(session, Some(message));
        if let Action::Beat { sent } = &mut action
            && self.bends(Rule::TrustCountsFromTheSending)
        {
            *sent = now;
        }
        let trust = node.peers.term().trust;
        let ack = node.coherence.apply(&action, trust);
        if let Some(AckRequest { to, id }) = ack
            && let Some(sender) = state.nodes.get_mut(to as usize)
            && sender.session.is_some()
        {
            sender
                .inbox
                .push(Message::Acknowledge { from: n as u64, id });
        }
        if let Action::Acknowledged { from, id } = action {
            for change in &mut state.changes {
                if change.node == n
                    && (change.id == id || self.bends(Rule::AcknowledgementsCarryTheId))
                    && let Notifying::Awaiting(awaited) | Notifying::Early(awaited) =
                        &mut change.notifying
                {
                    awaited.acknowledged(from);
                }
            }
        }
        Some(())
    }

    /// Ends a node's connection. All messages on it are lost.
    pub(super) fn disconnect(&self, state: &mut State, n: usize) -> Option<()> {
        let node = &mut state.nodes[n];
        let session = node.session.take()?;
        node.inbox.clear();
        (node.beat, node.check) = (None, None);
        if node.peers.disconnect(session) {
            node.coherence.disconnected();
        }
        Some(())
    }

    /// Connects a node: it subscribes to both channels, and purges the entries of another server.
    pub(super) fn connect(&self, state: &mut State, n: usize) -> Option<()> {
        let now = at(state.now);
        if state.nodes[n].session.is_some() && !state.reaches(n) {
            return self.disconnect(state, n);
        }
        let node = &mut state.nodes[n];
        if node.session.is_some() {
            if self.bends(Rule::SharedChannelFirst) && !node.has_shared_channel {
                node.has_shared_channel = true;
                return Some(());
            }
            return None;
        }
        let session = state.sessions;
        state.sessions += 1;
        node.session = Some(session);
        node.server = state.redis.server;
        node.has_shared_channel = !self.bends(Rule::SharedChannelFirst);
        match self.bends(Rule::FlushOnResubscribe) {
            true => node.coherence.disconnected(),
            false => node.coherence.connected(),
        }
        node.peers.connect(session, now);
        if self.asks(n) {
            let trust = node.peers.term().trust;
            node.coherence.trust.proven(Proof::Place, now, trust);
        }
        let (data, server) = (&mut state.redis.data, state.redis.server);
        if data.recorded != server {
            data.recorded = server;
            if !self.bends(Rule::PurgeAfterAFailover) {
                data.slot.lease = None;
                data.slot.entry = None;
            }
        }
        Some(())
    }

    /// Makes the replica the primary. The writes that it did not receive are lost. Each node
    /// notices the change in a later step.
    pub(super) fn fail_over(&self, state: &mut State) -> Option<()> {
        state.redis.data = state.redis.replica.take()?;
        state.redis.server += 1;
        Some(())
    }

    /// Makes a node ask whether the primary has moved. The answer arrives in a later step.
    pub(super) fn check(&self, state: &mut State, n: usize) -> Option<()> {
        let (now, has_moved) = (state.now, !state.reaches(n));
        let node = &mut state.nodes[n];
        node.session?;
        let Some(Check { begun, has_moved }) = node.check.take() else {
            node.checks = node.checks.checked_sub(1)?;
            let begun = now;
            node.check = Some(Check { begun, has_moved });
            return Some(());
        };
        if has_moved {
            return self.disconnect(state, n);
        }
        let begun = match self.bends(Rule::StandingCountsFromTheBegin) {
            true => now,
            false => begun,
        };
        if self.asks(n) {
            let trust = node.peers.term().trust;
            node.coherence.trust.proven(Proof::Place, at(begun), trust);
        }
        Some(())
    }

    /// Returns whether a node has trust and a current positive in memory.
    pub(super) fn answers(state: &State, n: usize) -> bool {
        let node = &state.nodes[n];
        let trusted = node.coherence.trusted(at(state.now));
        trusted.is_some_and(|trusted| node.memory == Some(trusted.stamp(&KEY)))
    }
}
