//! [`Server`]: a whole Redis, which does nothing by itself.

use crate::client::Client;
use crate::cluster::{ClusterView, slot_of};
use crate::commands::{Run, is};
use crate::core::Core;
use crate::keyspace::{Entry, Keyspace};
use crate::lua::{Interpreter, lock};
use crate::memory::{Memory, Policy};
use crate::replication::{Change, Effect, Replication};
use crate::reply::{Refusal, Reply};
use crate::request;
use crate::sentinel::SentinelView;
use crate::setup::{Random, Setup};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Names a connection to a server. A server never names two connections alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

/// The data of a server at some time.
#[derive(Debug, Clone)]
pub struct Snapshot {
    databases: Vec<Keyspace>,
    replid: String,
    offset: u64,
}

/// A key on its way from one server of a cluster to another.
#[derive(Debug, Clone)]
pub struct MovedKey {
    key: Vec<u8>,
    entry: Entry,
}

/// A Redis as a state machine. It has no clock, no network and no threads: the caller sets the time,
/// hands over the bytes that clients have sent, and takes the bytes for them. The same calls always
/// give the same output.
#[derive(Debug)]
pub struct Server {
    core: Arc<Mutex<Core>>,
    interpreter: Interpreter,
}

impl Server {
    /// Starts a server without data. `now` is the time since 1970.
    ///
    /// # Panics
    /// If Lua cannot be started, which only happens without memory.
    pub fn new(setup: Setup, now: Duration) -> Self {
        let flavor = setup.flavor;
        let core = Arc::new(Mutex::new(Core::new(setup, now)));
        let interpreter = Interpreter::new(&core, flavor).expect("Lua");
        Self { core, interpreter }
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        lock(&self.core)
    }

    /// Opens a connection.
    pub fn connect(&mut self) -> ConnectionId {
        let mut core = self.core();
        core.last_client += 1;
        let id = core.last_client;
        let is_known = core.setup.password.is_none();
        core.clients.insert(id, Client::new(is_known));
        ConnectionId(id)
    }

    /// Closes a connection, as the client does. Does nothing if it is closed already.
    pub fn disconnect(&mut self, id: ConnectionId) {
        let mut core = self.core();
        if core.clients.contains_key(&id.0) {
            core.unsubscribe_all(id.0);
            core.clients.remove(&id.0);
        }
    }

    /// Checks whether the server wants to close this connection, or has closed it. The caller
    /// delivers the output that is left, and then disconnects.
    pub fn is_closing(&self, id: ConnectionId) -> bool {
        let core = self.core();
        core.clients
            .get(&id.0)
            .is_none_or(|client| client.is_closing)
    }

    /// Returns the connections that are open, in the order in which they were opened.
    pub fn connections(&self) -> Vec<ConnectionId> {
        self.core()
            .clients
            .keys()
            .copied()
            .map(ConnectionId)
            .collect()
    }

    /// Hands over what a client has sent, and runs the commands that are whole. `now` is the time
    /// since 1970, and may be earlier than in the last call.
    pub fn receive(&mut self, id: ConnectionId, bytes: &[u8], now: Duration) {
        let mut core = self.core();
        core.go_to(now);
        let Some(client) = core.clients.get_mut(&id.0) else {
            return;
        };
        let mut input = std::mem::take(&mut client.input);
        drop(core);
        input.extend_from_slice(bytes);
        while !self.is_closing(id) {
            match request::take(&mut input) {
                Ok(None) => break,
                Ok(Some(words)) if words.is_empty() => {}
                Ok(Some(words)) => self.run(id.0, &words),
                Err(Refusal(text)) => {
                    let mut core = self.core();
                    let client = core.client(id.0);
                    client.send(&Reply::Error(text));
                    client.is_closing = true;
                }
            }
        }
        if let Some(client) = self.core().clients.get_mut(&id.0) {
            client.input = input;
        }
    }

