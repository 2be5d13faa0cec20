//! One run under one seed.

use super::cut::Cut;
use super::finding::Finding;
use super::machine::{NodeConfig, Time};
use super::network::Slowness;
use super::plan::plan;
use super::request::Request;
use super::rest::{decide, finish, leave, prepare, rest, settle};
use super::shape::Shape;
use super::traffic::{Limits, REPOSITORIES};
use super::world::World;
use histories::check::check;
use histories::record::Fact;
use layercache::{Freshness, RedisConfig};
use std::fmt;
use std::time::Duration;

/// How long clients send requests, in seconds. Most seeds are small.
const BUSY: [u64; 6] = [3, 3, 4, 4, 5, 10];
/// How many blobs there are. With few blobs, changes and loads of the same key meet.
const BLOBS: [u32; 6] = [1, 2, 3, 5, 8, 11];
/// How long half of the store's calls may take, in milliseconds. The longer they take, the more often
/// something else happens meanwhile.
const SPEEDS: [u64; 5] = [1, 1, 8, 60, 300];
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
/// One in this many calls of the store fails; 0 for none.
const FAILURES: [u32; 5] = [0, 0, 0, 40, 10];
/// Out of how many requests the number of changes is counted.
const CHANGES: u32 = 100;
/// How many of the requests are changes. With few changes an outdated answer stays for long.
const SHARES: [u32; 5] = [40, 20, 20, 5, 2];
/// In one of this many runs, clients let nodes sign URLs for changes. The fences of these URLs stand
/// for two minutes longer than the URLs, so such a run takes long.
const SIGNING: u32 = 25;
/// One of this many requests of such a run asks for a URL.
const SIGNED: u32 = 60;
/// How long a read may wait for Redis.
const READ: Time = Duration::from_millis(50);
/// How long a load pauses for the fill of another node, in all.
const PAUSES: Time = Duration::from_millis(315);
/// How much later than its deadline a request may end: timers count in whole milliseconds.
const SLACK: Time = Duration::from_millis(5);
/// How long a fence stands after its last renewal, in milliseconds. No call of the store is that late.
const FENCES: [u64; 3] = [2_500, 4_000, 6_000];

/// What a run has found.
#[derive(Debug)]
pub(crate) struct Outcome {
    seed: u64,
    pub(crate) decided: usize,
    wrong: usize,
    nodes: usize,
    pub(crate) servers: &'static str,
    pub(crate) faults: usize,
    /// How many requests were drawn.
    pub(crate) requests: usize,
    /// How long clients sent requests, in milliseconds.
    pub(crate) busy: u64,
    pub(crate) hash: u64,
    pub(crate) finding: Option<Finding>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seed,
            decided,
            wrong,
            nodes,
            servers,
            faults,
            hash,
            ..
        } = self;
        write!(
            f,
            "seed {seed}: {decided} reads decided, {wrong} wrong, {nodes} nodes, {servers}, \
             {faults} faults, history {hash:016x}"
        )
    }
}

fn draw_trust(random: &mut fastrand::Rng) -> Time {
    let millis = random.choice([200, 500, 1_000, 2_000]);
    Duration::from_millis(millis.expect("there are some"))
}

/// Draws the configuration of each node, how long requests may take, and the longest trust. The nodes
/// differ in some runs, as during an upgrade.
fn configs(
    random: &mut fastrand::Rng,
    shape: Shape,
    nodes: usize,
) -> (Vec<NodeConfig>, Limits, Time) {
    let first = draw_trust(random);
    let differ = random.u32(..3) == 0;
    let trusts = (0..nodes).map(|_| if differ { draw_trust(random) } else { first });
    let trusts: Vec<_> = trusts.collect();
    let longest = trusts.iter().max().copied().unwrap_or(first);
    let (config, limits) = config(random, shape, longest);
    let of = |trust| NodeConfig {
        redis: config.redis.clone().with_trust_timeout(trust),
        ..config.clone()
    };
    (trusts.into_iter().map(of).collect(), limits, longest)
}

fn config(random: &mut fastrand::Rng, shape: Shape, trust: Time) -> (NodeConfig, Limits) {
    let millis = Duration::from_millis;
    let change = millis(random.u64(500..5_000));
    let fence = random.choice(FENCES).expect("there are some");
    let redis = RedisConfig::new(shape.url())
        .with_trust_timeout(trust)
        .with_timeout(READ)
        .with_change_timeout(change)
        .with_fence_ttl(millis(fence))
        .with_lease_ttl(millis(random.u64(1_000..5_000)));
    let config = NodeConfig {
        redis,
        verified: (random.u32(..4) == 0).then_some(0.05),
        is_shared: random.u32(..6) == 0,
    };
    let limits = Limits {
        read: READ * 3 + PAUSES * 2 + SLACK,
        change: change + trust * 21 / 20 * 2 + SLACK,
    };
    (config, limits)
}

/// Runs a seed.
pub(crate) fn run(seed: u64) -> Outcome {
    run_cut(seed, &Cut::default())
}

