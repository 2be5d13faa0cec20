//! Peers: which other nodes there are, what they say, and when all of them have forgotten.
//!
//! A node subscribes the shared channel and one of its own on one connection, the shared one first,
//! and its heartbeats go through the same one. What arrives is applied in order, so a heartbeat that
//! came back proves that every message before it has been applied.

use super::clock::{Reading, ServerClock};
use super::message::Message;
use std::collections::BTreeMap;
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

impl Term {
    /// How long is waited for a peer that trusts for so long. Every margin is the same share of its
    /// trust.
    fn wait(self, trust: Duration) -> Duration {
        let margin = trust.as_nanos() * self.margin.as_nanos() / self.trust.as_nanos().max(1);
        trust + Duration::from_nanos(u64::try_from(margin).unwrap_or(u64::MAX))
    }
}

/// What a node knows of the others.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Peers {
    me: u64,
    base: Instant,
    term: Term,
    /// The longest trust of any peer in the set, as far as is known, our own among them.
    longest: Duration,
    /// The longest trust of the peers that were in the set before this connection, and until when
    /// they may go on trusting.
    before: Option<(Duration, Instant)>,
    session: Option<Session>,
}

/// One connection's time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Session {
    number: u64,
    began: Instant,
    /// When the newest heartbeat was sent, in nanoseconds of the node's life.
    sent: u64,
    /// Which set of nodes it is, and since when that is known.
    born: Option<(u64, Instant)>,
    clock: ServerClock,
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
    /// Forget these keys, as `from` says; then tell `owed` that it is done.
    Forget {
        from: u64,
        names: Vec<u64>,
        owed: Owed,
    },
    /// Forget everything, as `from` says, if that is known; then tell `owed` that it is done.
    Flush { from: Option<u64>, owed: Owed },
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
    /// Each with the end of its own trust; `None` if it is not known who may trust its memory.
    nodes: Option<BTreeMap<u64, Instant>>,
    /// When all trust has lapsed, whoever has it.
    end: Instant,
}

impl Peers {
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

    /// For how long a node may go on trusting what it once knew: the longest trust of anybody that
    /// may still trust, and its margin.
    pub(crate) fn doubt(&self, now: Instant) -> Duration {
        let before = self.before.filter(|(_, until)| now < *until);
        let longest = before.map_or(self.longest, |(trust, _)| self.longest.max(trust));
        self.term.wait(longest)
    }

    /// When everybody has lost the trust that it had then.
    fn lapsed(&self, then: Instant) -> Instant {
        let lapsed = then + self.term.wait(self.longest);
        self.before.map_or(lapsed, |(_, until)| lapsed.max(until))
    }