    fn run(&mut self, client: u64, words: &[Vec<u8>]) {
        let mut core = self.core();
        core.current = Some(client);
        let reply = match core.admit(client, words) {
            Err(Refusal(text)) => Reply::Error(text),
            Ok(spec) => match spec.run {
                Run::Plain(run) => {
                    let is_load =
                        spec.name == "script" && words.get(1).is_some_and(|word| is(word, "load"));
                    match is_load.then(|| words.get(2)).flatten() {
                        Some(text) => {
                            let hash = crate::commands::scripting::hash(text);
                            drop(core);
                            let compiled = self.interpreter.compile(&hash, text);
                            core = self.core();
                            match compiled {
                                Ok(_) => core.run(client, run, words),
                                Err(Refusal(text)) => Reply::Error(text),
                            }
                        }
                        None => core.run(client, run, words),
                    }
                }
                Run::Script(form) => match core.prepare(form, words) {
                    Err(Refusal(text)) => Reply::Error(text),
                    Ok(prepared) => {
                        let flavor = core.setup.flavor;
                        drop(core);
                        let compiled = self.interpreter.compile(&prepared.hash, &prepared.text);
                        if compiled.is_ok() {
                            self.core().keep_script(&prepared);
                        }
                        let outcome = self.interpreter.run(&prepared, flavor);
                        core = self.core();
                        outcome.into()
                    }
                },
            },
        };
        core.finish(client, &reply);
        core.current = None;
    }

    /// Takes the bytes that the server has sent on a connection since the last call.
    pub fn take_output(&mut self, id: ConnectionId) -> Vec<u8> {
        let mut core = self.core();
        let client = core.clients.get_mut(&id.0);
        client
            .map(|client| std::mem::take(&mut client.output))
            .unwrap_or_default()
    }

    /// Returns the connections with output, in the order in which they were opened.
    pub fn with_output(&self) -> Vec<ConnectionId> {
        let core = self.core();
        let clients = core.clients.iter();
        let some = clients.filter(|(_, client)| !client.output.is_empty());
        some.map(|(id, _)| ConnectionId(*id)).collect()
    }

    /// Goes on to this time: a primary removes the keys that have expired.
    pub fn go_to(&mut self, now: Duration) {
        self.core().go_to(now);
    }

    /// Returns all keys of a database, in the order of `SCAN`.
    pub fn keys(&self, db: usize) -> Vec<Vec<u8>> {
        let core = self.core();
        let keys = core
            .databases
            .get(db)
            .into_iter()
            .flat_map(|keys| keys.iter());
        keys.map(|(key, _)| key.to_vec()).collect()
    }

    /// Removes a key, as Redis does when it is full. Returns whether there was such a key.
    pub fn evict(&mut self, db: usize, key: &[u8]) -> bool {
        let mut core = self.core();
        let keys = core.databases.get(db);
        let is_there = keys.is_some_and(|keys| keys.get(key).is_some());
        if is_there {
            core.remove_by_itself(db, key);
        }
        is_there
    }

    /// Returns how many bytes the server is counted for, roughly as Redis counts.
    pub fn used_memory(&self) -> usize {
        self.core().used_memory()
    }

    /// Limits the memory, in bytes. 0 means no limit.
    pub fn limit_memory(&mut self, most: u64, policy: Policy) {
        let mut core = self.core();
        core.memory.most = most;
        core.memory.policy = policy;
    }

    /// Says whether the server is loading its data. It refuses most commands then.
    pub fn set_loading(&mut self, is_loading: bool) {
        self.core().is_loading = is_loading;
    }

    /// Makes the server a part of a cluster, or tells it what has changed there.
    pub fn set_cluster(&mut self, view: ClusterView) {
        self.core().cluster = Some(view);
    }

    /// Makes the server a Sentinel, or tells it what has changed. It then has the commands of a
    /// Sentinel only.
    pub fn set_sentinel(&mut self, view: SentinelView) {
        self.core().sentinel = Some(view);
    }

    /// Sends a message to the subscribers of a channel, as another server of the cluster or the
    /// Sentinel itself does.
    pub fn publish(&mut self, channel: &[u8], message: &[u8]) {
        self.core().publish(channel, message);
    }

    /// Takes the channels and messages that clients have published on a server of a cluster since
    /// the last call. The cluster publishes them on its other servers.
    pub fn take_published(&mut self) -> Vec<(Vec<u8>, Vec<u8>)> {
        std::mem::take(&mut self.core().published)
    }

    /// Takes up to `most` keys of a slot that moves to another server.
    pub fn take_keys_of(&mut self, slot: u16, most: usize) -> Vec<MovedKey> {
        let mut core = self.core();
        let all = core.databases[0].iter();
        let moving = all.filter(|(key, _)| slot_of(key) == slot).take(most);
        let moving: Vec<_> = moving
            .map(|(key, entry)| MovedKey {
                key: key.to_vec(),
                entry: entry.clone(),
            })
            .collect();
        for MovedKey { key, .. } in &moving {
            core.remove_by_itself(0, key);
        }
        moving
    }

