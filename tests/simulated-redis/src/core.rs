//! [`Core`]: the whole state of a server, without its interpreter of scripts.

use crate::client::Client;
use crate::cluster::{ClusterView, Routed};
use crate::commands::scripting::{Prepared, Running};
use crate::commands::{Call, Flags, Run, Spec, fits, is, lookup, sentinel, wrong_arity};
use crate::keyspace::Keyspace;
use crate::memory::Memory;
use crate::replication::{Change, Effect, Replication};
use crate::reply::{Outcome, Refusal, Reply, Resp};
use crate::sentinel::SentinelView;
use crate::setup::{Flavor, Random, Setup};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How many databases a server has.
pub(crate) const DATABASES: usize = 16;

/// How many characters of its arguments the error of an unknown command shows.
const SHOWN: usize = 128;

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) setup: Setup,
    pub(crate) databases: Vec<Keyspace>,
    pub(crate) clients: BTreeMap<u64, Client>,
    /// The clients that have subscribed to each channel.
    pub(crate) channels: BTreeMap<Vec<u8>, BTreeSet<u64>>,
    pub(crate) patterns: BTreeMap<Vec<u8>, BTreeSet<u64>>,
    /// The texts of the scripts that the server knows, by their hashes.
    pub(crate) scripts: BTreeMap<String, Arc<[u8]>>,
    pub(crate) script: Option<Running>,
    pub(crate) replication: Replication,
    pub(crate) memory: Memory,
    pub(crate) cluster: Option<ClusterView>,
    pub(crate) sentinel: Option<SentinelView>,
    /// What clients have published, for the other servers of the cluster.
    pub(crate) published: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) is_loading: bool,
    /// The time of the current command, since 1970.
    pub(crate) now: Duration,
    pub(crate) started: Duration,
    /// The client whose command runs now.
    pub(crate) current: Option<u64>,
    pub(crate) random: Random,
    pub(crate) last_client: u64,
}

impl Core {
    pub(crate) fn new(setup: Setup, now: Duration) -> Self {
        let mut random = Random::new(setup.seed);
        let replication = Replication::new(&mut random);
        let memory = Memory::new(Random::new(random.next()));
        Self {
            setup,
            databases: vec![Keyspace::default(); DATABASES],
            clients: BTreeMap::new(),
            channels: BTreeMap::new(),
            patterns: BTreeMap::new(),
            scripts: BTreeMap::new(),
            script: None,
            replication,
            memory,
            cluster: None,
            sentinel: None,
            published: Vec::new(),
            is_loading: false,
            now,
            started: now,
            current: None,
            random,
            last_client: 0,
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.now.as_millis()).unwrap_or(u64::MAX)
    }

    /// Returns the database of a call.
    pub(crate) fn keys(&mut self, call: &Call<'_>) -> &mut Keyspace {
        &mut self.databases[call.db]
    }

    /// Returns a client. A client that is gone gets a new state, which nothing reads.
    pub(crate) fn client(&mut self, id: u64) -> &mut Client {
        self.clients.entry(id).or_insert_with(|| Client::new(false))
    }

