//! Is a Redis fit for the cache, and what has to be changed if it is not?

use super::diagnostic::Diagnostic;
use layercache::internals::{Primary, Topology, Unusable, find_primaries};
use layercache::{Error, RedisConfig};
use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult, Value};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How long one step may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// An answer that takes longer than this is reported. Half of the default timeout of nodes.
const SLOW: Duration = Duration::from_millis(25);

/// The permissions that the cache's user in Redis needs, as in `guide/redis.md`.
const RIGHTS: &str = "allow them: ACL SETUSER <user> ~repository::* ~blobs::* ~lease::* ~fence::* ~layercache::* \
     &layercache::* +@connection +@string +@hash +@set +@sortedset +@keyspace +@scripting +@pubsub +info +time, \
     in a cluster also +cluster|info +cluster|slots +cluster|nodes; with a prefix, that before each pattern";

/// The number of slots in a cluster.
const SLOTS: u32 = 16384;

/// Connects to a Redis as a node would, and reports what is wrong with it: its version, memory,
/// persistence and replicas, missing permissions of the user, and the nodes that use it. In a
/// cluster it checks each primary.
///
/// It tests commands on keys of its own and deletes these keys afterwards. It joins no channel and
/// does not count as a node.
///
/// # Errors
/// Returns an error if a setting is not valid. A problem in reaching Redis is not an error but a
/// [`Diagnostic`].
///
/// # Cancellation
/// May be dropped at any time. A test key then stays for a millisecond.
pub async fn check_redis(config: &RedisConfig) -> Result<Vec<Diagnostic>, Error> {
    let mut diagnostics = Vec::new();
    let primaries = match find_primaries(config).await? {
        Topology::Single(primary) => vec![primary],
        Topology::Sentinels { service, primary } => match primary {
            Ok(primary) => {
                diagnostics.push(Diagnostic::good(format!(
                    "sentinels: the primary of {service} is {}",
                    primary.name()
                )));
                vec![primary]
            }
            Err(trouble) => {
                diagnostics.push(describe("sentinels", &trouble));
                Vec::new()
            }
        },
        Topology::Cluster(Ok((primaries, served))) => {
            let count = primaries.len();
            diagnostics.push(match served {
                SLOTS => Diagnostic::good(format!("cluster: {count} primaries serve all slots")),
                _ => Diagnostic::wrong(format!("cluster: {served} of {SLOTS} slots are served"))
                    .fix("see redis-cli --cluster check and --cluster fix"),
            });
            primaries
        }
        Topology::Cluster(Err(trouble)) => {
            diagnostics.push(describe("cluster", &trouble));
            Vec::new()
        }
    };
    for primary in primaries {
        let place = primary.name();
        let probe = Probe {
            primary: &primary,
            place: &place,
            timeout: config.timeout(),
        };
        match timeout(PATIENCE * 3, probe.examine(&mut diagnostics)).await {
            Ok(Ok(())) => {}
            Ok(Err(trouble)) => diagnostics.push(describe(&place, &trouble)),
            Err(_) => diagnostics.push(
                Diagnostic::wrong(format!("{place}: no answer within {:?}", PATIENCE * 3))
                    .fix("check whether Redis hangs, and the firewall"),
            ),
        }
    }
    Ok(diagnostics)
}

/// One primary to check.
struct Probe<'a> {
    primary: &'a Primary,
    place: &'a str,
    /// How long nodes wait for an answer.
    timeout: Duration,
}

