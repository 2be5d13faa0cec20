//! One run under one seed.

use super::clients::Clients;
use super::cut::Cut;
use super::finding::Finding;
use super::plan::plan;
use super::request::Request;
use super::rest::{decide, finish, leave, prepare, rest, settle};
use super::scenes::Scene;
use super::setting::Setting;
use super::world::{Event, World};
use histories::check::check;
use std::fmt;
use std::time::Duration;

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

/// Runs a seed.
pub(crate) fn run(seed: u64) -> Outcome {
    run_cut(seed, &Cut::default())
}

/// Runs a part of a seed.
pub(crate) fn run_cut(seed: u64, cut: &Cut) -> Outcome {
    fastrand::seed(seed);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut setting = Setting::draw(&mut random);
    let scene = Scene::draw(&mut random);
    if let Some(scene) = scene {
        scene.adapt(&mut random, &mut setting);
    }
    let nodes = setting.nodes();
    let mut world = World::new(random.u64(..), &setting);
    (world.configs, world.limits) = setting.configs(&mut random);
    prepare(&mut world);
    world.machines.resize_with(nodes, || None);
    for machine in 0..nodes {
        world.start(machine);
    }
    let planned = plan(&mut random, &setting, scene);
    let faults = planned.len();
    for planned in cut.of_faults(planned) {
        world.plan(planned);
    }
    let busy = cut.until.map_or(setting.busy, Duration::from_millis);
    let mut clients = Clients::of(&setting);
    let mut requests = 0;
    let mut at = Duration::from_millis(200);
    while at < busy {
        world.run(at);
        let sent = clients.next(&mut random);
        if cut.keeps(requests, sent.request) {
            match sent.request.question().zip(sent.after) {
                Some((question, after)) => {
                    world.ask_all(at, question);
                    world.at(at + after, Event::Ask(sent.node, sent.request));
                }
                None => world.ask(sent.node, sent.request, sent.patience),
            }
        }
        requests += 1;
        at += sent.pause;
    }
    world.end_faults();
    rest(&mut world);
    decide(&mut world, setting.longest_trust() * 21 / 20);
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
        servers: setting.shape.name(),
        faults,
        requests,
        busy: busy.as_millis() as u64,
        hash: world.hash,
        finding: Finding::of(&records, &verdict),
    }
}

/// Sends a request to a node, if its machine runs.
pub(crate) fn send(world: &mut World, node: usize, request: Request, patience: Option<Duration>) {
    let Some(client) = world.client(node) else {
        return;
    };
    if let Some(machine) = &mut world.machines[node] {
        machine.spawn(client.send(request, patience));
    }
}
