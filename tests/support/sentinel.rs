//! Starts a primary with replicas, and Sentinels that monitor them.

use super::redis::{Redis, Setup, Version, output_of};
use super::server::{Server, Signal};
use super::tls::Certificates;
use super::tools::require;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::time::sleep;

/// The name under which the Sentinels know the primary.
pub const SERVICE: &str = "registry";
pub const PASSWORD: &str = "pa55w0rd-of-redis";
/// A user of the Sentinels that has only the rights that a client needs.
pub const WATCHER: &str = "watcher";
pub const WATCHERS_PASSWORD: &str = "pa55w0rd-of-sentinel";

const REPLICAS: usize = 2;
const SENTINELS: usize = 3;
const QUORUM: usize = 2;
/// The time after which a Sentinel takes a silent server for down.
const DOWN_AFTER: Duration = Duration::from_millis(1500);
/// The longest time that anything may take here.
const PATIENCE: Duration = Duration::from_secs(30);

/// One primary, two replicas, three Sentinels.
#[derive(Debug)]
pub struct Watched {
    setup: Setup,
    /// The first server is the primary until it fails.
    pub servers: Vec<Redis>,
    pub sentinels: Vec<Sentinel>,
}

/// A `redis-server` that is a Sentinel.
#[derive(Debug)]
pub struct Sentinel {
    server: Server,
    setup: Setup,
    _folder: TempDir,
}

impl Watched {
    pub async fn start() -> Self {
        Self::start_as(Setup::new(Version::Redis, &[])).await
    }

    /// Starts all servers and Sentinels with this version, with TLS if `setup` has it.
    pub async fn start_as(setup: Setup) -> Self {
        let mut setup = setup;
        let args = [
            // A primary that is cut off from its replicas then accepts no writes.
            ["--min-replicas-to-write", "1"],
            ["--min-replicas-max-lag", "2"],
            ["--requirepass", PASSWORD],
            ["--masterauth", PASSWORD],
            ["--repl-diskless-sync-delay", "0"],
        ];
        setup
            .args
            .extend(args.as_flattened().iter().map(|&arg| arg.to_owned()));
        if setup.tls.is_some() {
            setup
                .args
                .extend(["--tls-replication", "yes"].map(str::to_owned));
        }
        let primary = Redis::start_as(setup.clone()).await;
        let mut servers = Vec::with_capacity(REPLICAS + 1);
        let port = primary.port().to_string();
        servers.push(primary);
        for _ in 0..REPLICAS {
            let mut setup = setup.clone();
            let args = ["--replicaof", "127.0.0.1", &port];
            setup.args.extend(args.map(str::to_owned));
            servers.push(Redis::start_as(setup).await);
        }
        let following = format!("connected_slaves:{REPLICAS}");
        until("the replicas follow", || {
            let info = servers[0].cli(&["INFO", "replication"]);
            info.contains(&following) && info.matches("state=online").count() == REPLICAS
        })
        .await;
        let mut sentinels = Vec::with_capacity(SENTINELS);
        for _ in 0..SENTINELS {
            sentinels.push(Sentinel::start(&setup, &port).await);
        }
        let watched = Self {
            setup,
            servers,
            sentinels,
        };
        watched.until_complete().await;
        watched
    }

    /// Waits until every Sentinel knows all other Sentinels and all replicas.
    async fn until_complete(&self) {
        let (others, replicas) = (SENTINELS - 1, REPLICAS);
        until("the Sentinels know each other", || {
            self.sentinels.iter().all(|sentinel| {
                let text = sentinel.cli(&["SENTINEL", "MASTER", SERVICE]);
                let fields: Vec<_> = text.lines().collect();
                let (fields, _) = fields.as_chunks::<2>();
                let is = |name, count: usize| {
                    let value = count.to_string();
                    fields.iter().any(|field| *field == [name, &*value])
                };
                is("num-other-sentinels", others) && is("num-slaves", replicas)
            })
        })
        .await;
    }

    /// Returns the address that names all Sentinels.
    pub fn url(&self) -> String {
        self.url_with(PASSWORD, WATCHERS_PASSWORD)
    }

    /// Returns the address that names all Sentinels, with these passwords.
    pub fn url_with(&self, password: &str, watchers: &str) -> String {
        let hosts: Vec<_> = self.sentinels.iter().map(Sentinel::address).collect();
        let (scheme, query) = match &self.setup.tls {
            None => ("redis", String::new()),
            Some(certificates) => ("rediss", format!("&{}", certificates.query())),
        };
        format!(
            "{scheme}+sentinel://:{password}@{}/{SERVICE}\
             ?sentinel_user={WATCHER}&sentinel_password={watchers}{query}",
            hosts.join(",")
        )
    }

