//! Whether a Redis is fit for the cache, and what has to be changed if it is not.

use crate::cache::redis::admin::diagnostic::Diagnostic;
use crate::cache::redis::config::RedisConfig;
use crate::cache::redis::net::address::{Address, Server};
use crate::cache::redis::net::cluster::Cluster;
use crate::cache::redis::net::connect_error::ConnectError;
use crate::cache::redis::net::resolve::Resolve;
use crate::cache::redis::net::sentinel::Sentinels;
use crate::cache::redis::net::server_info::{About, field, text};
use crate::cache::redis::node::preflight::preflight;
use crate::types::Error;
use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, ErrorKind, Pipeline, RedisError, RedisResult, Value};
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How long one step may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// An answer that takes longer than this is reported. Half of the default timeout of nodes.
const SLOW: Duration = Duration::from_millis(25);

/// What the cache's user in Redis must be allowed to do, as in `guide/redis.md`.
const RIGHTS: &str = "allow it: ACL SETUSER <user> ~repository::* ~blobs::* ~lease::* ~fence::* ~layercache::* \
     &layercache::* +@connection +@string +@hash +@set +@sortedset +@keyspace +@scripting +@pubsub +info +time, \
     in a cluster also +cluster|info +cluster|slots +cluster|nodes; with a prefix, that before each pattern";

/// One server to check.
struct Probe<'a> {
    config: &'a RedisConfig,
    server: Server,
    /// A name that, in the braces of a key, leads to this server.
    tag: String,
    in_cluster: bool,
    has_sentinels: bool,
}

/// Checks a Redis, and returns all findings. Asks each of its primaries. Leaves nothing behind in
/// Redis.
pub(crate) async fn check_server(config: &RedisConfig) -> Result<Vec<Diagnostic>, Error> {
    let address = config.check()?;
    let config = &config.clone().in_its_prefix();
    let mut diagnostics = Vec::new();
    let mut probes = Vec::new();
    let probe = |server, tag, in_cluster, has_sentinels| Probe {
        config,
        server,
        tag,
        in_cluster,
        has_sentinels,
    };
    match address {
        Address::One(server) => probes.push(probe(server, "nodes".to_owned(), false, false)),
        Address::Sentinel {
            sentinels,
            service,
            primary,
        } => {
            let sentinels = Sentinels::new(sentinels, service.clone(), primary);
            match sentinels.locate().await {
                Ok(located) => {
                    let server = located.server;
                    diagnostics.push(Diagnostic::good(format!(
                        "sentinels: the primary of {service} is {server:?}"
                    )));
                    probes.push(probe(server, "nodes".to_owned(), false, true));
                }
                Err(trouble) => diagnostics.push(describe("sentinels", &trouble)),
            }
        }
        Address::Cluster { seeds } => {
            let cluster = Cluster::new(seeds, config.timeout);
            match cluster.look_now().await {
                Ok(map) => {
                    let places = map.primaries();
                    let served = map.served();
                    let count = places.len();
                    diagnostics.push(match served {
                        16384 => {
                            Diagnostic::good(format!("cluster: {count} primaries serve all slots"))
                        }
                        _ => Diagnostic::wrong(format!(
                            "cluster: {served} of 16384 slots are served"
                        ))
                        .fix("see redis-cli --cluster check and --cluster fix"),
                    });
                    for place in places {
                        if let Some(tag) = map.tag_of(&place) {
                            probes.push(probe(cluster.server(place), tag, true, false));
                        }
                    }
                }
                Err(trouble) => diagnostics.push(describe("cluster", &trouble)),
            }
            cluster.close();
        }
    }
    for probe in probes {
        let place = format!("{:?}", probe.server);
        match timeout(PATIENCE * 3, probe.examine(&mut diagnostics)).await {
            Ok(Ok(())) => {}
            Ok(Err(trouble)) => diagnostics.push(describe(&place, &trouble)),
            Err(_) => diagnostics.push(describe(&place, &ConnectError::Slow(PATIENCE * 3))),
        }
    }
    Ok(diagnostics)
}

