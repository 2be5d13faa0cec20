//! Looks whether a Redis is fit for the cache, and says what is not.

use super::about::{About, field, text};
use super::address::{Address, Server};
use super::cluster::Cluster;
use super::config::RedisConfig;
use super::rehearsal::rehearse;
use super::sentinel::Sentinels;
use super::trouble::Trouble;
use crate::Error;
use crate::remark::Remark;
use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, ErrorKind, Pipeline, RedisError, RedisResult, Value};
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How long one step may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Half the time that nodes give Redis, unless they are told otherwise.
const SLOW: Duration = Duration::from_millis(25);

/// What the user of the cache has to be allowed; `docs` is the guide's.
const RIGHTS: &str = "allow it: ACL SETUSER <user> ~repository::* ~blobs::* ~lease::* ~fence::* ~layercache::* \
     &layercache::* +@connection +@string +@hash +@set +@sortedset +@keyspace +@scripting +@pubsub +info +time, \
     in a cluster also +cluster|info +cluster|slots +cluster|nodes; with a prefix, that before each pattern";

/// One server, and how it is to be looked at.
struct Patient<'a> {
    config: &'a RedisConfig,
    server: Server,
    /// What keys have in braces that this server serves.
    tag: String,
    in_cluster: bool,
    has_sentinels: bool,
}

/// All that is to be said of a Redis. Asks each of its primaries; writes nothing that stays.
pub(crate) async fn check_up(config: &RedisConfig) -> Result<Vec<Remark>, Error> {
    let address = config.check()?;
    let config = &config.clone().in_its_prefix();
    let mut remarks = Vec::new();
    let mut patients = Vec::new();
    let patient = |server, tag, in_cluster, has_sentinels| Patient {
        config,
        server,
        tag,
        in_cluster,
        has_sentinels,
    };
    match address {
        Address::One(server) => patients.push(patient(server, "nodes".to_owned(), false, false)),
        Address::Sentinel {
            sentinels,
            service,
            primary,
        } => {
            let sentinels = Sentinels::new(sentinels, service.clone(), primary);
            match sentinels.locate(None).await {
                Ok(located) => {
                    let server = located.server;
                    remarks.push(Remark::good(format!(
                        "sentinels: the primary of {service} is {server:?}"
                    )));
                    patients.push(patient(server, "nodes".to_owned(), false, true));
                }
                Err(trouble) => remarks.push(describe("sentinels", &trouble)),
            }
        }
        Address::Cluster { seeds } => {
            let cluster = Cluster::new(seeds, config.timeout);
            match cluster.look_now().await {
                Ok(map) => {
                    let places = map.primaries();
                    let served = map.served();
                    let count = places.len();
                    remarks.push(match served {
                        16384 => {
                            Remark::good(format!("cluster: {count} primaries serve all slots"))
                        }
                        _ => Remark::wrong(format!("cluster: {served} of 16384 slots are served"))
                            .fix("see redis-cli --cluster check and --cluster fix"),
                    });
                    for place in places {
                        if let Some(tag) = map.tag_of(&place) {
                            patients.push(patient(cluster.server(place), tag, true, false));
                        }
                    }
                }
                Err(trouble) => remarks.push(describe("cluster", &trouble)),
            }
            cluster.close();
        }
    }
    for patient in patients {
        let place = format!("{:?}", patient.server);
        match timeout(PATIENCE * 3, patient.examine(&mut remarks)).await {
            Ok(Ok(())) => {}
            Ok(Err(trouble)) => remarks.push(describe(&place, &trouble)),
            Err(_) => remarks.push(describe(&place, &Trouble::Slow(PATIENCE * 3))),
        }
    }
    Ok(remarks)
}

