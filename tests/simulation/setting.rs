//! [`Setting`]: the servers, the nodes, the store and the clients of a run.

use super::machine::{NodeConfig, Time};
use super::network::Slowness;
use super::shape::Shape;
use super::traffic::Limits;
use super::world::StoreFaults;
use layercache::RedisConfig;
use std::time::Duration;

/// How long clients send requests, in seconds. Most seeds are small.
const BUSY: [u64; 6] = [3, 3, 4, 4, 5, 10];
/// How many blobs there are. With few blobs, changes and loads of the same key meet.
const BLOBS: [u32; 6] = [1, 2, 3, 5, 8, 11];
/// How long half of the store's calls may take, in milliseconds. The longer they take, the more often
/// something else happens meanwhile.
const SPEEDS: [u64; 5] = [1, 1, 8, 60, 300];
/// One in this many calls of the store fails; 0 for none.
const FAILURES: [u32; 5] = [0, 0, 0, 40, 10];
/// How slow the network is. A message that takes longer than a call of the store shows who does not
/// wait for it.
const NETWORKS: [Slowness; 4] = [
    Slowness { most: 0, one_in: 1 },
    Slowness { most: 0, one_in: 1 },
    Slowness {
        most: 12,
        one_in: 1,
    },
    Slowness {
        most: 40,
        one_in: 4,
    },
];
/// How many of 1,000 requests are changes. With few changes an outdated answer stays for long.
const CHANGES: [u32; 5] = [400, 200, 200, 50, 20];
/// How many of 1,000 requests begin a burst.
const BURSTS: [u32; 3] = [0, 30, 100];
/// How long a node trusts its memory, in milliseconds.
const TRUSTS: [u64; 4] = [200, 500, 1_000, 2_000];
/// In one of this many runs, clients let nodes sign URLs for changes. The fences of these URLs stand
/// for two minutes longer than the URLs, so such a run takes long.
const SIGNING: u32 = 20;
/// How long a read may wait for Redis.
const READ: Time = Duration::from_millis(50);
/// How long a load pauses for the fill of another node, in all.
const PAUSES: Time = Duration::from_millis(315);
/// How much later than its deadline a request may end: timers count in whole milliseconds.
const SLACK: Time = Duration::from_millis(5);
/// How long a fence stands after its last renewal, in milliseconds. No call of the store is that late.
const FENCES: [u64; 3] = [2_500, 4_000, 6_000];

/// The servers, the nodes, the store and the clients of a run, while nothing fails.
#[derive(Debug)]
pub(crate) struct Setting {
    pub(crate) shape: Shape,
    pub(crate) blobs: u32,
    /// How long each node trusts its memory. They differ in some runs, as during an upgrade.
    pub(crate) trusts: Vec<Time>,
    pub(crate) busy: Time,
    pub(crate) store: StoreFaults,
    pub(crate) network: Slowness,
    /// A machine that is far from all servers, and how many milliseconds its messages take longer.
    pub(crate) far: Option<(usize, u64)>,
    /// How many of 1,000 requests are changes.
    pub(crate) changes: u32,
    /// How many of 1,000 requests begin a burst.
    pub(crate) bursts: u32,
    /// How many of 1,000 changes delete many objects at once, beside the usual ones.
    pub(crate) batches: u32,
    /// Whether clients let nodes sign URLs.
    pub(crate) signs: bool,
}

/// Draws one of some values.
pub(crate) fn one_of<T: Copy>(random: &mut fastrand::Rng, of: &[T]) -> T {
    of[random.usize(..of.len())]
}

impl Setting {
    pub(crate) fn draw(random: &mut fastrand::Rng) -> Self {
        let nodes = random.usize(2..5);
        let mut setting = Self {
            shape: Shape::draw(random),
            blobs: one_of(random, &BLOBS),
            trusts: vec![Time::ZERO; nodes],
            busy: Duration::from_secs(one_of(random, &BUSY)),
            store: StoreFaults {
                one_in: one_of(random, &FAILURES),
                slow: one_of(random, &SPEEDS),
                share: 50,
            },
            network: one_of(random, &NETWORKS),
            far: None,
            changes: one_of(random, &CHANGES),
            bursts: one_of(random, &BURSTS),
            batches: 0,
            signs: random.u32(..SIGNING) == 0,
        };
        setting.draw_trusts(random, &TRUSTS, 3);
        setting
    }

    /// Draws how long the nodes trust their memory. In one of `differ` runs they differ.
    pub(crate) fn draw_trusts(&mut self, random: &mut fastrand::Rng, of: &[u64], differ: u32) {
        let differ = random.u32(..differ) == 0;
        let first = one_of(random, of);
        for trust in &mut self.trusts {
            *trust = Duration::from_millis(if differ { one_of(random, of) } else { first });
        }
    }

    /// Lets one node trust its memory longer than the others.
    pub(crate) fn one_trusts_longer(&mut self, short: u64, long: u64) {
        self.trusts.fill(Duration::from_millis(short));
        self.trusts[0] = Duration::from_millis(long);
    }

    /// Lets there be many objects, for a scene whose errors last for as long as a trust: then some
    /// object is changed at the right time, although changes of one object are rare.
    pub(crate) fn has_many(&mut self, random: &mut fastrand::Rng) {
        self.blobs = one_of(random, &[5, 8, 11]);
        self.changes = one_of(random, &[20, 40, 60]);
    }

    pub(crate) const fn nodes(&self) -> usize {
        self.trusts.len()
    }

    pub(crate) fn longest_trust(&self) -> Time {
        self.trusts.iter().max().copied().unwrap_or_default()
    }

    /// Draws the rest of the nodes' configurations, and returns how long requests may take.
    pub(crate) fn configs(&self, random: &mut fastrand::Rng) -> (Vec<NodeConfig>, Limits) {
        let millis = Duration::from_millis;
        let change = millis(random.u64(500..5_000));
        let redis = RedisConfig::new(self.shape.url())
            .with_timeout(READ)
            .with_change_timeout(change)
            .with_fence_ttl(millis(one_of(random, &FENCES)))
            .with_lease_ttl(millis(random.u64(1_000..5_000)));
        let verified = (random.u32(..4) == 0).then_some(0.05);
        let is_shared = random.u32(..6) == 0;
        let config = |trust: &Time| NodeConfig {
            redis: redis.clone().with_trust_timeout(*trust),
            verified,
            is_shared,
        };
        let limits = Limits {
            read: READ * 3 + PAUSES * 2 + SLACK,
            change: change + self.longest_trust() * 21 / 20 * 2 + SLACK,
        };
        (self.trusts.iter().map(config).collect(), limits)
    }
}
