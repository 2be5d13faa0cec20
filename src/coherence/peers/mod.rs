//! Decides which other nodes a change waits for, and when all of them have dropped the old values.
//!
//! A node subscribes to the shared channel and then to its private channel, both on one connection.
//! Its heartbeats go through the same connection. The node applies all messages in order. A
//! heartbeat that came back therefore proves that every message before it has been applied.

pub(crate) mod awaited;
pub(crate) mod peer_set;
pub(crate) mod term;
#[cfg(test)]
mod tests;

use super::action::{AckRequest, Action};
use super::clock::{Reading, ServerClock};
use super::message::Message;
use super::rules::{Rule, kept};
use awaited::Awaited;
use peer_set::{Peer, PeerSet};
use std::time::Duration;
use term::{MOST_TRUST, Term};
use tokio::time::Instant;

/// Holds what a node knows of the other nodes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PeerTracker {
    me: u64,
    base: Instant,
    term: Term,
    /// The longest trust of any known peer in the set, including this node's own.
    longest: Duration,
    /// The longest trust of the peers that were in the set before this connection, and until when
    /// those peers may trust their memory.
    before: Option<(Duration, Instant)>,
    session: Option<Session>,
}

/// What a node knows since its current connection was made.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Session {
    number: u64,
    began: Instant,
    /// When the newest heartbeat was sent, in nanoseconds of the node's life.
    sent: u64,
    /// The epoch of the peer set, and since when this node has known it.
    epoch: Option<(u64, Instant)>,
    clock: ServerClock,
}

impl PeerTracker {
    pub(crate) const fn new(me: u64, term: Term, base: Instant) -> Self {
        Self {
            me,
            base,
            term,
            longest: term.trust,
            before: None,
            session: None,
        }
    }

    pub(crate) const fn term(&self) -> Term {
        self.term
    }

    /// Returns how long any node may go on using what it once read: the longest trust of all nodes
    /// that may still trust, and its margin.
    pub(crate) fn longest_trust(&self, now: Instant) -> Duration {
        let before = self.before.filter(|(_, until)| now < *until);
        let longest = before.map_or(self.longest, |(trust, _)| self.longest.max(trust));
        self.term.wait(longest)
    }

    /// Returns when every node has lost the trust that it had at `then`.
    fn lapsed(&self, then: Instant) -> Instant {
        let lapsed = then + self.term.wait(self.longest);
        self.before.map_or(lapsed, |(_, until)| lapsed.max(until))
    }

    /// Starts a session, after both channels were subscribed on a new connection. The number 0
    /// means that there is no connection. A peer that was known before may keep its trust for its
    /// whole length from now on, because its connection may lead to another server than this one.
    pub(crate) fn connect(&mut self, number: u64, now: Instant) {
        let (own, longest) = (self.term.trust, self.longest);
        let mut before = self.before.filter(|(_, until)| now < *until);
        if longest > own && kept(Rule::TheLongestTrustIsRemembered) {
            let until = now + self.term.wait(longest);
            before = Some(match before {
                Some((trust, end)) => (trust.max(longest), end.max(until)),
                None => (longest, until),
            });
        }
        (self.longest, self.before) = (own, before);
        self.session = (number != 0).then(|| Session {
            number,
            began: now,
            sent: 0,
            epoch: None,
            clock: ServerClock::new(self.base, own),
        });
    }

    /// Ends the session if its connection is the one that was lost. Returns whether it is.
    pub(crate) fn disconnect(&mut self, number: u64) -> bool {
        self.session
            .take_if(|session| session.number == number)
            .is_some()
    }

    /// Returns whether this is the session's connection.
    pub(crate) fn is(&self, number: u64) -> bool {
        let session = self.session.as_ref();
        session.is_some_and(|session| session.number == number)
    }

    /// Returns the heartbeat to send now.
    pub(crate) fn heartbeat(&mut self, number: u64, now: Instant) -> Message {
        let sent = now.saturating_duration_since(self.base).as_nanos();
        let sent = u64::try_from(sent).unwrap_or(0);
        if let Some(session) = &mut self.session
            && session.number == number
        {
            session.sent = session.sent.max(sent);
        }
        Message::Heartbeat {
            session: number,
            sent,
        }
    }

    /// Records that Redis noted the newest heartbeat: in the peer set of this epoch, at this time
    /// by Redis's clock.
    pub(crate) fn noted(&mut self, number: u64, (epoch, time): (u64, u64), now: Instant) {
        if let Some(session) = &mut self.session
            && session.number == number
        {
            session.clock.read(Reading {
                asked: self.base + Duration::from_nanos(session.sent),
                answered: now,
                time,
            });
            let is_new = |known| known != epoch && kept(Rule::WaitWhenThePeerSetIsLost);
            if session.epoch.is_none_or(|(known, _)| is_new(known)) {
                session.epoch = Some((epoch, now));
            }
        }
    }