impl Patient<'_> {
    async fn examine(&self, remarks: &mut Vec<Remark>) -> Result<(), Trouble> {
        let place = format!("{:?}", self.server);
        let mut connection = self.connect().await?;
        let about = About::greet(&mut connection, self.in_cluster).await?;
        let took = ping(&mut connection).await?;
        let info = self.info(&mut connection).await?;
        remarks.push(Remark::good(format!(
            "{place}: {}, answers in {took:.1?}",
            who(&info)
        )));
        if took > SLOW.min(self.config.timeout) {
            remarks.push(
                Remark::advice(format!(
                    "{place}: an answer takes {took:.1?}, nodes wait for 50ms by default"
                ))
                .fix("bring Redis nearer to the nodes, or give them a longer --redis-timeout"),
            );
        }
        remarks.extend(about.advice(self.has_sentinels).into_iter().map(|advice| {
            let (what, fix) = advice.split_once(": ").unwrap_or((advice, ""));
            let remark = Remark::advice(format!("{place}: {what}"));
            match fix {
                "" => remark,
                fix => remark.fix(fix),
            }
        }));
        remarks.push(of_memory(&place, &info));
        remarks.push(of_persistence(&place, &info));
        remarks.push(of_replicas(&place, &info));
        rehearse(&mut connection, &self.config.prefix, &self.tag).await?;
        self.listen(&mut connection).await?;
        remarks.push(Remark::good(format!(
            "{place}: the user may do all that the cache needs"
        )));
        remarks.push(self.write(&place, &mut connection).await?);
        remarks.extend(self.nodes(&mut connection).await);
        Ok(())
    }

    async fn connect(&self) -> Result<MultiplexedConnection, Trouble> {
        let client = self.server.clone().with_pushes().client();
        let client = client.map_err(Trouble::Connecting)?;
        // Nobody listens to what is pushed, but it has to go somewhere.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE))
            .set_push_sender(|_| Ok::<_, Infallible>(()));
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let connected = timeout(PATIENCE, connecting).await;
        connected
            .map_err(|_| Trouble::Slow(PATIENCE))?
            .map_err(Trouble::Connecting)
    }

    async fn info(&self, connection: &mut MultiplexedConnection) -> Result<String, Trouble> {
        let mut pipeline = Pipeline::new();
        for section in ["server", "memory", "persistence", "replication"] {
            pipeline.cmd("INFO").arg(section);
        }
        let replies: RedisResult<Vec<Value>> = pipeline.query_async(connection).await;
        let replies = replies.map_err(Trouble::Connecting)?;
        Ok(replies.iter().filter_map(text).collect())
    }

    /// Whether the channel between nodes may be heard and spoken to.
    async fn listen(&self, connection: &mut MultiplexedConnection) -> Result<(), Trouble> {
        let channel = format!("{}layercache::{{nodes}}::rehearsal", self.config.prefix);
        let refuse = |what: &str, error: RedisError| match error.code() {
            Some("NOPERM") => Trouble::Forbidden(vec![format!(
                "{what} {}layercache::* ({error})",
                self.config.prefix
            )]),
            _ => Trouble::Connecting(error),
        };
        let subscribed = connection.subscribe(&channel).await;
        subscribed.map_err(|error| refuse("SUBSCRIBE to", error))?;
        let mut publish = ::redis::cmd("PUBLISH");
        publish.arg(&channel).arg("");
        let published: RedisResult<Value> = publish.query_async(connection).await;
        published.map_err(|error| refuse("PUBLISH to", error))?;
        let left = connection.unsubscribe(&channel).await;
        left.map_err(Trouble::Connecting)
    }

    /// Whether a write is taken that changes nothing.
    async fn write(
        &self,
        place: &str,
        connection: &mut MultiplexedConnection,
    ) -> Result<Remark, Trouble> {
        let key = format!(
            "{}layercache::{{{}}}::rehearsal",
            self.config.prefix, self.tag
        );
        let mut write = ::redis::cmd("PERSIST");
        let written: RedisResult<Value> = write.arg(key).query_async(connection).await;
        let error = match written {
            Ok(_) => return Ok(Remark::good(format!("{place}: it takes writes"))),
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
            _ => return Err(Trouble::Connecting(error)),
        };
        Ok(Remark::wrong(format!("{place}: it takes no writes: {error}")).fix(fix))
    }

    /// How many nodes are there, on the server that knows it.
    async fn nodes(&self, connection: &mut MultiplexedConnection) -> Option<Remark> {
        let nodes = format!("{}layercache::{{nodes}}", self.config.prefix);
        let time: (u64, u64) = ::redis::cmd("TIME").query_async(connection).await.ok()?;
        let least = (time.0 * 1000).saturating_sub(10_000);
        let mut count = ::redis::cmd("ZCOUNT");
        count.arg(nodes).arg(least).arg("(+inf");
        let count: u64 = count.query_async(connection).await.ok()?;
        Some(Remark::good(format!("nodes: {count} are there")))
    }
}