    pub(crate) const fn mode(&self) -> &'static str {
        match (&self.sentinel, &self.cluster) {
            (Some(_), _) => "sentinel",
            (None, Some(_)) => "cluster",
            (None, None) => "standalone",
        }
    }

    /// Goes on to this time. A primary removes the keys that have expired.
    pub(crate) fn go_to(&mut self, now: Duration) {
        self.now = now;
        let ms = self.now_ms();
        for db in 0..self.databases.len() {
            self.databases[db].set_now(ms);
            if !self.replication.is_primary() {
                continue;
            }
            let expired: Vec<_> = self.databases[db].expired().map(<[u8]>::to_vec).collect();
            for key in expired {
                self.remove_by_itself(db, &key);
            }
        }
    }

    /// Removes a key without a client's command, and tells the replicas.
    pub(crate) fn remove_by_itself(&mut self, db: usize, key: &[u8]) {
        self.databases[db].remove(key);
        let words = || vec![b"DEL".to_vec(), key.to_vec()];
        self.replication.note(|| Change::Command(db, words()));
        self.replication.seal(self.now);
    }

    /// Finds a command, and checks whether it may run now, in the order in which Redis checks.
    pub(crate) fn admit(
        &mut self,
        client: u64,
        words: &[Vec<u8>],
    ) -> Result<&'static Spec, Refusal> {
        // It counts for one command, even if that one is refused.
        let is_asking = std::mem::take(&mut self.client(client).is_asking);
        let name = words.first().map_or(&[][..], Vec::as_slice);
        let is_known = |spec: &&Spec| match self.sentinel {
            Some(_) => sentinel::COMMANDS.contains(&spec.name),
            None => spec.name != "sentinel",
        };
        let spec = lookup(name).filter(is_known);
        let spec = spec.ok_or_else(|| self.unknown(words))?;
        if !spec.fits(words.len(), self.setup.flavor) {
            return Err(wrong_arity(spec.name));
        }
        let shown = self.check_subcommand(spec, words)?;
        let there = self.client(client);
        if !there.is_known && !spec.flags.has(Flags::NO_AUTH) {
            return Err(Refusal::new("NOAUTH Authentication required."));
        }
        let reads_replica = there.reads_replica;
        let is_subscribed = there.resp == Resp::Two && there.subscriptions() > 0;
        let is_write = spec.flags.has(Flags::WRITE);
        if let Some(cluster) = &self.cluster {
            let is_read = !is_write && !matches!(spec.run, Run::Script(_));
            let routed = Routed {
                keys: &spec.keys(words),
                is_asking,
                reads_replica: reads_replica && is_read,
                flavor: self.setup.flavor,
            };
            cluster.route(&routed, &self.databases[0])?;
        }
        let is_full = self.make_room();
        if is_full && spec.flags.has(Flags::DENY_OOM) {
            return Err(self.full());
        }
        if is_write && !self.replication.has_enough_replicas() && self.replication.is_primary() {
            let text = "NOREPLICAS Not enough good replicas to write.";
            return Err(Refusal::new(text));
        }
        if is_write && !self.replication.is_primary() {
            let text = "READONLY You can't write against a read only replica.";
            return Err(Refusal::new(text));
        }
        if is_subscribed && !spec.flags.has(Flags::SUBSCRIBED) {
            let text = format!(
                "ERR Can't execute '{shown}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / \
                 RESET are allowed in this context"
            );
            return Err(Refusal::new(match self.setup.flavor {
                Flavor::Redis6_2 => text.replace("(P|S)", "(P)"),
                _ => text,
            }));
        }
        if self.is_loading && !spec.flags.has(Flags::LOADING) {
            return Err(Refusal::new(match self.setup.flavor {
                Flavor::Valkey => "LOADING Valkey is loading the dataset in memory",
                _ => "LOADING Redis is loading the dataset in memory",
            }));
        }
        if matches!(spec.run, Run::Script(_)) {
            let db = self.client(client).db;
            self.script = Some(Running {
                client,
                db,
                is_full,
                has_written: false,
                is_asking,
                reads_replica,
            });
        }
        Ok(spec)
    }

    /// Runs a command of a client.
    pub(crate) fn run(
        &mut self,
        client: u64,
        run: fn(&mut Self, &mut Call<'_>) -> Outcome,
        words: &[Vec<u8>],
    ) -> Reply {
        let mut call = Call {
            words,
            client,
            db: self.client(client).db,
            changed: false,
        };
        let outcome = run(self, &mut call);
        if call.changed {
            self.replication
                .note(|| Change::Command(call.db, words.to_vec()));
        }
        outcome.into()
    }

    /// Repeats what a primary has done, at the time when it did.
    pub(crate) fn apply(&mut self, effect: &Effect) {
        self.go_to(effect.now);
        for change in &effect.changes {
            let (db, words) = match change {
                Change::Command(db, words) => (db, words),
                Change::Put(db, key, entry) => {
                    self.databases[*db].insert(key, entry.clone());
                    self.replication.note(|| change.clone());
                    continue;
                }
            };
            let Some(Run::Plain(run)) = words
                .first()
                .and_then(|name| lookup(name))
                .map(|spec| spec.run)
            else {
                continue;
            };
            let mut call = Call {
                words,
                client: 0,
                db: *db,
                changed: false,
            };
            // The primary has done it already, so no error is new.
            let _ = run(self, &mut call);
            self.replication.note(|| change.clone());
        }
        self.replication.seal(effect.now);
    }

    /// Sends the reply of a command, and ends the command.
    pub(crate) fn finish(&mut self, client: u64, reply: &Reply) {
        self.script = None;
        self.replication.seal(self.now);
        let there = self.client(client);
        there.send(reply);
        let late = std::mem::take(&mut there.later);
        there.output.extend(late);
    }

    /// Keeps a script that the server has compiled.
    pub(crate) fn keep_script(&mut self, script: &Prepared) {
        if !self.scripts.contains_key(&script.hash) {
            let (hash, text) = (script.hash.clone(), Arc::clone(&script.text));
            self.scripts.insert(hash, text);
        }
    }

    /// Ends the connections of the clients that fit, except this one. Returns how many there were.
    pub(crate) fn kill(&mut self, except: u64, fits: impl Fn(&Client) -> bool) -> usize {
        let mut gone = 0;
        for (id, client) in &mut self.clients {
            if *id != except && !client.is_closing && fits(client) {
                client.is_closing = true;
                gone += 1;
            }
        }
        gone
    }

    fn unknown(&self, words: &[Vec<u8>]) -> Refusal {
        let flavor = self.setup.flavor;
        let shown = |text: &[u8], most: usize| {
            let text = &text[..text.len().min(most)];
            flavor.quoted(&String::from_utf8_lossy(text))
        };
        let name = words.first().map_or(&[][..], Vec::as_slice);
        let mut arguments = String::new();
        for argument in words.iter().skip(1) {
            if arguments.len() >= SHOWN {
                break;
            }
            let most = SHOWN - arguments.len();
            arguments += &shown(argument, most);
            arguments += match flavor {
                Flavor::Redis6_2 => ", ",
                _ => " ",
            };
        }
        let name = shown(name, SHOWN);
        Refusal::new(format!(
            "ERR unknown command {name}, with args beginning with: {arguments}"
        ))
    }

    /// Checks the second word of a command that has subcommands. Redis 6.2 leaves that to the
    /// command itself. Returns the name that errors have for the command.
    fn check_subcommand(&self, spec: &Spec, words: &[Vec<u8>]) -> Result<String, Refusal> {
        let known = subcommands(spec.name);
        let (Some(sub), false) = (words.get(1), known.is_empty()) else {
            return Ok(spec.name.to_owned());
        };
        if self.setup.flavor == Flavor::Redis6_2 {
            return Ok(spec.name.to_owned());
        }
        // The first versions that know it are Redis 7.2 and Valkey.
        let has = |name: &str| name != "setinfo" || self.setup.flavor == Flavor::Valkey;
        let found = known.iter().find(|(name, _)| is(sub, name) && has(name));
        let Some((name, arity)) = found else {
            let (sub, name) = (String::from_utf8_lossy(sub), spec.name.to_uppercase());
            let text = format!("ERR unknown subcommand '{sub}'. Try {name} HELP.");
            return Err(Refusal::new(text));
        };
        let name = format!("{}|{name}", spec.name);
        match fits(*arity, words.len()) {
            true => Ok(name),
            false => Err(wrong_arity(&name)),
        }
    }

    /// Returns the error of a command that does not know its subcommand.
    pub(crate) fn unknown_subcommand(&self, call: &Call<'_>) -> Refusal {
        let (sub, name) = (String::from_utf8_lossy(call.word(1)), call.name());
        let (upper, flavor) = (name.to_uppercase(), self.setup.flavor);
        Refusal::new(match flavor {
            Flavor::Redis6_2 => format!(
                "ERR Unknown subcommand or wrong number of arguments for '{sub}'. Try {upper} HELP."
            ),
            _ => format!("ERR unknown subcommand '{sub}'. Try {upper} HELP."),
        })
    }
}

/// Returns the subcommands of a command, and how many words each has.
fn subcommands(name: &str) -> &'static [(&'static str, i8)] {
    match name {
        "client" => &[
            ("getname", 2),
            ("id", 2),
            ("kill", -3),
            ("setinfo", 4),
            ("setname", 3),
        ],
        "cluster" => &[
            ("countkeysinslot", 3),
            ("getkeysinslot", 4),
            ("info", 2),
            ("keyslot", 3),
            ("myid", 2),
            ("nodes", 2),
            ("shards", 2),
            ("slots", 2),
        ],
        "config" => &[("get", -3), ("set", -4)],
        "pubsub" => &[("channels", -2), ("numpat", 2), ("numsub", -2)],
        "script" => &[("exists", -3), ("flush", -2), ("load", 3)],
        "sentinel" => &[
            ("get-master-addr-by-name", 3),
            ("master", 3),
            ("masters", 2),
            ("replicas", 3),
            ("sentinels", 3),
            ("slaves", 3),
        ],
        _ => &[],
    }
}
