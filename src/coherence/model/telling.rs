//! How a change tells the other nodes, and whom it waits for.

use super::Model;
use super::rules::Rule;
use super::state::{ChangeAt, KEY, Kind, State, Telling, at};
use crate::coherence::change::Step;
use crate::coherence::message::Message;
use crate::coherence::peers::{Awaited, Peers, Roll, Seen};
use crate::link::WireName;
use std::time::Duration;

impl Model {
    /// The telling, which goes on beside the call.
    pub(super) fn tell(&self, state: &mut State, i: usize) -> Option<()> {
        let change = &state.changes[i];
        let is_due = matches!(
            change.at,
            ChangeAt::Next(Step::Publish | Step::Call { fenced: true } | Step::Tell)
                | ChangeAt::Owed { session: Some(_) }
                | ChangeAt::Purging {
                    leases: true,
                    entries: true,
                }
        );
        if !is_due {
            // Bent: the nodes are read before the message is published.
            if self.bends(Rule::NodesReadAfterThePublish)
                && change.at == ChangeAt::Next(Step::Begin)
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

    /// The message is published, and the nodes are read in the same script.
    pub(super) fn publish(&self, state: &mut State, i: usize) -> Option<Awaited> {
        let n = state.changes[i].node;
        self.session_of(state, i)?;
        let change = &mut state.changes[i];
        change.id = 10 * i as u64 + u64::from(change.tellings);
        change.tellings += 1;
        let (from, id) = (n as u64, change.id);
        let message = match change.kind {
            Kind::Purge => Message::Flush { from, id },
            Kind::Delete | Kind::Put | Kind::Replace => Message::Invalidate {
                from,
                id,
                names: vec![KEY.wire_name()],
            },
        };
        // What its sender hears of it changes nothing: it has forgotten already.
        for other in (0..state.nodes.len()).filter(|other| *other != n) {
            if state.reaches(other) && state.nodes[other].hears_shared {
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
        let (born, seen) = state.redis.data.nodes.clone().unwrap_or_default();
        let seen = seen.iter().enumerate().filter_map(|(node, seen)| {
            seen.map(|time| Seen {
                node: node as u64,
                trust: Duration::from_secs(1),
                time,
            })
        });
        let mut roll = Roll {
            born,
            time,
            nodes: seen.collect(),
        };
        // A node that believes the roll whatever it says is one that is lied to.
        if let Some(mut believer) = self.believer(state, n, &mut roll) {
            return believer.awaited(&roll, at(published));
        }
        state.nodes[n].peers.awaited(&roll, at(published))
    }

    /// Where a rule that waits T is bent: a node to which the roll looks as if it were known.
    fn believer(&self, state: &State, n: usize, roll: &mut Roll) -> Option<Peers> {
        let own = Seen {
            node: n as u64,
            trust: Duration::from_secs(1),
            time: roll.time,
        };
        let peers = state.nodes[n].peers.clone();
        let since = |peers: &Peers, session: u64, tick: u8, roll: &Roll| {
            let mut peers = peers.clone();
            peers.connect(session, at(tick));
            peers.noted(session, (roll.born, 0), at(tick));
            peers.noted(session, (roll.born, roll.time), at(state.now));
            peers
        };
        if self.bends(Rule::WaitWhenTheNodesAreLost) || self.bends(Rule::WaitWhenJustConnected) {
            if !roll.nodes.iter().any(|seen| seen.node == own.node) {
                roll.nodes.push(own);
            }
            roll.born = roll.born.max(1);
            return Some(since(&peers, 99, 0, roll));
        }
        if self.bends(Rule::WaitWhenTheClockWasSet) {
            return Some(since(&peers, 99, 0, roll));
        }
        None
    }
}