impl Probe<'_> {
    async fn examine(&self, diagnostics: &mut Vec<Diagnostic>) -> Result<(), Unusable> {
        let place = self.place;
        let mut connection = self.primary.connect(PATIENCE).await?;
        let advice = self.primary.advice(&mut connection).await?;
        let took = ping(&mut connection).await?;
        let info = self.info(&mut connection).await?;
        diagnostics.push(Diagnostic::good(format!(
            "{place}: {}, answers in {took:.1?}",
            version(&info)
        )));
        if took > SLOW.min(self.timeout) {
            diagnostics.push(
                Diagnostic::advice(format!(
                    "{place}: an answer takes {took:.1?}, and nodes wait 50ms by default"
                ))
                .fix("move Redis closer to the nodes, or set a longer Redis timeout on the nodes"),
            );
        }
        diagnostics.extend(advice.into_iter().map(|advice| {
            let (what, fix) = advice.split_once(": ").unwrap_or((advice, ""));
            let diagnostic = Diagnostic::advice(format!("{place}: {what}"));
            match fix {
                "" => diagnostic,
                fix => diagnostic.fix(fix),
            }
        }));
        diagnostics.push(of_memory(place, &info));
        diagnostics.push(of_persistence(place, &info));
        diagnostics.push(of_replicas(place, &info));
        self.primary.preflight(&mut connection).await?;
        self.listen(&mut connection).await?;
        diagnostics.push(Diagnostic::good(format!(
            "{place}: the user may run all commands that the cache needs"
        )));
        diagnostics.push(self.write(&mut connection).await?);
        diagnostics.extend(self.nodes(&mut connection).await);
        Ok(())
    }

    async fn info(&self, connection: &mut MultiplexedConnection) -> Result<String, Unusable> {
        let mut pipeline = Pipeline::new();
        for section in ["server", "memory", "persistence", "replication"] {
            pipeline.cmd("INFO").arg(section);
        }
        let replies: RedisResult<Vec<Value>> = pipeline.query_async(connection).await;
        let replies = replies.map_err(Unusable::Redis)?;
        Ok(replies
            .into_iter()
            .filter_map(|reply| String::from_redis_value(reply).ok())
            .collect())
    }

    /// Checks that the user may subscribe to the channel between nodes, and publish on it.
    async fn listen(&self, connection: &mut MultiplexedConnection) -> Result<(), Unusable> {
        let channel = format!("{}layercache::{{nodes}}::preflight", self.primary.prefix);
        let refuse = |what: &str, error: RedisError| match error.code() {
            Some("NOPERM") => Unusable::Forbidden(vec![format!(
                "{what} {}layercache::* ({error})",
                self.primary.prefix
            )]),
            _ => Unusable::Redis(error),
        };
        let subscribed = connection.subscribe(&channel).await;
        subscribed.map_err(|error| refuse("SUBSCRIBE to", error))?;
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(&channel).arg("");
        let published: RedisResult<Value> = publish.query_async(connection).await;
        published.map_err(|error| refuse("PUBLISH to", error))?;
        let left = connection.unsubscribe(&channel).await;
        left.map_err(Unusable::Redis)
    }

    /// Checks that the server takes writes, with a write that changes nothing.
    async fn write(&self, connection: &mut MultiplexedConnection) -> Result<Diagnostic, Unusable> {
        let place = self.place;
        let key = format!(
            "{}layercache::{{{}}}::preflight",
            self.primary.prefix, self.primary.tag
        );
        let mut write = redis::cmd("PERSIST");
        let written: RedisResult<Value> = write.arg(key).query_async(connection).await;
        let error = match written {
            Ok(_) => return Ok(Diagnostic::good(format!("{place}: it accepts writes"))),
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
            _ => return Err(Unusable::Redis(error)),
        };
        Ok(Diagnostic::wrong(format!("{place}: it accepts no writes: {error}")).fix(fix))
    }

    /// Counts the nodes with a heartbeat in the last ten seconds, on the server that knows them.
    async fn nodes(&self, connection: &mut MultiplexedConnection) -> Option<Diagnostic> {
        let nodes = format!("{}layercache::{{nodes}}", self.primary.prefix);
        let time: (u64, u64) = redis::cmd("TIME").query_async(connection).await.ok()?;
        let least = (time.0 * 1000).saturating_sub(10_000);
        let mut count = redis::cmd("ZCOUNT");
        count.arg(nodes).arg(least).arg("(+inf");
        let count: u64 = count.query_async(connection).await.ok()?;
        Some(Diagnostic::good(format!("nodes: {count} are connected")))
    }
}

async fn ping(connection: &mut MultiplexedConnection) -> Result<Duration, Unusable> {
    let mut best = PATIENCE;
    for _ in 0..3 {
        let sent = Instant::now();
        let pong: RedisResult<Value> = redis::cmd("PING").query_async(connection).await;
        pong.map_err(Unusable::Redis)?;
        best = best.min(sent.elapsed());
    }
    Ok(best)
}

fn version(info: &str) -> String {
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
        // `Primary::advice` reports a missing limit.
        None | Some(0) => Diagnostic::good(format!("{place}: uses {} of memory", size(used))),
        Some(most) if policy == "noeviction" && used >= most / 100 * 99 => Diagnostic::wrong(format!(
            "{place}: its memory is full ({} of {}), and noeviction frees none: Redis caches nothing more, and \
             may refuse heartbeats of nodes",
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
            .fix(
                "its log has the cause; the cache needs no persistence, so `save \"\"` is enough",
            );
        }
    }
    let how = match is("aof_enabled:", "1") {
        true => "keeps an append-only file",
        false => "keeps no append-only file",
    };
    Diagnostic::good(format!(
        "{place}: {how}; the cache needs no persistence, and nodes purge the data of an old dump"
    ))
}

fn of_replicas(place: &str, info: &str) -> Diagnostic {
    let count = field(info, "connected_slaves:").unwrap_or("0");
    let good = match field(info, "min_slaves_good_slaves:") {
        Some(good) => format!("; {good} of them count for min-replicas-to-write"),
        None => String::new(),
    };
    Diagnostic::good(format!("{place}: a primary with {count} replicas{good}"))
}

/// Returns the value of a field of `INFO`.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let value = info.lines().find_map(|line| line.strip_prefix(name))?;
    Some(value.trim())
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{} KiB", bytes >> 10),
        1_048_576..1_073_741_824 => format!("{} MiB", bytes >> 20),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}

/// Returns what is wrong, and what to do about it.
fn describe(place: &str, trouble: &Unusable) -> Diagnostic {
    let wrong = |what: String| Diagnostic::wrong(format!("{place}: {what}"));
    match trouble {
        Unusable::Redis(error) => {
            let fix = match (error.kind(), error.code()) {
                (ErrorKind::AuthenticationFailed, _)
                | (_, Some("NOAUTH" | "WRONGPASS" | "NOPERM")) => {
                    "check the user and the password: redis://user:password@host"
                }
                _ if error.is_io_error() => {
                    "check that Redis runs, whether it uses TLS (rediss://), and the firewall"
                }
                _ => "check the user, the password and the certificates",
            };
            wrong(format!("no connection: {error}")).fix(fix)
        }
        Unusable::Forbidden(what) => wrong(format!(
            "the user may not run commands that the cache needs: {}",
            what.join(", ")
        ))
        .fix(RIGHTS),
        Unusable::Other(text) => match text.split_once("; ").or_else(|| text.split_once(": ")) {
            Some((what, fix)) => wrong(what.to_owned()).fix(fix),
            None => wrong(text.clone()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::diagnostic::Severity;
    use super::*;

    #[test]
    fn a_full_memory_is_wrong_only_with_noeviction() {
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