async fn ping(connection: &mut MultiplexedConnection) -> Result<Duration, Trouble> {
    let mut best = PATIENCE;
    for _ in 0..3 {
        let sent = Instant::now();
        let pong: RedisResult<Value> = ::redis::cmd("PING").query_async(connection).await;
        pong.map_err(Trouble::Connecting)?;
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

fn of_memory(place: &str, info: &str) -> Remark {
    let number = |name| field(info, name).and_then(|text| text.parse::<u64>().ok());
    let used = number("used_memory:").unwrap_or(0);
    let policy = field(info, "maxmemory_policy:").unwrap_or("?");
    match number("maxmemory:") {
        // Of a limit that is missing the advice speaks.
        None | Some(0) => Remark::good(format!("{place}: uses {} of memory", size(used))),
        Some(most) if policy == "noeviction" && used >= most / 100 * 99 => Remark::wrong(format!(
            "{place}: its memory is full ({} of {}) and noeviction keeps it so: nothing more is cached, and \
             nodes may not be heard",
            size(used),
            size(most)
        ))
        .fix("set maxmemory-policy volatile-lru, or more maxmemory"),
        Some(most) => Remark::good(format!(
            "{place}: uses {} of {} of memory, {policy}",
            size(used),
            size(most)
        )),
    }
}

fn of_persistence(place: &str, info: &str) -> Remark {
    let is = |name, value| field(info, name) == Some(value);
    if is("loading:", "1") {
        return Remark::wrong(format!("{place}: it is still reading its dump")).fix("wait for it");
    }
    let failed = [
        ("rdb_last_bgsave_status:", "dump"),
        ("aof_last_write_status:", "append to its file"),
    ];
    for (name, what) in failed {
        if is(name, "err") {
            return Remark::wrong(format!(
                "{place}: its last {what} failed: it may refuse writes"
            ))
            .fix("see its log for why; the cache needs no persistence, so --save '' is a way out");
        }
    }
    let how = match is("aof_enabled:", "1") {
        true => "keeps an append-only file",
        false => "keeps no append-only file",
    };
    Remark::good(format!(
        "{place}: {how}; the cache needs none, and nodes purge what an old dump brings back"
    ))
}

fn of_replicas(place: &str, info: &str) -> Remark {
    let count = field(info, "connected_slaves:").unwrap_or("0");
    let good = match field(info, "min_slaves_good_slaves:") {
        Some(good) => format!(", {good} of them near enough to count"),
        None => String::new(),
    };
    Remark::good(format!("{place}: a primary with {count} replicas{good}"))
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{} KiB", bytes >> 10),
        1_048_576..1_073_741_824 => format!("{} MiB", bytes >> 20),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}

/// What is wrong, and what to do.
fn describe(place: &str, trouble: &Trouble) -> Remark {
    let wrong = |what: String| Remark::wrong(format!("{place}: {what}"));
    match trouble {
        Trouble::Connecting(error) => {
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
        Trouble::Forbidden(what) => wrong(format!(
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
    use crate::remark::Grade;

    #[test]
    fn a_full_memory_is_wrong_only_where_nothing_makes_room() {
        let info = |used: u64, policy: &str| {
            format!("used_memory:{used}\r\nmaxmemory:1000000\r\nmaxmemory_policy:{policy}\r\n")
        };
        for (used, policy, grade) in [
            (1_000_000, "noeviction", Grade::Wrong),
            (500_000, "noeviction", Grade::Good),
            (1_000_000, "volatile-lru", Grade::Good),
        ] {
            let remark = of_memory("a:1", &info(used, policy));
            assert_eq!(remark.grade, grade, "{remark}");
        }
        assert_eq!(of_memory("a:1", "maxmemory:0").grade, Grade::Good);
    }

    #[test]
    fn failed_dumps_are_wrong() {
        for (info, grade) in [
            ("rdb_last_bgsave_status:err\r\n", Grade::Wrong),
            ("aof_last_write_status:err\r\n", Grade::Wrong),
            ("loading:1\r\n", Grade::Wrong),
            (
                "loading:0\r\nrdb_last_bgsave_status:ok\r\naof_enabled:1\r\n",
                Grade::Good,
            ),
        ] {
            assert_eq!(of_persistence("a:1", info).grade, grade, "{info}");
        }
    }
}
