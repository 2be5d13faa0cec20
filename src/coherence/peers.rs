//! Decides which other nodes a change waits for, and when all of them have dropped the old values.
//!
//! A node subscribes to the shared channel and then to its private channel, both on one connection.
//! Its heartbeats go through the same connection. The node applies all messages in order. A
//! heartbeat that came back therefore proves that every message before it has been applied.

use super::clock::{Reading, ServerClock};
use super::message::Message;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// The longest trust that a node may have. If an entry of the peer set claims a longer one, the
/// node ignores the claim and treats the set as unknown. Otherwise a single foreign value could
/// make all changes wait for ever.
pub(crate) const MOST_TRUST: Duration = Duration::from_secs(60);

/// A node's trust, and the margin that a change waits beyond a silent peer's trust. The margin is
/// needed because clocks differ in speed, and because Redis tells time in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Term {
    pub(crate) trust: Duration,
    pub(crate) margin: Duration,
}

impl Term {
    /// Returns how long a change waits for a silent peer with this trust. The margin is the same
    /// share of every trust.
    fn wait(self, trust: Duration) -> Duration {
        let margin = trust.as_nanos() * self.margin.as_nanos() / self.trust.as_nanos().max(1);
        trust + Duration::from_nanos(u64::try_from(margin).unwrap_or(u64::MAX))
    }
}

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

/// Lists the nodes that share the Redis, including this one. The script that publishes a message
/// returns it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PeerSet {
    /// Identifies the set: a new set has another epoch.
    pub(crate) epoch: u64,
    /// Redis's time, in milliseconds.
    pub(crate) time: u64,
    pub(crate) nodes: Vec<Peer>,
}

/// A node in the peer set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Peer {
    pub(crate) node: u64,
    /// How long the node trusts its memory after a heartbeat.
    pub(crate) trust: Duration,
    /// When Redis noted the node's newest heartbeat, by Redis's clock in milliseconds.
    pub(crate) time: u64,
}

/// Says what the node does about a message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// Drop these keys from memory, as node `from` asks. Then acknowledge to `owed`.
    Forget {
        from: u64,
        names: Vec<u64>,
        owed: OwedAck,
    },
    /// Drop all keys from memory. Then acknowledge to `owed`. `from` is the sender, if it is known.
    Flush { from: Option<u64>, owed: OwedAck },
    /// Node `from` has done what this node's message `id` asked for.
    Acknowledged { from: u64, id: u64 },
    /// The channel works: the heartbeat that this node sent at `sent` came back.
    Beat { sent: Instant },
    /// Do nothing.
    Ignore,
}

/// The node that expects an acknowledgement, and the id of its message.
pub(crate) type OwedAck = Option<(u64, u64)>;