/// Runs a part of a seed.
pub(crate) fn run_cut(seed: u64, cut: &Cut) -> Outcome {
    fastrand::seed(seed);
    let mut random = fastrand::Rng::with_seed(seed);
    let nodes = random.usize(2..5);
    let blobs = random.choice(BLOBS).expect("there are some");
    let shape = Shape::draw(&mut random);
    let (configs, limits, longest) = configs(&mut random, shape, nodes);
    let mut world = World::new(random.u64(..), blobs, shape);
    world.limits = limits;
    world.changes = random.choice(SHARES).expect("there are some");
    world.store_speed.slow = random.choice(SPEEDS).expect("there are some");
    world.store_speed.share = 50;
    world.store_speed.one_in = random.choice(FAILURES).expect("there are some");
    world.store_faults = world.store_speed;
    world.network.usual = random.choice(NETWORKS).expect("there are some");
    world.network.slow = world.network.usual;
    prepare(&mut world);
    world.configs = configs;
    world.machines.resize_with(nodes, || None);
    for machine in 0..nodes {
        world.start(machine);
    }
    let signs = random.u32(..SIGNING) == 0;
    let busy = random.choice(BUSY).expect("there are some");
    let busy = Duration::from_secs(busy);
    let planned = plan(&mut random, nodes, shape, busy);
    let faults = planned.len();
    for planned in cut.of_faults(planned) {
        world.plan(planned);
    }
    let busy = cut.until.map_or(busy, Duration::from_millis);
    let mut requests = 0;
    let mut at = Duration::from_millis(200);
    while at < busy {
        world.run(at);
        let node = random.usize(..nodes);
        let (mut request, patience) = draw_request(&mut random, world.blobs, world.changes);
        if signs && random.u32(..SIGNED) == 0 {
            let facts: Vec<_> = world.facts().collect();
            let fact = facts[random.usize(..facts.len())];
            let time = Duration::from_millis(random.u64(500..5_000));
            request = Request::Sign(fact, random.u32(..4) == 0, time);
        }
        if cut.keeps(requests, request) {
            send(&mut world, node, request, patience);
        }
        requests += 1;
        at += Duration::from_millis(random.u64(..6));
    }
    world.end_faults();
    rest(&mut world);
    decide(&mut world, longest * 21 / 20);
    settle(&mut world);
    finish(&mut world, nodes);
    leave(&mut world);
    for outdated in world
        .values
        .outdated(&world.truth.created, &world.truth.died)
    {
        world.history.failure(outdated);
    }
    let records = world.history.take();
    let verdict = check(&records);
    Outcome {
        seed,
        decided: verdict.decided,
        wrong: verdict.wrong.len() + records.failures.len(),
        nodes,
        servers: shape.name(),
        faults,
        requests,
        busy: busy.as_millis() as u64,
        hash: world.hash,
        finding: Finding::of(&records, &verdict),
    }
}

/// Draws what a client asks for, and how long it waits.
fn draw_request(
    random: &mut fastrand::Rng,
    blobs: u32,
    changes: u32,
) -> (Request, Option<Duration>) {
    let (repository, blob) = (random.u32(..REPOSITORIES), random.u32(..blobs));
    let link = Fact::Link(repository, blob);
    let is_change = random.u32(..CHANGES) < changes;
    let number = if is_change { 800 } else { 0 } + random.u32(..if is_change { 200 } else { 800 });
    let request = match number {
        0..450 => Request::Stat(repository, blob, Freshness::Cached),
        450..460 => Request::Stat(repository, blob, Freshness::Verified),
        460..600 => Request::Contains(repository, blob),
        600..680 => Request::BlobStat(blob),
        680..740 => Request::Get {
            fact: Fact::Blob(blob),
            head: true,
        },
        740..750 => Request::Get {
            fact: Fact::Blob(blob),
            head: false,
        },
        750..780 => Request::Get {
            fact: link,
            head: random.bool(),
        },
        780..798 => Request::StatMany(repository),
        // These are rare, because they remove what an error might have left.
        798 => Request::ClearMemory,
        799 => match random.u32(..10) {
            0 => Request::Purge,
            1..5 => Request::Warm,
            _ => Request::StatMany(repository),
        },
        800..840 => Request::Link(repository, blob),
        840..855 => Request::PutLink(repository, blob),
        855..895 => Request::PutBlob(blob),
        895..905 => Request::Upload(blob),
        905..920 => Request::Mount(repository, blob),
        920..955 => Request::Unlink(repository, blob),
        955..975 => Request::DeleteBlob(blob),
        975..990 => Request::DeleteObject(if random.bool() {
            link
        } else {
            Fact::Blob(blob)
        }),
        _ => Request::DeleteMany(repository),
    };
    let patience = match random.u32(..60) {
        0 => Some(Duration::from_millis(random.u64(1..50))),
        _ => None,
    };
    (request, patience)
}

pub(crate) fn send(world: &mut World, node: usize, request: Request, patience: Option<Duration>) {
    let Some(client) = world.client(node) else {
        return;
    };
    if let Some(machine) = &mut world.machines[node] {
        machine.spawn(client.send(request, patience));
    }
}
