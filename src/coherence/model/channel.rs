//! The channel: heartbeats, what arrives, connections that are lost and made.

use super::Model;
use super::rules::Rule;
use super::state::{Check, KEY, State, Telling, at};
use crate::coherence::message::Message;
use crate::coherence::peers::Heard;
use crate::coherence::trust::Proof;

impl Model {
    /// A node sends a heartbeat.
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

    /// A heartbeat is executed: the node is noted, and the message comes back.
    pub(super) fn note(&self, state: &mut State, n: usize) -> Option<()> {
        let (now, time) = (at(state.now), state.redis_time());
        let (count, arrives) = (state.nodes.len(), state.reaches(n) || state.lags(n));
        let beat = state.nodes[n].beat.take()?;
        let session = state.nodes[n].session.filter(|_| arrives)?;
        let data = state.data_of(n);
        if data.nodes.is_none() {
            data.births += 1;
        }
        let births = data.births;
        let (born, seen) = data
            .nodes
            .get_or_insert_with(|| (births, vec![None; count]));
        seen[n] = Some(time);
        let born = *born;
        let node = &mut state.nodes[n];
        node.peers.noted(session, (born, time), now);
        node.inbox.push(beat);
        Some(())
    }

    /// A node applies what came first, or, where the order is bent, what came as number `i`.
    pub(super) fn hear(&self, state: &mut State, n: usize, i: usize) -> Option<()> {
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
        let mut heard = node.peers.hear(session, Some(message));
        if let Heard::Beat { sent } = &mut heard
            && self.bends(Rule::TrustCountsFromTheSending)
        {
            *sent = now;
        }
        let trust = node.peers.term().trust;
        let owed = node.coherence.apply(&heard, trust);
        if let Some((to, id)) = owed
            && let Some(sender) = state.nodes.get_mut(to as usize)
            && sender.session.is_some()
        {
            sender
                .inbox
                .push(Message::Acknowledge { from: n as u64, id });
        }
        if let Heard::Acknowledged { from, id } = heard {
            for change in &mut state.changes {
                if change.node == n
                    && (change.id == id || self.bends(Rule::AcknowledgementsCarryTheId))
                    && let Telling::Awaiting(awaited) | Telling::Early(awaited) =
                        &mut change.telling
                {
                    awaited.acknowledged(from);
                }
            }
        }
        Some(())
    }

    /// A connection is lost, with all that was on its way through it.
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

    /// A connection is made: both channels subscribed, what another server knew purged.
    pub(super) fn connect(&self, state: &mut State, n: usize) -> Option<()> {
        let now = at(state.now);
        if state.nodes[n].session.is_some() && !state.reaches(n) {
            return self.disconnect(state, n);
        }
        let node = &mut state.nodes[n];
        if node.session.is_some() {
            if self.bends(Rule::SharedChannelFirst) && !node.hears_shared {
                node.hears_shared = true;
                return Some(());
            }
            return None;
        }
        let session = state.sessions;
        state.sessions += 1;
        node.session = Some(session);
        node.server = state.redis.server;
        node.hears_shared = !self.bends(Rule::SharedChannelFirst);
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
        if data.noted != server {
            data.noted = server;
            if !self.bends(Rule::PurgeAfterAFailover) {
                data.slot.lease = None;
                data.slot.entry = None;
            }
        }
        Some(())
    }

    /// The replica becomes the primary: what it had not heard of is lost. The nodes notice when they
    /// do.
    pub(super) fn fail_over(&self, state: &mut State) -> Option<()> {
        state.redis.data = state.redis.replica.take()?;
        state.redis.server += 1;
        Some(())
    }

    /// A node asks whether the primary has moved; later the answer arrives.
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

    /// Whether a node has a live positive in memory that it trusts.
    pub(super) fn answers(state: &State, n: usize) -> bool {
        let node = &state.nodes[n];
        let trusted = node.coherence.trusted(at(state.now));
        trusted.is_some_and(|trusted| node.memory == Some(trusted.stamp(&KEY)))
    }
}