    /// Returns the index of the server that the first Sentinel takes for the primary.
    pub fn primary(&self) -> usize {
        let [sentinel, ..] = &self.sentinels[..] else {
            panic!("no Sentinel is left");
        };
        let address = sentinel.cli(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE]);
        let port = address.lines().nth(1).and_then(|port| port.parse().ok());
        let is_it = |server: &Redis| Some(server.port()) == port;
        let at = self.servers.iter().position(is_it);
        at.unwrap_or_else(|| panic!("no server has the address {address}"))
    }

    /// Waits for a failover and returns the new primary: it has a replica, and all Sentinels know
    /// it.
    pub async fn failed_over_from(&self, old: usize) -> usize {
        until("a failover", || {
            let all_know = self.sentinels.iter().all(|sentinel| {
                let address = sentinel.cli(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE]);
                address.lines().nth(1) != Some(&self.servers[old].port().to_string())
            });
            all_know && {
                let info = self.servers[self.primary()].cli(&["INFO", "replication"]);
                info.contains("role:master") && info.contains("state=online")
            }
        })
        .await;
        self.primary()
    }

    /// Waits until a server that was the primary follows the new one.
    pub async fn follows(&self, server: usize) {
        until("the old primary follows the new one", || {
            let info = self.servers[server].cli(&["INFO", "replication"]);
            info.contains("role:slave") && info.contains("master_link_status:up")
        })
        .await;
    }
}

impl Sentinel {
    async fn start(watched: &Setup, port: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder for a Sentinel");
        let program = require(watched.version.program());
        let file = folder.path().join("sentinel.conf");
        let config = config(port, watched.tls.as_deref());
        let command = |port: u16| {
            let (plain, encrypted) = match watched.tls {
                None => (port, 0),
                Some(_) => (0, port),
            };
            let ports = match encrypted {
                0 => format!("port {plain}\n"),
                _ => format!("port {plain}\ntls-port {encrypted}\n"),
            };
            // The Sentinel writes to this file what it learns.
            fs::write(&file, ports + &config).expect("a configuration");
            let mut command = Command::new(&program);
            command.arg(&file).arg("--sentinel");
            command
        };
        let server = Server::start(command, |_| format!("+monitor master {SERVICE}")).await;
        Self {
            server,
            setup: Setup {
                args: Vec::new(),
                ..watched.clone()
            },
            _folder: folder,
        }
    }

    /// Returns its `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.server.port())
    }

    /// Returns what `redis-cli` prints for a command, one element a line.
    ///
    /// # Panics
    /// If the Sentinel cannot be reached or answers with an error.
    pub fn cli(&self, args: &[&str]) -> String {
        self.try_cli(args).unwrap_or_else(|why| panic!("{why}"))
    }

    fn try_cli(&self, args: &[&str]) -> Result<String, String> {
        let mut command = self.setup.redis_cli(self.server.port());
        command.args(["--user", WATCHER, "--pass", WATCHERS_PASSWORD]);
        command.arg("--no-auth-warning").args(args);
        output_of(&mut command)
    }

    /// Asks the Sentinel for a failover until it accepts.
    pub async fn hand_over(&self) {
        until("a Sentinel hands over", || {
            self.try_cli(&["SENTINEL", "FAILOVER", SERVICE]).is_ok()
        })
        .await;
    }

    pub fn signal(&self, signal: Signal) {
        self.server.signal(signal);
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        self.server.kill();
    }
}

fn config(port: &str, tls: Option<&Certificates>) -> String {
    let down_after = DOWN_AFTER.as_millis();
    let tls = tls.map(|tls| format!("tls-replication yes\n{}", tls.server_lines()));
    let tls = tls.unwrap_or_default();
    // The Sentinels also use this user among themselves, because there is no other.
    format!(
        "bind 127.0.0.1\n\
         {tls}\
         user default off\n\
         user {WATCHER} on >{WATCHERS_PASSWORD} &* +@all\n\
         sentinel sentinel-user {WATCHER}\n\
         sentinel sentinel-pass {WATCHERS_PASSWORD}\n\
         sentinel monitor {SERVICE} 127.0.0.1 {port} {QUORUM}\n\
         sentinel auth-pass {SERVICE} {PASSWORD}\n\
         sentinel down-after-milliseconds {SERVICE} {down_after}\n\
         sentinel failover-timeout {SERVICE} 4000\n"
    )
}

/// Checks again and again until the condition holds.
///
/// # Panics
/// If that takes too long.
pub async fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "not in time: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}
