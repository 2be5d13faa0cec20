//! Fills the store before the faults. After the faults it checks the store, Redis and the nodes.

use super::request::Request;
use super::run::send;
use super::traffic::{REPOSITORIES, digest, name as name_of};
use super::values::Created;
use super::world::World;
use histories::record::{Change, Fact, Outcome, Span};
use layercache::Freshness;
use std::time::Duration;

/// How long the tasks of a node may take to end after the node was dropped. Some find out when
/// their pause ends.
const LAST: Duration = Duration::from_secs(40);

/// The nodes have at least this long to recover after the faults: every node has heard of the others
/// again, or has lost its trust.
const SHORTEST: Duration = Duration::from_secs(4);

/// And at most this much longer: all leases and fences have expired. If a node has died while it
/// purged a server, the others wait ten seconds before they put up their last fences there.
const MOST_MORE: Duration = Duration::from_secs(18);

/// Puts all objects into the store.
pub(crate) fn prepare(world: &mut World) {
    for fact in world.facts() {
        let begin = world.clock.next();
        world.put_now(fact);
        record(world, fact, true, begin);
    }
}

/// Lets the nodes recover after the faults. If no purge has succeeded since the last garbage
/// collection, a node purges the cache.
pub(crate) fn rest(world: &mut World) {
    let recovered = world.signed_until.max(world.now + SHORTEST);
    world.run(recovered);
    if !world.collected.is_empty() {
        world.purge_after_collection(0);
    }
    while !is_at_rest(world) && world.now < recovered + MOST_MORE {
        world.run(world.now + Duration::from_millis(500));
    }
    if !world.collected.is_empty() {
        let failure = "a purge fails after all faults have ended";
        world.history.failure(failure.to_owned());
    }
}

fn is_at_rest(world: &mut World) -> bool {
    if !world.is_assembled() {
        return false;
    }
    let mut servers = 0..world.servers.len();
    let is_clean = |server: usize| {
        let keys = world.servers[server].keys(world.now);
        !keys
            .iter()
            .any(|key| is_of_change_or_load(key) && world.belongs(key, server))
    };
    servers.all(is_clean) && world.running.callers().is_empty() && world.collected.is_empty()
}

/// Returns whether the key is a lease or a fence.
fn is_of_change_or_load(key: &str) -> bool {
    let name = without_space(key);
    name.starts_with("lease::") || name.starts_with("fence::")
}

/// Returns a key without the name of a store that shares its cache, which ends with a slash.
fn without_space(key: &str) -> &str {
    let mut spaces = ["a/", "b/"].iter();
    spaces
        .find_map(|space| key.strip_prefix(space))
        .unwrap_or(key)
}

/// Decides the changes that their clients are in doubt about. `trust` is the longest time for which a
/// node trusts its memory.
pub(crate) fn decide(world: &mut World, trust: Duration) {
    let now = world.clock.next();
    let mut done = world.history.so_far().changes;
    done.retain(|change| change.outcome == Outcome::Done);
    done.sort_by_key(|change| change.span.end);
    let doubtful = world.running.take_doubtful();
    let decided = world.truth.decide(&done, doubtful, now, trust);
    for made in &world.truth.made {
        let failure = format!("no client has asked for {made:?}");
        world.history.failure(failure);
    }
    for change in decided {
        if change.outcome == Outcome::Unknown {
            world.undecided.insert(change.fact);
        }
        world.history.change(change);
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
    for fact in world.facts().filter(|fact| !world.undecided.contains(fact)) {
        let begin = world.clock.next();
        let version = world.version(fact);
        record(world, fact, version.is_some(), begin);
        if let Some(version) = version
            && !world.truth.in_doubt.contains(&fact)
        {
            let created = Created {
                fact,
                version,
                node: None,
                end: world.clock.next(),
            };
            world.truth.created.push(created);
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
        loop {
            world.run(world.now + Duration::from_millis(50));
            if world.running.callers().is_empty() || world.now >= end {
                break;
            }
        }
    }
}

/// Checks that a key may still be in Redis, and that an entry says what the store has.
fn check_key(world: &mut World, server: usize, key: &str) {
    let name = without_space(key);
    if is_of_change_or_load(key) {
        world.history.failure(format!("{key} is left over"));
    } else if name.starts_with("layercache::{nodes}") {
        // The nodes go on.
    } else if let Some(fact) = fact_of_blob(world, name) {
        if !world.has(fact) && !world.undecided.contains(&fact) {
            world
                .history
                .failure(format!("{key} is in Redis, and not in the store"));
        }
    } else if let Some(repository) = repository_of(name) {
        for member in world.servers[server].members(key, world.now) {
            let fact = (0..world.blobs).find(|blob| digest(*blob).to_string() == member);
            let fact = fact.map(|blob| Fact::Link(repository, blob));
            let is_right = |fact| world.has(fact) || world.undecided.contains(&fact);
            if !fact.is_some_and(is_right) {
                let failure = format!("{member} is in Redis, and not in the store: {key}");
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