    /// Returns what to do about a message that came through a connection. `None` stands for a
    /// message that could not be parsed.
    pub(crate) fn on_message(&self, session: u64, message: Option<Message>) -> Action {
        // The sender of a message with id 0 expects no acknowledgement.
        let ack = |to, id| (to != self.me && id != 0).then_some(AckRequest { to, id });
        match message {
            Some(Message::Invalidate { from, id, names }) => Action::Forget {
                from,
                names,
                ack: ack(from, id),
            },
            Some(Message::Flush { from, id }) => Action::Flush {
                from: Some(from),
                ack: ack(from, id),
            },
            Some(Message::Acknowledge { from, id }) => Action::Acknowledged { from, id },
            // A heartbeat that this node has not sent yet is not its own.
            Some(Message::Heartbeat { session: of, sent })
                if of == session
                    && self
                        .session
                        .as_ref()
                        .is_some_and(|now| now.number == session && sent <= now.sent) =>
            {
                Action::Beat {
                    sent: self.base + Duration::from_nanos(sent),
                }
            }
            Some(Message::Heartbeat { .. }) => Action::Ignore,
            // The message is damaged or of a later version. It may have been an invalidation.
            None => Action::Flush {
                from: None,
                ack: None,
            },
        }
    }

    /// Returns the nodes that have to acknowledge a message, which was published between `asked`
    /// and `published`.
    pub(crate) fn awaited(&mut self, set: &PeerSet, asked: Instant, published: Instant) -> Awaited {
        let reading = Reading {
            asked,
            answered: published,
            time: set.time,
        };
        let credible = set.nodes.iter().filter(|peer| peer.trust <= MOST_TRUST);
        let trusts = credible.clone().map(|peer| peer.trust);
        let oldest = self.term.wait(trusts.max().unwrap_or_default());
        let oldest = oldest.max(self.longest_trust(published));
        // Redis's clock must have been steady for at least the longest trust. If no `Instant`
        // exists that far in the past, the clock does not count as steady.
        let is_steady = published.checked_sub(oldest).is_some_and(|since| {
            let session = self.session.as_ref();
            session.is_some_and(|now| now.clock.is_steady(reading, since, self.term.trust))
        });
        // If the clock has stepped, no peer's age is known, so every peer counts.
        let trusting = credible.filter(|peer| !is_steady || self.may_trust(peer, set.time));
        let trusting: Vec<_> = trusting.copied().collect();
        let trusts = trusting.iter().map(|peer| peer.trust);
        let longest = trusts.max().unwrap_or_default();
        self.longest = self.longest.max(longest);
        let knows = is_steady && self.knows(set, published);
        if knows {
            // A node that is not in the set, or is too old in it, no longer trusts its memory.
            (self.longest, self.before) = (longest.max(self.term.trust), None);
        }
        let others = trusting.iter().filter(|peer| peer.node != self.me);
        let nodes = others.map(|peer| (peer.node, published + self.term.wait(peer.trust)));
        Awaited {
            nodes: knows.then(|| nodes.collect()),
            end: self.lapsed(published),
        }
    }

    /// Returns whether the peer set lists every node that may trust its memory. This holds only
    /// after this node has known the set, and has been connected, for as long as any node may
    /// trust. A node that was not in the set by then has lost its trust.
    fn knows(&self, set: &PeerSet, now: Instant) -> bool {
        let Some(session) = &self.session else {
            return false;
        };
        let is_same = |epoch| epoch == set.epoch || !kept(Rule::WaitWhenThePeerSetIsLost);
        let since = |(epoch, since): (u64, Instant)| is_same(epoch).then_some(since);
        let long_enough =
            |since: Instant| self.lapsed(since) <= now || !kept(Rule::WaitWhenJustConnected);
        session.epoch.and_then(since).is_some_and(long_enough)
            && long_enough(session.began)
            && set.nodes.iter().all(|peer| peer.trust <= MOST_TRUST)
            && set.nodes.iter().any(|peer| peer.node == self.me)
    }

    /// Returns whether a peer may trust its memory at Redis's time `now`. Redis's clock may have
    /// stepped by this node's own trust without notice. The bound includes such a step, so that it
    /// hides no peer, however short the peer's own trust is.
    fn may_trust(&self, peer: &Peer, now: u64) -> bool {
        // Redis truncates its time to milliseconds.
        const CUT: u128 = 1;
        let unnoticed = match kept(Rule::AStepHidesNoPeer) {
            true => self.term.trust,
            false => Duration::ZERO,
        };
        let trust = self.term.wait(peer.trust) + unnoticed;
        u128::from(now.saturating_sub(peer.time)) <= trust.as_millis() + CUT
    }
}

/// For the model: nodes that forget what they should remember.
#[cfg(test)]
impl PeerTracker {
    pub(super) fn forget_steps(&mut self) {
        if let Some(session) = &mut self.session {
            session.clock.forget_steps();
        }
    }

    pub(super) fn forget_the_longest(&mut self) {
        (self.longest, self.before) = (self.term.trust, None);
    }
}
