//! One run under one seed.

use super::faults::{Planned, plan};
use super::machine::{NodeConfig, Time};
use super::rest::{finish, leave, prepare, settle};
use super::shape::Shape;
use super::traffic::{Limits, REPOSITORIES, Request};
use super::world::World;
use histories::check::check;
use histories::record::Fact;
use histories::report::report;
use layercache::{Freshness, RedisConfig};
use std::fmt;
use std::time::Duration;

/// How long clients send requests, in seconds. Most seeds are small.
const BUSY: [u64; 6] = [2, 2, 3, 3, 4, 10];
/// Out of how many requests the number of changes is counted.
const CHANGES: u32 = 100;
/// How many of the requests are changes. With few changes an outdated answer stays for long.
const SHARES: [u32; 4] = [20, 20, 5, 2];
/// How long a read may wait for Redis.
const READ: Time = Duration::from_millis(50);
/// How long a load pauses for the fill of another node, in all.
const PAUSES: Time = Duration::from_millis(315);
/// How much later than its deadline a request may end: timers count in whole milliseconds.
const SLACK: Time = Duration::from_millis(5);
/// How long a fence stands after its last renewal.
const FENCE: Time = Duration::from_secs(6);
/// How long the nodes have to recover after the faults. All leases and fences expire in this time.
const REST: Time = Duration::from_secs(15);

/// What a run has found.
#[derive(Debug)]
pub(crate) struct Outcome {
    seed: u64,
    pub(crate) decided: usize,
    wrong: usize,
    nodes: usize,
    pub(crate) servers: &'static str,
    faults: usize,
    pub(crate) hash: u64,
    pub(crate) report: Option<String>,
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

fn config(random: &mut fastrand::Rng, shape: Shape) -> (NodeConfig, Limits) {
    let millis = Duration::from_millis;
    let trust = random
        .choice([200, 500, 1_000, 2_000])
        .expect("there are some");
    let trust = millis(trust);
    let change = millis(random.u64(500..5_000));
    let redis = RedisConfig::new(shape.url())
        .with_trust_timeout(trust)
        .with_timeout(READ)
        .with_change_timeout(change)
        .with_fence_ttl(FENCE)
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
    fastrand::seed(seed);
    let mut random = fastrand::Rng::with_seed(seed);
    let (nodes, blobs) = (random.usize(2..5), random.u32(2..12));
    let shape = Shape::draw(&mut random);
    let (config, limits) = config(&mut random, shape);
    let mut world = World::new(random.u64(..), blobs, shape);
    world.limits = limits;
    world.changes = random.choice(SHARES).expect("there are some");
    prepare(&mut world);
    for _ in 0..nodes {
        world.start(&config);
    }
    let busy = random.choice(BUSY).expect("there are some");
    let busy = Duration::from_secs(busy);
    let mut planned = plan(&mut random, nodes, shape, busy);
    let faults = planned.len();
    let mut at = Duration::from_millis(200);
    while at < busy {
        let is_due = |planned: &Planned| planned.at <= at;
        while planned.first().is_some_and(is_due) {
            begin_next(&mut world, &mut planned, &config);
        }
        world.run(at);
        let node = random.usize(..nodes);
        request(&mut world, &mut random, node);
        at += Duration::from_millis(random.u64(..6));
    }
    while !planned.is_empty() {
        begin_next(&mut world, &mut planned, &config);
    }
    world.network.heal();
    world.topology.heal();
    let end = world.now + REST;
    world.run(end);
    settle(&mut world);
    finish(&mut world, nodes);
    leave(&mut world);
    verdict(seed, world, nodes, faults)
}

/// Lets the next fault begin, and plans what ends it.
fn begin_next(world: &mut World, planned: &mut Vec<Planned>, config: &NodeConfig) {
    let Planned { at, fault } = planned.remove(0);
    world.run(at);
    if let Some(end) = world.begin(fault, config) {
        let place = planned.partition_point(|planned| planned.at <= end.at);
        planned.insert(place, end);
    }
}

/// Lets a client send a request to a node.
fn request(world: &mut World, random: &mut fastrand::Rng, node: usize) {
    let (repository, blob) = (random.u32(..REPOSITORIES), random.u32(..world.blobs));
    let link = Fact::Link(repository, blob);
    let is_change = random.u32(..CHANGES) < world.changes;
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
        975..995 => Request::DeleteObject(if random.bool() {
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
    send(world, node, request, patience);
}

pub(crate) fn send(world: &mut World, node: usize, request: Request, patience: Option<Duration>) {
    let Some(client) = world.client(node) else {
        return;
    };
    if let Some(machine) = &mut world.machines[node] {
        machine.spawn(client.send(request, patience));
    }
}

fn verdict(seed: u64, world: World, nodes: usize, faults: usize) -> Outcome {
    let records = world.history.take();
    let verdict = check(&records);
    let report = match (records.failures.first(), verdict.wrong.first()) {
        (Some(failure), _) => Some(failure.clone()),
        (None, Some(wrong)) => Some(report(&records, wrong)),
        (None, None) => None,
    };
    let wrong = verdict.wrong.len() + records.failures.len();
    Outcome {
        seed,
        decided: verdict.decided,
        wrong,
        nodes,
        servers: world.topology.shape.name(),
        faults,
        hash: world.hash,
        report,
    }
}
