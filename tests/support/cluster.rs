//! Starts a Redis Cluster: three primaries, each with a replica.

use super::redis::{Redis, Setup, Version, output_of};
use super::sentinel::until;
use std::ops::RangeInclusive;
use std::time::Duration;
use tokio::time::sleep;

pub const PASSWORD: &str = "pa55w0rd-of-the-cluster";
/// The key whose primary holds the peer set of all nodes.
pub const HOME: &str = "layercache::{nodes}";

const PRIMARIES: usize = 3;
const SERVERS: usize = 2 * PRIMARIES;
/// The time in ms after which the other servers take a silent server for down.
const NODE_TIMEOUT: &str = "2000";

/// Six servers that share the key space.
#[derive(Debug)]
pub struct RedisCluster {
    setup: Setup,
    /// In no fixed order. [`Self::members`] says which server is a primary and which a replica.
    pub servers: Vec<Redis>,
}

/// A server as another server of the cluster sees it.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its index in [`RedisCluster::servers`].
    pub server: usize,
    pub id: String,
    /// The id of its primary, if it is a replica.
    pub follows: Option<String>,
    pub is_down: bool,
    pub slots: Vec<RangeInclusive<u16>>,
}

impl RedisCluster {
    pub async fn start() -> Self {
        Self::start_as(Setup::new(Version::Redis, &[])).await
    }

    pub async fn start_as(setup: Setup) -> Self {
        let mut setup = setup;
        let args = [
            ["--requirepass", PASSWORD],
            ["--masterauth", PASSWORD],
            ["--cluster-node-timeout", NODE_TIMEOUT],
            ["--repl-diskless-sync-delay", "0"],
        ];
        // The last value of an option counts, so the arguments of `setup` come last.
        let asked_for = std::mem::take(&mut setup.args);
        let args = args.as_flattened().iter().map(|&arg| arg.to_owned());
        setup.args = args.chain(asked_for).collect();
        if setup.tls.is_some() {
            let args = ["--tls-replication", "yes", "--tls-cluster", "yes"];
            setup.args.extend(args.map(str::to_owned));
        }
        setup.is_clustered = true;
        let mut servers = Vec::with_capacity(SERVERS);
        for _ in 0..SERVERS {
            servers.push(Redis::start_as(setup.clone()).await);
        }
        let cluster = Self { setup, servers };
        let mut create = cluster.setup.redis_cli(cluster.servers[0].port());
        create.args(["--cluster", "create"]);
        create.args(cluster.servers.iter().map(Redis::address));
        create.args(["--cluster-replicas", "1", "--cluster-yes"]);
        output_of(&mut create).unwrap_or_else(|why| panic!("{why}"));
        cluster.until_whole().await;
        cluster
    }

    /// Waits until all running servers agree on the slots, and every replica follows its primary.
    pub async fn until_whole(&self) {
        until("all servers agree, and every replica follows", || {
            let views: Vec<_> = self.alive().map(|server| self.seen_by(server)).collect();
            let shares = |members: &[Member]| {
                let mut shares: Vec<_> = members
                    .iter()
                    .filter(|member| !member.is_down)
                    .map(|member| (member.server, member.follows.clone(), member.slots.clone()))
                    .collect();
                shares.sort_unstable_by_key(|(server, ..)| *server);
                shares
            };
            let first = shares(&views[0]);
            first.len() == views.len()
                && views.iter().all(|view| shares(view) == first)
                && self.alive().all(|server| {
                    let state = server.cli(&["CLUSTER", "INFO"]);
                    let role = server.cli(&["INFO", "replication"]);
                    state.contains("cluster_state:ok")
                        && (role.contains("role:master") || role.contains("master_link_status:up"))
                })
        })
        .await;
    }

    /// Returns an address that names only these servers. A client finds the others through them.
    pub fn url_of(&self, servers: &[usize]) -> String {
        self.url_with(servers, PASSWORD)
    }

    /// Returns an address that names all servers.
    pub fn url(&self) -> String {
        let all: Vec<_> = (0..SERVERS).collect();
        self.url_of(&all)
    }

    pub fn url_with(&self, servers: &[usize], password: &str) -> String {
        let hosts = servers.iter().map(|server| self.servers[*server].address());
        let hosts: Vec<_> = hosts.collect();
        let (scheme, query) = match &self.setup.tls {
            None => ("redis", String::new()),
            Some(certificates) => ("rediss", format!("?{}", certificates.query())),
        };
        format!("{scheme}+cluster://:{password}@{}{query}", hosts.join(","))
    }

    /// Returns the servers that are neither ended nor stopped.
    pub fn alive(&self) -> impl Iterator<Item = &Redis> {
        self.servers.iter().filter(|server| server.runs())
    }

    /// Returns all members as the first running server sees them.
    pub fn members(&self) -> Vec<Member> {
        self.seen_by(self.alive().next().expect("one that runs"))
    }

    fn seen_by(&self, server: &Redis) -> Vec<Member> {
        let text = server.cli(&["CLUSTER", "NODES"]);
        text.lines().filter_map(|line| self.member(line)).collect()
    }

    /// Parses `id ip:port@bus flags primary ping pong epoch link slot…`. A slot that is being moved
    /// is in brackets.
    fn member(&self, line: &str) -> Option<Member> {
        let mut fields = line.split(' ');
        let mut field = || fields.next();
        let (id, address, flags, primary) = (field()?, field()?, field()?, field()?);
        let port = address.split(['@', ',']).next()?.rsplit(':').next()?;
        let port: u16 = port.parse().ok()?;
        let slots = fields.skip(4).filter_map(|slots| {
            let (first, last) = slots.split_once('-').unwrap_or((slots, slots));
            Some(first.parse().ok()?..=last.parse().ok()?)
        });
        Some(Member {
            server: self
                .servers
                .iter()
                .position(|server| server.port() == port)?,
            id: id.to_owned(),
            follows: (primary != "-").then(|| primary.to_owned()),
            is_down: flags.split(',').any(|flag| flag == "fail"),
            slots: slots.collect(),
        })
    }

