//! Peers: which other nodes there are, what they say, and when all of them have forgotten.
//!
//! A node subscribes the shared channel and one of its own on one connection, the shared one first,
//! and its heartbeats go through the same one. What arrives is applied in order, so a heartbeat that
//! came back proves that every message before it has been applied.

use super::message::Message;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

/// The longest trust that a node may have. One who says more is nobody: otherwise a single value could
/// make all changes wait for ever.
pub(crate) const MOST_TRUST: Duration = Duration::from_secs(60);

/// How long a heartbeat is good for, and how much longer is waited for one who does not answer:
/// clocks differ in speed, and Redis tells time in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Term {
    pub(crate) trust: Duration,
    pub(crate) margin: Duration,
}

/// What a node knows of the others.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Peers {
    me: u64,
    base: Instant,
    term: Term,
    /// The longest trust that was seen of anybody: what is waited where nobody is known.
    longest: Duration,
    session: Option<Session>,
}

/// One connection's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Session {
    number: u64,
    began: Instant,
    /// When the newest heartbeat was sent, in nanoseconds of the node's life.
    sent: u64,
    /// Which set of nodes it is, and since when that is known.
    born: Option<(u64, Instant)>,
    /// When a heartbeat was noted last, by our clock and by Redis's.
    noted: Option<(Instant, u64)>,
}

/// What the script that publishes a message says of the nodes, itself among them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Roll {
    /// Which set of nodes it is.
    pub(crate) born: u64,
    /// Redis's time, in milliseconds.
    pub(crate) time: u64,
    pub(crate) nodes: Vec<Seen>,
}

/// A node in the roll.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Seen {
    pub(crate) node: u64,
    /// How long it trusts.
    pub(crate) trust: Duration,
    /// When, by Redis's clock.
    pub(crate) time: u64,
}

/// What is to be done about a message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Heard {
    /// Forget these keys; then tell `owed` that it is done.
    Forget { names: Vec<u64>, owed: Owed },
    /// Forget everything; then tell `owed` that it is done.
    Flush { owed: Owed },
    /// Somebody has done what our message `id` asked for.
    Acknowledged { from: u64, id: u64 },
    /// The channel works: it brought our heartbeat back that was sent then.
    Beat { sent: Instant },
    /// Nothing.
    Ignore,
}

/// Whom an acknowledgement is owed to, and of which message.
pub(crate) type Owed = Option<(u64, u64)>;

/// Who has not yet said that it forgot, and until when that is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Awaited {
    /// `None` if it is not known who may trust its memory.
    nodes: Option<BTreeSet<u64>>,
    end: Instant,
}

impl Peers {
    pub(crate) const fn new(me: u64, term: Term, base: Instant) -> Self {
        Self {
            me,
            base,
            term,
            longest: term.trust,
            session: None,
        }
    }

    pub(crate) const fn term(&self) -> Term {
        self.term
    }

    /// For how long a node may go on trusting what it once knew: the longest trust of anybody.
    pub(crate) fn doubt(&self) -> Duration {
        self.longest + self.term.margin
    }

    /// Both channels are subscribed on a new connection.
    pub(crate) const fn connect(&mut self, number: u64, now: Instant) {
        self.session = Some(Session {
            number,
            began: now,
            sent: 0,
            born: None,
            noted: None,
        });
    }

    /// A connection is lost. Says whether it was the node's.
    pub(crate) fn disconnect(&mut self, number: u64) -> bool {
        self.session
            .take_if(|session| session.number == number)
            .is_some()
    }

    /// Whether this is the connection that is the node's.
    pub(crate) fn is(&self, number: u64) -> bool {
        self.session.is_some_and(|session| session.number == number)
    }

    /// The heartbeat to send now.
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

    /// A heartbeat was noted in this set of nodes, at this time of Redis's.
    pub(crate) fn noted(&mut self, number: u64, (born, time): (u64, u64), now: Instant) {
        if let Some(session) = &mut self.session
            && session.number == number
        {
            session.noted = Some((now, time));
            if session.born.is_none_or(|(known, _)| known != born) {
                session.born = Some((born, now));
            }
        }
    }