    /// Accepts keys that have moved from another server.
    pub fn accept(&mut self, keys: Vec<MovedKey>) {
        let mut core = self.core();
        for MovedKey { key, entry } in keys {
            core.databases[0].insert(&key, entry.clone());
            core.replication.note(|| Change::Put(0, key, entry));
        }
        let now = core.now;
        core.replication.seal(now);
    }

    /// Returns a copy of the data, as a dump has it.
    pub fn snapshot(&self) -> Snapshot {
        let core = self.core();
        Snapshot {
            databases: core.databases.clone(),
            replid: core.replication.id.clone(),
            offset: core.replication.offset,
        }
    }

    /// Ends the server and starts it again, as a primary with this data or without any. All
    /// connections and scripts are gone, and the server has new identities. Its configuration stays.
    pub fn restart(&mut self, data: Option<&Snapshot>, now: Duration) {
        let mut core = self.core();
        let mut random = Random::new(core.random.next());
        let (most, policy) = (core.memory.most, core.memory.policy);
        let mut replication = Replication::new(&mut random);
        replication.least_replicas = core.replication.least_replicas;
        replication.keeps = core.replication.keeps;
        let (last_client, cluster) = (core.last_client, core.cluster.take());
        let sentinel = core.sentinel.take();
        let mut fresh = Core::new(core.setup.clone(), now);
        fresh.random = random;
        fresh.replication = replication;
        fresh.memory = Memory {
            most,
            policy,
            random: Random::new(fresh.random.next()),
        };
        fresh.last_client = last_client;
        fresh.cluster = cluster;
        fresh.sentinel = sentinel;
        if let Some(data) = data {
            fresh.databases.clone_from(&data.databases);
            fresh.replication.offset = data.offset;
        }
        fresh.go_to(now);
        *core = fresh;
    }

    /// Returns the run id and the replication id, which together name the server's data.
    pub fn identity(&self) -> (String, String) {
        let core = self.core();
        (core.replication.run_id.clone(), core.replication.id.clone())
    }

    /// Says how many replicas follow this server and answer in time.
    pub fn set_replicas(&mut self, replicas: usize) {
        self.core().replication.replicas = replicas;
    }

    /// Sets how many replicas the server needs before it accepts a write.
    pub fn require_replicas(&mut self, least: usize) {
        self.core().replication.least_replicas = least;
    }

    /// Makes this server a replica of another one. It gets a copy of the other's data at once, and
    /// from then on what [`apply_effects`](Self::apply_effects) brings. The other server keeps its
    /// effects from now on.
    pub fn replicate_from(&mut self, primary: &mut Self, now: Duration) {
        let (data, place) = {
            let mut theirs = primary.core();
            theirs.replication.keeps = true;
            let place = (theirs.setup.host.clone(), theirs.setup.port);
            (
                Snapshot {
                    databases: theirs.databases.clone(),
                    replid: theirs.replication.id.clone(),
                    offset: theirs.replication.offset,
                },
                place,
            )
        };
        let mut core = self.core();
        core.databases = data.databases;
        core.replication.id = data.replid;
        core.replication.offset = data.offset;
        core.replication.primary = Some(place);
        core.replication.is_linked = true;
        core.replication.effects.clear();
        core.go_to(now);
    }

    /// Takes the effects that the server has kept for its replicas since the last call.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.core().replication.effects)
    }

    /// Repeats effects of the primary, in their order. A primary ignores them.
    pub fn apply_effects(&mut self, effects: &[Effect], now: Duration) {
        let mut core = self.core();
        if core.replication.is_primary() {
            return;
        }
        for effect in effects {
            core.apply(effect);
        }
        core.go_to(now);
    }

    /// Says whether a replica is connected to its primary.
    pub fn set_linked(&mut self, is_linked: bool) {
        self.core().replication.is_linked = is_linked;
    }

    /// Makes a replica a primary, with a new replication id.
    pub fn promote(&mut self, now: Duration) {
        let mut core = self.core();
        if core.replication.is_primary() {
            return;
        }
        let id = core.random.identity();
        core.replication.old_id = std::mem::replace(&mut core.replication.id, id);
        core.replication.primary = None;
        core.replication.keeps = true;
        core.go_to(now);
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "topology_tests.rs"]
mod topology_tests;