/// The nodes that have not acknowledged yet, and how long the change waits for them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Awaited {
    /// Each node with the end of its own trust. `None` if the peer set is unknown.
    nodes: Option<BTreeMap<u64, Instant>>,
    /// When the trust of every node has ended, known or unknown.
    end: Instant,
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
            if session.epoch.is_none_or(|(known, _)| known != epoch) {
                session.epoch = Some((epoch, now));
            }
        }
    }

    /// Returns what to do about a message that came through a connection. `None` stands for a
    /// message that could not be parsed.
    pub(crate) fn on_message(&self, session: u64, message: Option<Message>) -> Action {
        // The sender of a message with id 0 expects no acknowledgement.
        let owed = |from, id| (from != self.me && id != 0).then_some((from, id));
        match message {
            Some(Message::Invalidate { from, id, names }) => Action::Forget {
                from,
                names,
                owed: owed(from, id),
            },
            Some(Message::Flush { from, id }) => Action::Flush {
                from: Some(from),
                owed: owed(from, id),
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
                owed: None,
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
        let credible = set.nodes.iter().filter(|seen| seen.trust <= MOST_TRUST);
        let trusts = credible.clone().map(|seen| seen.trust);
        let oldest = self.term.wait(trusts.max().unwrap_or_default());
        let oldest = oldest.max(self.longest_trust(published));
        // Redis's clock must have been steady for at least the longest trust. If no `Instant`
        // exists that far in the past, the clock does not count as steady.
        let is_steady = published.checked_sub(oldest).is_some_and(|since| {
            let session = self.session.as_ref();
            session.is_some_and(|now| now.clock.is_steady(reading, since, self.term.trust))
        });
        // If the clock has stepped, no peer's age is known, so every peer counts.
        let trusting = credible.filter(|seen| !is_steady || self.may_trust(seen, set.time));
        let trusting: Vec<_> = trusting.copied().collect();
        let trusts = trusting.iter().map(|seen| seen.trust);
        let longest = trusts.max().unwrap_or_default();
        self.longest = self.longest.max(longest);
        let knows = is_steady && self.knows(set, published);
        if knows {
            // A node that is not in the set, or is too old in it, no longer trusts its memory.
            (self.longest, self.before) = (longest.max(self.term.trust), None);
        }
        let others = trusting.iter().filter(|seen| seen.node != self.me);
        let nodes = others.map(|seen| (seen.node, published + self.term.wait(seen.trust)));
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
        let since = |(epoch, since): (u64, Instant)| (epoch == set.epoch).then_some(since);
        let long_enough = |since: Instant| self.lapsed(since) <= now;
        session.epoch.and_then(since).is_some_and(long_enough)
            && long_enough(session.began)
            && set.nodes.iter().all(|seen| seen.trust <= MOST_TRUST)
            && set.nodes.iter().any(|seen| seen.node == self.me)
    }

    /// Returns whether a peer may trust its memory at Redis's time `now`. Redis's clock may have
    /// stepped by this node's own trust without notice. The bound includes such a step, so that it
    /// hides no peer, however short the peer's own trust is.
    fn may_trust(&self, seen: &Peer, now: u64) -> bool {
        // Redis truncates its time to milliseconds.
        const CUT: u128 = 1;
        let trust = self.term.wait(seen.trust) + self.term.trust;
        u128::from(now.saturating_sub(seen.time)) <= trust.as_millis() + CUT
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

impl Awaited {
    /// Records the acknowledgement of a node.
    pub(crate) fn acknowledged(&mut self, from: u64) {
        if let Some(nodes) = &mut self.nodes {
            nodes.remove(&from);
        }
    }

    /// Returns whether no node can answer the old values any more.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.nodes.as_ref().is_some_and(BTreeMap::is_empty) || now >= self.end()
    }

    /// Returns when every node has lost the trust that it had before the message.
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

    /// Simulates a node, its clock, and Redis's clock.
    struct World {
        peers: PeerTracker,
        base: Instant,
        now: u64,
        epoch: u64,
        /// How far Redis's clock is ahead, in milliseconds.
        ahead: i64,
        members: Vec<Peer>,
    }

    impl World {
        /// Returns a world with a node that has just connected.
        fn new(trust: Duration) -> Self {
            let base = Instant::now();
            let mut world = Self {
                peers: PeerTracker::new(ME, term(trust), base),
                base,
                now: 0,
                epoch: 5,
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

        /// Notes a heartbeat of a node in the peer set.
        fn note(&mut self, node: u64, trust: Duration) {
            let time = self.time();
            self.members.retain(|seen| seen.node != node);
            self.members.push(Peer { node, trust, time });
        }

        /// Sends a heartbeat of this node.
        fn beat(&mut self) {
            let (now, time) = (self.at(), self.time());
            self.note(ME, self.peers.term().trust);
            let number = self.peers.session.as_ref().map_or(0, |now| now.number);
            self.peers.heartbeat(number, now);
            self.peers.noted(number, (self.epoch, time), now);
        }

        /// Lets time pass, and sends this node's heartbeats meanwhile.
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

        /// Replaces the lost peer set by a new one.
        fn lose_the_set(&mut self) {
            self.members.clear();
            self.epoch += 1;
            self.beat();
        }

        fn awaited(&mut self) -> Awaited {
            let set = PeerSet {
                epoch: self.epoch,
                time: self.time(),
                nodes: self.members.clone(),
            };
            self.peers.awaited(&set, self.at(), self.at())
        }

        /// Returns how long a change waits if no peer acknowledges.
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
            // After Redis's clock was set back, the peer's heartbeat seems to lie in the future.
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

    /// Checks how long a change waits that comes just after a reconnection.
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
        let mut peers = PeerTracker::new(ME, term(TRUST), now);
        for connected in [None, Some(0), Some(1)] {
            if let Some(number) = connected {
                peers.connect(number, now);
            }
            let beat = peers.heartbeat(0, now);
            assert_eq!(
                peers.on_message(0, Some(beat)),
                Action::Ignore,
                "{connected:?}"
            );
            peers.noted(0, (5, 0), now);
            assert!(!peers.disconnect(0), "{connected:?}");
            let set = PeerSet {
                epoch: 0,
                time: 0,
                nodes: Vec::new(),
            };
            assert_eq!(peers.awaited(&set, now, now).nodes, None);
        }
        let beat = peers.heartbeat(1, now);
        assert_eq!(peers.on_message(1, Some(beat)), Action::Beat { sent: now });
    }

    #[test]
    fn nothing_is_owed_for_a_message_without_an_id() {
        let peers = PeerTracker::new(ME, term(TRUST), Instant::now());
        for id in [0, 7] {
            let owed = (id != 0).then_some((PEER, id));
            let (from, names) = (PEER, vec![3]);
            let message = Message::Invalidate {
                from,
                id,
                names: names.clone(),
            };
            assert_eq!(
                peers.on_message(1, Some(message)),
                Action::Forget { from, names, owed }
            );
            let from = Some(PEER);
            assert_eq!(
                peers.on_message(1, Some(Message::Flush { from: PEER, id })),
                Action::Flush { from, owed }
            );
        }
    }

    proptest! {
        /// Checks that a change is not over before the peer has lost the trust that it had. This
        /// holds for any trust of each node and any steps of Redis's clock.
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
            // This is long enough for each node to know the other.
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
