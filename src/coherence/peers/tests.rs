//! Tests of the peer tracker, with a simulated Redis clock.

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
        self.members.retain(|peer| peer.node != node);
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
        let awaited = world.awaited().nodes.expect("the set is known again");
        // After Redis's clock was set back, the peer's heartbeat seems to lie in the future.
        assert_eq!(awaited.len(), usize::from(step < 0));
    }
}

#[test]
fn a_change_waits_for_a_silent_peer_as_long_as_the_peer_trusts() {
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
        "no other peer trusts so long"
    );
    assert!(awaited.is_over(world.at() + own));
}

/// Checks how long a change waits that comes just after a reconnection.
#[test]
fn a_change_waits_for_the_longest_trust_while_its_peer_may_trust_and_no_longer() {
    let long = LONG + LONG / 20;
    let mut world = World::new(TRUST);
    world.note(PEER, LONG);
    assert_eq!(world.wait(), long, "the peer is in the set");
    world.members.clear();
    world.reconnect();
    assert_eq!(world.wait(), long, "the peer was in the set until now");
    world.pass(LONG / 2);
    assert_eq!(
        world.wait(),
        long - LONG / 2,
        "the peer has been gone for some time"
    );
    world.reconnect();
    assert_eq!(
        world.wait(),
        long - LONG / 2,
        "a reconnection does not change that"
    );
    world.pass(LONG);
    assert_eq!(world.wait(), Duration::ZERO);
    for _ in 0..3 {
        world.reconnect();
        assert_eq!(world.wait(), DOUBT, "the peer is forgotten");
        world.pass(DOUBT * 2);
    }
}

#[test]
fn a_peer_that_leaves_a_known_set_is_forgotten_at_once() {
    let mut world = World::new(TRUST);
    world.note(PEER, LONG);
    world.awaited();
    world.pass(LONG * 2);
    world.note(PEER, LONG);
    assert_eq!(world.wait(), LONG + LONG / 20, "the peer is in the set");
    world.members.retain(|peer| peer.node != PEER);
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
    assert_eq!(
        world.awaited().nodes,
        None,
        "the node has not known the set for long enough"
    );
    world.pass(LONG);
    assert_eq!(world.wait(), Duration::ZERO, "the peer is still a member");
    world.reconnect();
    world.pass(DOUBT + TRUST);
    assert!(
        world.wait() > DOUBT,
        "the clock is not known for long enough to tell how old a peer is"
    );
    world.members.retain(|peer| peer.node != PEER);
    world.pass(LONG * 2);
    assert_eq!(world.wait(), Duration::ZERO);
    world.reconnect();
    assert_eq!(world.wait(), DOUBT);
}

#[test]
fn a_peer_keeps_its_trust_when_the_set_is_lost() {
    let mut world = World::new(TRUST);
    world.note(PEER, LONG);
    world.awaited();
    world.pass(LONG * 2);
    world.note(PEER, LONG);
    world.awaited();
    world.lose_the_set();
    assert_eq!(world.wait(), LONG + LONG / 20, "the peer still trusts");
}

#[test]
fn session_0_means_that_there_is_no_connection() {
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
fn a_message_without_an_id_is_not_acknowledged() {
    let peers = PeerTracker::new(ME, term(TRUST), Instant::now());
    for id in [0, 7] {
        let ack = (id != 0).then_some(AckRequest { to: PEER, id });
        let (from, names) = (PEER, vec![3]);
        let message = Message::Invalidate {
            from,
            id,
            names: names.clone(),
        };
        assert_eq!(
            peers.on_message(1, Some(message)),
            Action::Forget { from, names, ack }
        );
        let from = Some(PEER);
        assert_eq!(
            peers.on_message(1, Some(Message::Flush { from: PEER, id })),
            Action::Flush { from, ack }
        );
    }
}

proptest! {
    /// Checks that a change is not over before the peer has lost the trust that it had. This
    /// holds for any trust of each node and any steps of Redis's clock.
    #[test]
    fn no_step_hides_a_peer_however_long_each_node_trusts(
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
                prop_assert!(until <= world.at(), "the change waits for no peer");
            }
            prop_assert!(awaited.end() >= until || until <= world.at(), "the peer trusts for longer than the change waits");
            world.pass(ms(own / 4) * pause);
        }
    }
}
