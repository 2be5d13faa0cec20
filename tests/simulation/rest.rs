//! Fills the store before the faults. After the faults it checks the store, Redis and the nodes.

use super::run::send;
use super::traffic::{REPOSITORIES, Request, digest, name as name_of};
use super::world::World;
use histories::record::{Change, Fact, Outcome, Span};
use layercache::Freshness;
use std::time::Duration;

/// How long the tasks of a node may take to end after the node was dropped. Some find out when
/// their pause ends.
const LAST: Duration = Duration::from_secs(40);

/// Puts all objects into the store.
pub(crate) fn prepare(world: &mut World) {
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

/// Checks that nothing is left over in Redis and that all entries are right, and records what the
/// store has now: from now on all nodes must answer that.
pub(crate) fn settle(world: &mut World) {
    for server in 0..world.servers.len() {
        let keys = world.servers[server].keys(world.now);
        for key in keys {
            if world.belongs(&key, server) {
                check_key(world, server, &key);
            }
        }
    }
    for (node, request) in world.running.callers() {
        let failure = format!("{request:?} at node {node} has not returned");
        world.history.failure(failure);
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
        outcome: Outcome::Done,
        node: 0,
        what: "none",
    });
}

/// Asks all nodes for everything, after all faults have ended.
pub(crate) fn finish(world: &mut World, nodes: usize) {
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

/// Checks that a key may still be in Redis, and that an entry says what the store has.
fn check_key(world: &mut World, server: usize, key: &str) {
    // The keys of a store that shares its cache begin with a name and a slash.
    let name = ["a/", "b/"]
        .iter()
        .find_map(|prefix| key.strip_prefix(prefix));
    let name = name.unwrap_or(key);
    if name.starts_with("lease::") || name.starts_with("fence::") {
        world.history.failure(format!("{key} is left over"));
    } else if name.starts_with("layercache::{nodes}") {
        // The nodes go on.
    } else if let Some(fact) = fact_of_blob(world, name) {
        if !world.has(fact) {
            world
                .history
                .failure(format!("{key} is in Redis, and not in the store"));
        }
    } else if let Some(repository) = repository_of(name) {
        for member in world.servers[server].members(key, world.now) {
            let fact = (0..world.blobs).find(|blob| digest(*blob).to_string() == member);
            let fact = fact.map(|blob| Fact::Link(repository, blob));
            if !fact.is_some_and(|fact| world.has(fact)) {
                let failure = format!("{member} of {key} is in Redis, and not in the store");
                world.history.failure(failure);
            }
        }
    } else {
        world.history.failure(format!("nobody knows the key {key}"));
    }
}

fn fact_of_blob(world: &World, name: &str) -> Option<Fact> {
    let digest_of = name.strip_prefix("blobs::")?;
    let blob = (0..world.blobs).find(|blob| digest(*blob).to_string() == digest_of);
    blob.map(Fact::Blob)
}

fn repository_of(name: &str) -> Option<u32> {
    let repository = name.strip_prefix("repository::")?.strip_suffix("::blobs")?;
    (0..REPOSITORIES).find(|number| name_of(*number).to_string() == repository)
}

/// Drops all nodes, and checks that nothing of them goes on.
pub(crate) fn leave(world: &mut World) {
    for machine in world.machines.iter_mut().flatten() {
        machine.drop_node();
    }
    let end = world.now + LAST;
    world.run(end);
    for (node, machine) in world.machines.iter().enumerate() {
        let tasks = machine.as_ref().map_or(0, |machine| machine.tasks());
        if tasks > 0 {
            world
                .history
                .failure(format!("{tasks} tasks of node {node} are left over"));
        }
    }
}