    /// Both channels are subscribed on a new connection. Its number is never 0, which is the number
    /// of none. A peer that was there before may trust from now on for as long as it ever does: it
    /// may have another connection than this one, to another server.
    pub(crate) fn connect(&mut self, number: u64, now: Instant) {
        let (own, longest) = (self.term.trust, self.longest);
        let mut before = self.before.filter(|(_, until)| now < *until);
        if longest > own {
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
            born: None,
            clock: ServerClock::new(self.base, own),
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
        let session = self.session.as_ref();
        session.is_some_and(|session| session.number == number)
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

    /// The heartbeat that was sent last was noted in this set of nodes, at this time of Redis's.
    pub(crate) fn noted(&mut self, number: u64, (born, time): (u64, u64), now: Instant) {
        if let Some(session) = &mut self.session
            && session.number == number
        {
            session.clock.read(Reading {
                asked: self.base + Duration::from_nanos(session.sent),
                answered: now,
                time,
            });
            if session.born.is_none_or(|(known, _)| known != born) {
                session.born = Some((born, now));
            }
        }
    }

    /// What is to be done about a message that came through a connection; `None` is one that cannot
    /// be understood.
    pub(crate) fn hear(&self, session: u64, message: Option<Message>) -> Heard {
        // Nobody waits for the acknowledgement of a message without an id.
        let owed = |from, id| (from != self.me && id != 0).then_some((from, id));
        match message {
            Some(Message::Invalidate { from, id, names }) => Heard::Forget {
                from,
                names,
                owed: owed(from, id),
            },
            Some(Message::Flush { from, id }) => Heard::Flush {
                from: Some(from),
                owed: owed(from, id),
            },
            Some(Message::Acknowledge { from, id }) => Heard::Acknowledged { from, id },
            // One that was not sent yet is somebody else's.
            Some(Message::Heartbeat { session: of, sent })
                if of == session
                    && self
                        .session
                        .as_ref()
                        .is_some_and(|now| now.number == session && sent <= now.sent) =>
            {
                Heard::Beat {
                    sent: self.base + Duration::from_nanos(sent),
                }
            }
            Some(Message::Heartbeat { .. }) => Heard::Ignore,
            // Of a later version, or damaged: it may have been any of these.
            None => Heard::Flush {
                from: None,
                owed: None,
            },
        }
    }

    /// Who has to acknowledge a message that was published between `asked` and `published`.
    pub(crate) fn awaited(&mut self, roll: &Roll, asked: Instant, published: Instant) -> Awaited {
        let reading = Reading {
            asked,
            answered: published,
            time: roll.time,
        };
        let credible = roll.nodes.iter().filter(|seen| seen.trust <= MOST_TRUST);
        let trusts = credible.clone().map(|seen| seen.trust);
        let oldest = self.term.wait(trusts.max().unwrap_or_default());
        let oldest = oldest.max(self.doubt(published));
        // A set that is younger than any trust is none that we know: where there is no such moment,
        // no clock is steady either.
        let is_steady = published.checked_sub(oldest).is_some_and(|since| {
            let session = self.session.as_ref();
            session.is_some_and(|now| now.clock.is_steady(reading, since, self.term.trust))
        });
        // Where the clock has stepped, nobody's age is known.
        let trusting = credible.filter(|seen| !is_steady || self.may_trust(seen, roll.time));
        let trusting: Vec<_> = trusting.copied().collect();
        let trusts = trusting.iter().map(|seen| seen.trust);
        let longest = trusts.max().unwrap_or_default();
        self.longest = self.longest.max(longest);
        let knows = is_steady && self.knows(roll, published);
        if knows {
            // Whoever is not in the set, or has aged out of it, trusts no more.
            (self.longest, self.before) = (longest.max(self.term.trust), None);
        }
        let others = trusting.iter().filter(|seen| seen.node != self.me);
        let nodes = others.map(|seen| (seen.node, published + self.term.wait(seen.trust)));
        Awaited {
            nodes: knows.then(|| nodes.collect()),
            end: self.lapsed(published),
        }
    }

    /// Whether the roll says who may trust its memory. It does not while we have not known the set
    /// of nodes for long enough to have heard of all of them.
    fn knows(&self, roll: &Roll, now: Instant) -> bool {
        let Some(session) = &self.session else {
            return false;
        };
        let since = |(born, since): (u64, Instant)| (born == roll.born).then_some(since);
        let long_enough = |since: Instant| self.lapsed(since) <= now;
        session.born.and_then(since).is_some_and(long_enough)
            && long_enough(session.began)
            && roll.nodes.iter().all(|seen| seen.trust <= MOST_TRUST)
            && roll.nodes.iter().any(|seen| seen.node == self.me)
    }

    /// Whether a node that was seen then may trust its memory now, by Redis's clock. That clock may
    /// have stepped by our own trust unnoticed, which must hide nobody, however short its own trust.
    fn may_trust(&self, seen: &Seen, now: u64) -> bool {
        // Redis cuts its time to milliseconds.
        const CUT: u128 = 1;
        let trust = self.term.wait(seen.trust) + self.term.trust;
        u128::from(now.saturating_sub(seen.time)) <= trust.as_millis() + CUT
    }
}

/// For the model: nodes that do not remember.
#[cfg(test)]
impl Peers {
    pub(super) fn forget_steps(&mut self) {
        if let Some(session) = &mut self.session {
            session.clock.forget_steps();
        }
    }

    pub(super) fn forget_the_longest(&mut self) {
        (self.longest, self.before) = (self.term.trust, None);
    }
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
        self.nodes.as_ref().is_some_and(BTreeMap::is_empty) || now >= self.end()
    }

    /// When all trust has lapsed that was there before.
    pub(crate) fn end(&self) -> Instant {
        let nodes = self.nodes.as_ref();
        let last = nodes.and_then(|nodes| nodes.values().max());
        last.copied().unwrap_or(self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ME: u64 = 1;
    const PEER: u64 = 2;
    const TRUST: Duration = Duration::from_secs(2);
    const DOUBT: Duration = ms(2100);
    const LONG: Duration = MOST_TRUST;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn term(trust: Duration) -> Term {
        let margin = trust / 20;
        Term { trust, margin }
    }

    /// A node, our clock, and Redis's.
    struct World {
        peers: Peers,
        base: Instant,
        now: u64,
        born: u64,
        /// How far Redis's clock is ahead.
        ahead: i64,
        members: Vec<Seen>,
    }

    impl World {
        /// A node that has just connected.
        fn new(trust: Duration) -> Self {
            let base = Instant::now();
            let mut world = Self {
                peers: Peers::new(ME, term(trust), base),
                base,
                now: 0,
                born: 5,
                ahead: 1_000_000,
                members: Vec::new(),
            };
            world.peers.connect(1, base);
            world.beat();
            world
        }

        fn at(&self) -> Instant {
            self.base + ms(self.now)
        }

        fn time(&self) -> u64 {
            self.now.checked_add_signed(self.ahead).unwrap()
        }

        /// Somebody else's heartbeat is noted.
        fn note(&mut self, node: u64, trust: Duration) {
            let time = self.time();
            self.members.retain(|seen| seen.node != node);
            self.members.push(Seen { node, trust, time });
        }

        /// One of our own.
        fn beat(&mut self) {
            let (now, time) = (self.at(), self.time());
            self.note(ME, self.peers.term().trust);
            let number = self.peers.session.as_ref().map_or(0, |now| now.number);
            self.peers.heartbeat(number, now);
            self.peers.noted(number, (self.born, time), now);
        }

        /// Time goes by, with the heartbeats that belong to it.
        fn pass(&mut self, time: Duration) {
            let pause = self.peers.term().trust.as_millis() as u64 / 4;
            for _ in 0..time.as_millis() as u64 / pause {
                self.now += pause;
                self.beat();
            }
        }

        fn reconnect(&mut self) {
            let number = self.peers.session.as_ref().map_or(0, |now| now.number);
            self.peers.disconnect(number);
            self.peers.connect(number + 1, self.at());
            self.beat();
        }

        /// The set of nodes is lost, and there is a new one.
        fn lose_the_set(&mut self) {
            self.members.clear();
            self.born += 1;
            self.beat();
        }

        fn awaited(&mut self) -> Awaited {
            let roll = Roll {
                born: self.born,
                time: self.time(),
                nodes: self.members.clone(),
            };
            self.peers.awaited(&roll, self.at(), self.at())
        }

        /// How long a change waits if nobody acknowledges.
        fn wait(&mut self) -> Duration {
            let (awaited, now) = (self.awaited(), self.at());
            match awaited.is_over(now) {
                true => Duration::ZERO,
                false => awaited.end() - now,
            }
        }
    }

    #[test]
    fn a_step_between_two_heartbeats_makes_the_set_unknown_until_all_trust_has_lapsed() {
        for step in [-5000, 5000, 2 * 60_000] {
            let mut world = World::new(TRUST);
            world.pass(TRUST * 2);
            world.note(PEER, TRUST);
            assert_eq!(world.awaited().nodes.map(|nodes| nodes.len()), Some(1));
            world.ahead += step;
            world.beat();
            assert_eq!(world.awaited().nodes, None, "{step} ms, one heartbeat");
            world.pass(TRUST);
            assert_eq!(world.awaited().nodes, None, "{step} ms, some heartbeats");
            world.pass(TRUST / 2);
            let awaited = world.awaited().nodes.expect("a set that is known again");
            // Where its clock was set back, a peer seems to have been seen later than now.
            assert_eq!(awaited.len(), usize::from(step < 0));
        }
    }

    #[test]
    fn a_peer_that_is_silent_is_waited_for_as_long_as_it_trusts() {
        let mut world = World::new(TRUST);
        world.note(PEER, LONG);
        world.note(3, TRUST / 2);
        world.pass(LONG * 2);
        world.note(PEER, LONG);
        world.note(3, TRUST / 2);
        let mut awaited = world.awaited();
        assert_eq!(awaited.end() - world.at(), LONG + LONG / 20);
        awaited.acknowledged(PEER);
        let own = TRUST / 2 + TRUST / 40;
        assert_eq!(
            awaited.end() - world.at(),
            own,
            "nobody else trusts so long"
        );
        assert!(awaited.is_over(world.at() + own));
    }

    /// What a change waits that comes just after a reconnection.
    #[test]
    fn the_longest_trust_is_waited_while_its_peer_may_trust_and_no_longer() {
        let long = LONG + LONG / 20;
        let mut world = World::new(TRUST);
        world.note(PEER, LONG);
        assert_eq!(world.wait(), long, "it is in the set");
        world.members.clear();
        world.reconnect();
        assert_eq!(world.wait(), long, "it was until now");
        world.pass(LONG / 2);
        assert_eq!(world.wait(), long - LONG / 2, "it is gone for some time");
        world.reconnect();
        assert_eq!(world.wait(), long - LONG / 2, "which a reconnection leaves");
        world.pass(LONG);
        assert_eq!(world.wait(), Duration::ZERO);
        for _ in 0..3 {
            world.reconnect();
            assert_eq!(world.wait(), DOUBT, "it is forgotten");
            world.pass(DOUBT * 2);
        }
    }

    #[test]
    fn a_peer_that_leaves_a_set_that_is_known_is_forgotten_at_once() {
        let mut world = World::new(TRUST);
        world.note(PEER, LONG);
        world.awaited();
        world.pass(LONG * 2);
        world.note(PEER, LONG);
        assert_eq!(world.wait(), LONG + LONG / 20, "it is in the set");
        world.members.retain(|seen| seen.node != PEER);
        assert_eq!(world.wait(), Duration::ZERO);
        world.reconnect();
        assert_eq!(world.wait(), DOUBT);
    }

    #[test]
    fn a_peer_that_has_died_ages_out_of_a_set() {
        let mut world = World::new(TRUST);
        world.note(PEER, LONG);
        world.awaited();
        world.pass(LONG);
        assert_eq!(world.awaited().nodes, None, "not known for so long");
        world.pass(LONG);
        assert_eq!(world.wait(), Duration::ZERO, "it is still a member");
        world.reconnect();
        world.pass(DOUBT + TRUST);
        assert!(
            world.wait() > DOUBT,
            "a clock that is new says little of ages"
        );
        world.members.retain(|seen| seen.node != PEER);
        world.pass(LONG * 2);
        assert_eq!(world.wait(), Duration::ZERO);
        world.reconnect();
        assert_eq!(world.wait(), DOUBT);
    }

    #[test]
    fn a_set_that_is_lost_takes_nobody_s_trust() {
        let mut world = World::new(TRUST);
        world.note(PEER, LONG);
        world.awaited();
        world.pass(LONG * 2);
        world.note(PEER, LONG);
        world.awaited();
        world.lose_the_set();
        assert_eq!(world.wait(), LONG + LONG / 20, "it trusts all the same");
    }

    #[test]
    fn no_session_is_like_no_other() {
        let now = Instant::now();
        let mut peers = Peers::new(ME, term(TRUST), now);
        for connected in [None, Some(0), Some(1)] {
            if let Some(number) = connected {
                peers.connect(number, now);
            }
            let beat = peers.heartbeat(0, now);
            assert_eq!(peers.hear(0, Some(beat)), Heard::Ignore, "{connected:?}");
            peers.noted(0, (5, 0), now);
            assert!(!peers.disconnect(0), "{connected:?}");
            let roll = Roll {
                born: 0,
                time: 0,
                nodes: Vec::new(),
            };
            assert_eq!(peers.awaited(&roll, now, now).nodes, None);
        }
        let beat = peers.heartbeat(1, now);
        assert_eq!(peers.hear(1, Some(beat)), Heard::Beat { sent: now });
    }

    #[test]
    fn nothing_is_owed_for_a_message_without_an_id() {
        let peers = Peers::new(ME, term(TRUST), Instant::now());
        for id in [0, 7] {
            let owed = (id != 0).then_some((PEER, id));
            let (from, names) = (PEER, vec![3]);
            let message = Message::Invalidate {
                from,
                id,
                names: names.clone(),
            };
            assert_eq!(
                peers.hear(1, Some(message)),
                Heard::Forget { from, names, owed }
            );
            let from = Some(PEER);
            assert_eq!(
                peers.hear(1, Some(Message::Flush { from: PEER, id })),
                Heard::Flush { from, owed }
            );
        }
    }

    proptest! {
        /// Whatever nodes trust, and whenever Redis's clock steps: a change is not over before the
        /// peer has lost the trust that it had.
        #[test]
        fn no_step_hides_a_peer_whatever_each_trusts(
            own in prop::sample::select(vec![200u64, 600, 2000, 60_000]),
            theirs in prop::sample::select(vec![20u64, 200, 600, 2000, 60_000]),
            steps in prop::collection::vec(
                prop_oneof![-3000..3000i64, -150_000..150_000i64], 0..4
            ),
            pauses in prop::collection::vec(0..6u32, 4),
            last_beat in 0..4usize,
            loss in 0..6usize,
        ) {
            let mut world = World::new(ms(own));
            let mut until = world.at();
            // Long enough for all to be known to all.
            world.note(PEER, ms(theirs));
            world.awaited();
            world.pass(ms(2 * own.max(theirs)));
            for (i, pause) in pauses.into_iter().enumerate() {
                if i <= last_beat {
                    world.note(PEER, ms(theirs));
                    until = world.at() + ms(theirs);
                    if i == 0 {
                        world.awaited();
                    }
                }
                if let Some(step) = steps.get(i) {
                    world.ahead += step;
                }
                match loss.checked_sub(i) {
                    Some(0) => world.lose_the_set(),
                    Some(1) => world.reconnect(),
                    _ => {}
                }
                world.now += 1;
                world.beat();
                let awaited = world.awaited();
                if awaited.is_over(world.at()) {
                    prop_assert!(until <= world.at(), "nobody is awaited");
                }
                prop_assert!(awaited.end() >= until || until <= world.at(), "it trusts for longer");
                world.pass(ms(own / 4) * pause);
            }
        }
    }
}