impl Probe<'_> {
    async fn examine(&self, diagnostics: &mut Vec<Diagnostic>) -> Result<(), ConnectError> {
        let place = format!("{:?}", self.server);
        let mut connection = self.connect().await?;
        let about = About::handshake(&mut connection, self.in_cluster).await?;
        let took = ping(&mut connection).await?;
        let info = self.info(&mut connection).await?;
        diagnostics.push(Diagnostic::good(format!(
            "{place}: {}, answers in {took:.1?}",
            who(&info)
        )));
        if took > SLOW.min(self.config.timeout) {
            diagnostics.push(
                Diagnostic::advice(format!(
                    "{place}: an answer takes {took:.1?}, nodes wait for 50ms by default"
                ))
                .fix("bring Redis nearer to the nodes, or give them a longer --redis-timeout"),
            );
        }
        diagnostics.extend(about.advice(self.has_sentinels).into_iter().map(|advice| {
            let (what, fix) = advice.split_once(": ").unwrap_or((advice, ""));
            let diagnostic = Diagnostic::advice(format!("{place}: {what}"));
            match fix {
                "" => diagnostic,
                fix => diagnostic.fix(fix),
            }
        }));
        diagnostics.push(of_memory(&place, &info));
        diagnostics.push(of_persistence(&place, &info));
        diagnostics.push(of_replicas(&place, &info));
        preflight(&mut connection, &self.config.prefix, &self.tag).await?;
        self.listen(&mut connection).await?;
        diagnostics.push(Diagnostic::good(format!(
            "{place}: the user may do all that the cache needs"
        )));
        diagnostics.push(self.write(&place, &mut connection).await?);
        diagnostics.extend(self.nodes(&mut connection).await);
        Ok(())
    }

    async fn connect(&self) -> Result<MultiplexedConnection, ConnectError> {
        let client = self.server.clone().with_pushes().client();
        let client = client.map_err(ConnectError::Connecting)?;
        // The check needs no push messages, but the connection needs a place for them.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE))
            .set_push_sender(|_| Ok::<_, Infallible>(()));
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let connected = timeout(PATIENCE, connecting).await;
        connected
            .map_err(|_| ConnectError::Slow(PATIENCE))?
            .map_err(ConnectError::Connecting)
    }

    async fn info(&self, connection: &mut MultiplexedConnection) -> Result<String, ConnectError> {
        let mut pipeline = Pipeline::new();
        for section in ["server", "memory", "persistence", "replication"] {
            pipeline.cmd("INFO").arg(section);
        }
        let replies: RedisResult<Vec<Value>> = pipeline.query_async(connection).await;
        let replies = replies.map_err(ConnectError::Connecting)?;
        Ok(replies.iter().filter_map(text).collect())
    }

    /// Checks that the user may subscribe to the channel between nodes, and publish on it.
    async fn listen(&self, connection: &mut MultiplexedConnection) -> Result<(), ConnectError> {
        let channel = format!("{}layercache::{{nodes}}::preflight", self.config.prefix);
        let refuse = |what: &str, error: RedisError| match error.code() {
            Some("NOPERM") => ConnectError::Forbidden(vec![format!(
                "{what} {}layercache::* ({error})",
                self.config.prefix
            )]),
            _ => ConnectError::Connecting(error),
        };
        let subscribed = connection.subscribe(&channel).await;
        subscribed.map_err(|error| refuse("SUBSCRIBE to", error))?;
        let mut publish = ::redis::cmd("PUBLISH");
        publish.arg(&channel).arg("");
        let published: RedisResult<Value> = publish.query_async(connection).await;
        published.map_err(|error| refuse("PUBLISH to", error))?;
        let left = connection.unsubscribe(&channel).await;
        left.map_err(ConnectError::Connecting)
    }

    /// Checks that the server takes writes, with a write that changes nothing.
    async fn write(
        &self,
        place: &str,
        connection: &mut MultiplexedConnection,
    ) -> Result<Diagnostic, ConnectError> {
        let key = format!(
            "{}layercache::{{{}}}::preflight",
            self.config.prefix, self.tag
        );
        let mut write = ::redis::cmd("PERSIST");
        let written: RedisResult<Value> = write.arg(key).query_async(connection).await;
        let error = match written {
            Ok(_) => return Ok(Diagnostic::good(format!("{place}: it takes writes"))),
            Err(error) => error,
        };
        let fix = match error.code() {
            Some("NOREPLICAS") => {
                "too few replicas follow it: start them, or lower min-replicas-to-write"
            }
            Some("MISCONF") => "its dumps fail: see its log, or set stop-writes-on-bgsave-error no",
            Some("READONLY") => "it is a replica: name its primary, or its sentinels",
            Some("LOADING") => "it is reading its dump: wait",
            Some("CLUSTERDOWN") => "see redis-cli --cluster check",
            _ => return Err(ConnectError::Connecting(error)),
        };
        Ok(Diagnostic::wrong(format!("{place}: it takes no writes: {error}")).fix(fix))
    }

    /// Counts the nodes with a heartbeat in the last ten seconds, on the server that knows them.
    async fn nodes(&self, connection: &mut MultiplexedConnection) -> Option<Diagnostic> {
        let nodes = format!("{}layercache::{{nodes}}", self.config.prefix);
        let time: (u64, u64) = ::redis::cmd("TIME").query_async(connection).await.ok()?;
        let least = (time.0 * 1000).saturating_sub(10_000);
        let mut count = ::redis::cmd("ZCOUNT");
        count.arg(nodes).arg(least).arg("(+inf");
        let count: u64 = count.query_async(connection).await.ok()?;
        Some(Diagnostic::good(format!("nodes: {count} are there")))
    }
}

async fn ping(connection: &mut MultiplexedConnection) -> Result<Duration, ConnectError> {
    let mut best = PATIENCE;
    for _ in 0..3 {
        let sent = Instant::now();
        let pong: RedisResult<Value> = ::redis::cmd("PING").query_async(connection).await;
        pong.map_err(ConnectError::Connecting)?;
        best = best.min(sent.elapsed());
    }
    Ok(best)
}

