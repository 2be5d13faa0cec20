//! One run under one seed.

use super::faults::{Planned, plan};
use super::machine::Time;
use super::shape::Shape;
use super::traffic::{REPOSITORIES, Request, digest};
use super::world::World;
use histories::check::check;
use histories::record::{Change, Fact, Outcome as Ended, Span};
use histories::report::report;
use layercache::{Freshness, RedisConfig};
use std::fmt;
use std::time::Duration;

/// How long clients send requests.
const BUSY: Time = Duration::from_secs(10);
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

fn config(random: &mut fastrand::Rng, shape: Shape) -> RedisConfig {
    let millis = Duration::from_millis;
    let trust = random
        .choice([200, 500, 1_000, 2_000])
        .expect("there are some");
    RedisConfig::new(shape.url())
        .with_trust_timeout(millis(trust))
        .with_timeout(millis(50))
        .with_change_timeout(millis(random.u64(500..5_000)))
        .with_fence_ttl(FENCE)
        .with_lease_ttl(millis(random.u64(1_000..5_000)))
}

/// Runs a seed.
pub(crate) fn run(seed: u64) -> Outcome {
    fastrand::seed(seed);
    let mut random = fastrand::Rng::with_seed(seed);
    let (nodes, blobs) = (random.usize(2..5), random.u32(2..12));
    let shape = Shape::draw(&mut random);
    let config = config(&mut random, shape);
    let mut world = World::new(random.u64(..), blobs, shape);
    prepare(&mut world);
    for _ in 0..nodes {
        world.start(&config);
    }
    let mut planned = plan(&mut random, nodes, shape, BUSY);
    let faults = planned.len();
    let mut at = Duration::from_millis(200);
    while at < BUSY {
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
    verdict(seed, world, nodes, faults)
}

/// Lets the next fault begin, and plans what ends it.
fn begin_next(world: &mut World, planned: &mut Vec<Planned>, config: &RedisConfig) {
    let Planned { at, fault } = planned.remove(0);
    world.run(at);
    if let Some(end) = world.begin(fault, config) {
        let place = planned.partition_point(|planned| planned.at <= end.at);
        planned.insert(place, end);
    }
}

/// Puts all objects into the store.
fn prepare(world: &mut World) {
    for blob in 0..world.blobs {
        let links = (0..REPOSITORIES).map(|repository| Fact::Link(repository, blob));
        for fact in links.chain([Fact::Blob(blob)]) {
            let content = match fact {
                Fact::Blob(_) => "content".to_owned(),
                Fact::Link(..) => digest(blob).to_string(),
            };
            let begin = world.clock.next();
            world.put_now(fact, content);
            record(world, fact, true, begin);
        }
    }
}

/// Lets a client send a request to a node.
fn request(world: &mut World, random: &mut fastrand::Rng, node: usize) {
    let (repository, blob) = (random.u32(..REPOSITORIES), random.u32(..world.blobs));
    let link = Fact::Link(repository, blob);
    let request = match random.u32(..1000) {
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
        780..790 => Request::StatMany(repository),
        790..800 => Request::ClearMemory,
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

fn send(world: &mut World, node: usize, request: Request, patience: Option<Duration>) {
    let Some(client) = world.client(node) else {
        return;
    };
    if let Some(machine) = &mut world.machines[node] {
        machine.spawn(client.send(request, patience));
    }
}

/// Checks that nothing is left over in Redis, and records what the store has now: from now on all
/// nodes must answer that.
fn settle(world: &mut World) {
    for server in 0..world.servers.len() {
        let keys = world.servers[server].keys(world.now);
        let is_left = |key: &String| key.starts_with("lease::") || key.starts_with("fence::");
        let is_left = |key: &String| is_left(key) && world.belongs(key, server);
        for key in keys.into_iter().filter(is_left) {
            world.history.failure(format!("{key} is left over"));
        }
    }
    for blob in 0..world.blobs {
        let links = (0..REPOSITORIES).map(|repository| Fact::Link(repository, blob));
        for fact in links.chain([Fact::Blob(blob)]) {
            let begin = world.clock.next();
            let present = world.has(fact);
            record(world, fact, present, begin);
        }
    }
}

/// Records a change that has been made without a node.
fn record(world: &World, fact: Fact, present: bool, begin: u64) {
    let end = world.clock.next();
    world.history.change(Change {
        fact,
        present,
        span: Span { begin, end },
        outcome: Ended::Done,
        node: 0,
        what: "none",
    });
}

/// Asks all nodes for everything, after all faults have ended.
fn finish(world: &mut World, nodes: usize) {
    for freshness in [Freshness::Cached, Freshness::Cached, Freshness::Verified] {
        for node in 0..nodes {
            for blob in 0..world.blobs {
                for repository in 0..REPOSITORIES {
                    let stat = Request::Stat(repository, blob, freshness);
                    send(world, node, stat, None);
                }
            }
        }
        let end = world.now + Duration::from_secs(5);
        world.run(end);
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