    pub fn slot(&self, key: &str) -> u16 {
        let server = self.alive().next().expect("one that runs");
        let slot = server.cli(&["CLUSTER", "KEYSLOT", key]);
        slot.parse().expect("a number")
    }

    /// Returns the primary that has a slot.
    pub fn owner(&self, slot: u16) -> Member {
        let members = self.members().into_iter();
        let mut owners = members.filter(|member| {
            !member.is_down && member.slots.iter().any(|slots| slots.contains(&slot))
        });
        owners
            .next()
            .unwrap_or_else(|| panic!("no primary has slot {slot}"))
    }

    /// Returns the primary that has a key.
    pub fn primary_of(&self, key: &str) -> Member {
        self.owner(self.slot(key))
    }

    /// Returns the first replica of a primary.
    pub fn replica_of(&self, primary: &Member) -> Member {
        let members = self.members().into_iter();
        let mut replicas = members.filter(|member| {
            !member.is_down && member.follows.as_deref() == Some(primary.id.as_str())
        });
        replicas
            .next()
            .unwrap_or_else(|| panic!("none of {primary:?}"))
    }

    /// Returns all primaries that run.
    pub fn primaries(&self) -> Vec<Member> {
        let members = self.members().into_iter();
        let is_primary = |member: &Member| {
            !member.is_down && member.follows.is_none() && !member.slots.is_empty()
        };
        members.filter(is_primary).collect()
    }

    /// Returns the matching keys of all primaries, each with the index of its server.
    pub fn keys(&self, pattern: &str) -> Vec<(usize, String)> {
        let primaries = self.primaries().into_iter();
        let keys = primaries.flat_map(|primary| {
            let keys = self.servers[primary.server].cli(&["KEYS", pattern]);
            let keys = keys.lines().filter(|key| !key.is_empty());
            let keys: Vec<_> = keys.map(|key| (primary.server, key.to_owned())).collect();
            keys
        });
        keys.collect()
    }

    /// Waits until another primary has the slots of `old`, and every slot is served.
    pub async fn failed_over_from(&self, old: &Member) {
        let slot = *old.slots[0].start();
        until("a failover", || {
            self.alive().all(|server| {
                let members = self.seen_by(server);
                let mut owners = members.iter().filter(|member| {
                    member.slots.iter().any(|slots| slots.contains(&slot)) && !member.is_down
                });
                owners.any(|owner| owner.id != old.id)
                    && server
                        .cli(&["CLUSTER", "INFO"])
                        .contains("cluster_state:ok")
            })
        })
        .await;
    }

    /// Adds a primary without slots.
    pub async fn grow(&mut self) -> Member {
        let server = Redis::start_as(self.setup.clone()).await;
        let port = server.port().to_string();
        self.servers[0].cli(&["CLUSTER", "MEET", "127.0.0.1", &port]);
        self.servers.push(server);
        self.until_whole().await;
        let last = self.servers.len() - 1;
        let members = self.members().into_iter();
        let mut grown = members.filter(|member| member.server == last);
        grown.next().expect("the new server is known")
    }

    /// Moves a slot to another primary in one step, as Valkey 9 does it by itself.
    pub async fn migrate_slot(&self, slot: u16, to: &Member) {
        let source = &self.servers[self.owner(slot).server];
        let number = slot.to_string();
        let range = ["SLOTSRANGE", &number, &number, "NODE", &to.id];
        source.cli(&[&["CLUSTER", "MIGRATESLOTS"][..], &range].concat());
        self.until_owned(slot, to).await;
    }

    /// Moves a slot and its keys to another primary, one key at a time, as `redis-cli` does it.
    /// Pauses for `pause` in each state in between.
    pub async fn move_slot(&self, slot: u16, to: &Member, pause: Duration) {
        let from = self.owner(slot);
        assert_ne!(from.id, to.id, "the target already has the slot");
        let (source, target) = (&self.servers[from.server], &self.servers[to.server]);
        let number = slot.to_string();
        target.cli(&["CLUSTER", "SETSLOT", &number, "IMPORTING", &from.id]);
        source.cli(&["CLUSTER", "SETSLOT", &number, "MIGRATING", &to.id]);
        sleep(pause).await;
        let port = target.port().to_string();
        loop {
            let keys = source.cli(&["CLUSTER", "GETKEYSINSLOT", &number, "1"]);
            if keys.is_empty() {
                break;
            }
            let migrate = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000"];
            let keys = ["AUTH", PASSWORD, "KEYS", &keys];
            source.cli(&[&migrate[..], &keys[..]].concat());
            sleep(pause).await;
        }
        // The target gets the command first, because it owns the slot from now on.
        for server in [target, source] {
            server.cli(&["CLUSTER", "SETSLOT", &number, "NODE", &to.id]);
        }
        self.until_owned(slot, to).await;
    }

    async fn until_owned(&self, slot: u16, by: &Member) {
        until("all servers know the owner of the slot", || {
            self.alive().all(|server| {
                let members = self.seen_by(server);
                members.iter().any(|member| {
                    member.id == by.id && member.slots.iter().any(|slots| slots.contains(&slot))
                })
            })
        })
        .await;
    }
}