fn who(info: &str) -> String {
    let field = |name| field(info, name).unwrap_or("?");
    match self::field(info, "valkey_version:") {
        Some(version) => format!("Valkey {version}"),
        None => format!("Redis {}", field("redis_version:")),
    }
}

fn of_memory(place: &str, info: &str) -> Diagnostic {
    let number = |name| field(info, name).and_then(|text| text.parse::<u64>().ok());
    let used = number("used_memory:").unwrap_or(0);
    let policy = field(info, "maxmemory_policy:").unwrap_or("?");
    match number("maxmemory:") {
        // `About::advice` reports a missing limit.
        None | Some(0) => Diagnostic::good(format!("{place}: uses {} of memory", size(used))),
        Some(most) if policy == "noeviction" && used >= most / 100 * 99 => Diagnostic::wrong(format!(
            "{place}: its memory is full ({} of {}) and noeviction keeps it so: nothing more is cached, and \
             nodes may not be heard",
            size(used),
            size(most)
        ))
        .fix("set maxmemory-policy volatile-lru, or more maxmemory"),
        Some(most) => Diagnostic::good(format!(
            "{place}: uses {} of {} of memory, {policy}",
            size(used),
            size(most)
        )),
    }
}

fn of_persistence(place: &str, info: &str) -> Diagnostic {
    let is = |name, value| field(info, name) == Some(value);
    if is("loading:", "1") {
        return Diagnostic::wrong(format!("{place}: it is still reading its dump"))
            .fix("wait for it");
    }
    let failed = [
        ("rdb_last_bgsave_status:", "dump"),
        ("aof_last_write_status:", "append to its file"),
    ];
    for (name, what) in failed {
        if is(name, "err") {
            return Diagnostic::wrong(format!(
                "{place}: its last {what} failed: it may refuse writes"
            ))
            .fix("see its log for why; the cache needs no persistence, so --save '' is a way out");
        }
    }
    let how = match is("aof_enabled:", "1") {
        true => "keeps an append-only file",
        false => "keeps no append-only file",
    };
    Diagnostic::good(format!(
        "{place}: {how}; the cache needs none, and nodes purge what an old dump brings back"
    ))
}

fn of_replicas(place: &str, info: &str) -> Diagnostic {
    let count = field(info, "connected_slaves:").unwrap_or("0");
    let good = match field(info, "min_slaves_good_slaves:") {
        Some(good) => format!(", {good} of them near enough to count"),
        None => String::new(),
    };
    Diagnostic::good(format!("{place}: a primary with {count} replicas{good}"))
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{} KiB", bytes >> 10),
        1_048_576..1_073_741_824 => format!("{} MiB", bytes >> 20),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}

/// Returns what is wrong, and what to do about it.
fn describe(place: &str, trouble: &ConnectError) -> Diagnostic {
    let wrong = |what: String| Diagnostic::wrong(format!("{place}: {what}"));
    match trouble {
        ConnectError::Connecting(error) => {
            let fix = match (error.kind(), error.code()) {
                (ErrorKind::AuthenticationFailed, _)
                | (_, Some("NOAUTH" | "WRONGPASS" | "NOPERM")) => {
                    "give the right user and password: redis://user:password@host"
                }
                _ if error.is_io_error() => {
                    "is Redis there, does it speak TLS (rediss://) or not, does a firewall keep it away?"
                }
                _ => "are user, password and certificates right?",
            };
            wrong(format!("no connection: {error}")).fix(fix)
        }
        ConnectError::Forbidden(what) => wrong(format!(
            "Redis refuses what the cache needs: {}",
            what.join(", ")
        ))
        .fix(RIGHTS),
        trouble => {
            let text = trouble.to_string();
            match text.split_once("; ").or_else(|| text.split_once(": ")) {
                Some((what, fix)) => wrong(what.to_owned()).fix(fix),
                None => wrong(text),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::redis::admin::diagnostic::Severity;

    #[test]
    fn a_full_memory_is_wrong_only_where_nothing_makes_room() {
        let info = |used: u64, policy: &str| {
            format!("used_memory:{used}\r\nmaxmemory:1000000\r\nmaxmemory_policy:{policy}\r\n")
        };
        for (used, policy, severity) in [
            (1_000_000, "noeviction", Severity::Wrong),
            (500_000, "noeviction", Severity::Good),
            (1_000_000, "volatile-lru", Severity::Good),
        ] {
            let diagnostic = of_memory("a:1", &info(used, policy));
            assert_eq!(diagnostic.severity, severity, "{diagnostic}");
        }
        assert_eq!(of_memory("a:1", "maxmemory:0").severity, Severity::Good);
    }

    #[test]
    fn failed_dumps_are_wrong() {
        for (info, severity) in [
            ("rdb_last_bgsave_status:err\r\n", Severity::Wrong),
            ("aof_last_write_status:err\r\n", Severity::Wrong),
            ("loading:1\r\n", Severity::Wrong),
            (
                "loading:0\r\nrdb_last_bgsave_status:ok\r\naof_enabled:1\r\n",
                Severity::Good,
            ),
        ] {
            assert_eq!(of_persistence("a:1", info).severity, severity, "{info}");
        }
    }
}