    /// What is to be done about a message that came through a connection; `None` is one that cannot
    /// be understood.
    pub(crate) fn hear(&self, session: u64, message: Option<Message>) -> Heard {
        let owed = |from, id| (from != self.me).then_some((from, id));
        match message {
            Some(Message::Invalidate { from, id, names }) => Heard::Forget {
                names,
                owed: owed(from, id),
            },
            Some(Message::Flush { from, id }) => Heard::Flush {
                owed: owed(from, id),
            },
            Some(Message::Acknowledge { from, id }) => Heard::Acknowledged { from, id },
            // One that was not sent yet is somebody else's.
            Some(Message::Heartbeat { session: of, sent })
                if of == session
                    && self
                        .session
                        .is_some_and(|now| now.number == session && sent <= now.sent) =>
            {
                Heard::Beat {
                    sent: self.base + Duration::from_nanos(sent),
                }
            }
            Some(Message::Heartbeat { .. }) => Heard::Ignore,
            // Of a later version, or damaged: it may have been any of these.
            None => Heard::Flush { owed: None },
        }
    }

    /// Who has to acknowledge a message that was published at the latest at `published`.
    pub(crate) fn awaited(&mut self, roll: &Roll, published: Instant) -> Awaited {
        let trusts = roll.nodes.iter().map(|seen| seen.trust);
        let longest = trusts.filter(|trust| *trust <= MOST_TRUST).max();
        self.longest = self.longest.max(longest.unwrap_or_default());
        let others = roll
            .nodes
            .iter()
            .filter(|seen| seen.node != self.me && may_trust(seen, roll.time));
        Awaited {
            nodes: self
                .knows(roll, published)
                .then(|| others.map(|seen| seen.node).collect()),
            end: published + self.doubt(),
        }
    }

    /// Whether the roll says who may trust its memory. It does not while we have not known the set
    /// of nodes for long enough to have heard of all of them, or if Redis's clock was set.
    fn knows(&self, roll: &Roll, now: Instant) -> bool {
        let Some(session) = self.session else {
            return false;
        };
        let (Some((born, since)), Some((noted, time))) = (session.born, session.noted) else {
            return false;
        };
        let long_enough = |since: Instant| now.saturating_duration_since(since) >= self.doubt();
        let ours = u64::try_from(now.saturating_duration_since(noted).as_millis());
        let theirs = roll.time.checked_sub(time);
        let clock_is_steady = match (ours, theirs) {
            // A node counts as seen for twice as long as it trusts: a smaller step hides nobody.
            (Ok(ours), Some(theirs)) => u128::from(ours.abs_diff(theirs)) < self.most_step(),
            _ => false,
        };
        born == roll.born
            && long_enough(since)
            && long_enough(session.began)
            && clock_is_steady
            && roll.nodes.iter().all(|seen| seen.trust <= MOST_TRUST)
            && roll.nodes.iter().any(|seen| seen.node == self.me)
    }

    fn most_step(&self) -> u128 {
        (self.term.trust / 2).as_millis().max(1)
    }
}

/// Whether a node that was seen then may trust its memory now, by Redis's clock.
fn may_trust(seen: &Seen, now: u64) -> bool {
    u128::from(now.saturating_sub(seen.time)) <= 2 * seen.trust.as_millis()
}

impl Awaited {
    /// A node has acknowledged.
    pub(crate) fn acknowledged(&mut self, from: u64) {
        if let Some(nodes) = &mut self.nodes {
            nodes.remove(&from);
        }
    }

    /// Whether nobody can answer any more what was before.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.nodes.as_ref().is_some_and(BTreeSet::is_empty) || now >= self.end
    }

    /// When all trust has lapsed that was there before.
    pub(crate) const fn end(&self) -> Instant {
        self.end
    }
}
