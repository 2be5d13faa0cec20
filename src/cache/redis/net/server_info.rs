//! What a server says about itself in `INFO`, and which advice follows from it.

use crate::cache::redis::net::connect_error::ConnectError;
use ::redis::aio::MultiplexedConnection;
use ::redis::{ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult, Value};

/// Which server it is (`run_id`), and whose data it has (`master_replid`). A restart changes the
/// first, a failover the second.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Identity(String);

/// What a server says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) identity: Identity,
    pub(crate) is_primary: bool,
    in_cluster: bool,
    is_sentinel: bool,
    version: (u32, u32),
    has_replicas: bool,
    /// Whether the server refuses writes when too few replicas follow it.
    counts_replicas: bool,
    /// `None` in a heartbeat, which does not ask for it.
    memory: Option<MaxMemory>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MaxMemory {
    None,
    Refuses,
    Evicts,
}

impl Identity {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Checks whether the server hides both parts. It would then look the same after a failover.
    fn is_hidden(&self) -> bool {
        self.0 == " "
    }
}

impl About {
    /// Adds the commands whose replies [`read`](Self::read) reads.
    pub(crate) fn ask(pipeline: &mut Pipeline) {
        pipeline.cmd("INFO").arg("server");
        pipeline.cmd("INFO").arg("replication");
    }

    /// Reads the last two replies.
    pub(crate) fn read(replies: &[RedisResult<Value>]) -> Option<Self> {
        let [.., Ok(server), Ok(replication)] = replies else {
            return None;
        };
        Some(Self::parse(&text(server)?, &text(replication)?, None))
    }

    /// Asks the server of a new connection about itself. The server has to be a primary, and part
    /// of a cluster only if the address says so.
    pub(crate) async fn handshake(
        connection: &mut MultiplexedConnection,
        in_cluster: bool,
    ) -> Result<Self, ConnectError> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("INFO").arg("memory");
        Self::ask(&mut pipeline);
        let asked = pipeline.ignore_errors().query_async(connection).await;
        let replies: Vec<RedisResult<Value>> = asked.map_err(ConnectError::Connecting)?;
        let [memory, server, replication] = replies.as_slice() else {
            return Err(ConnectError::Connecting(nothing()));
        };
        let read = |reply: &RedisResult<Value>| match reply {
            Ok(reply) => text(reply).ok_or_else(|| ConnectError::Connecting(nothing())),
            Err(error) => Err(ConnectError::Forbidden(vec![format!("INFO ({error})")])),
        };
        let memory = read(memory)?;
        let about = Self::parse(&read(server)?, &read(replication)?, Some(&memory));
        match (about.is_primary, about.in_cluster, in_cluster) {
            _ if about.is_sentinel => Err(ConnectError::Sentinel),
            (_, true, false) => Err(ConnectError::InCluster),
            (false, ..) => Err(ConnectError::Replica),
            _ if about.identity.is_hidden() => Err(ConnectError::Anonymous),
            _ => Ok(about),
        }
    }

    fn parse(server: &str, replication: &str, memory: Option<&str>) -> Self {
        // Valkey names the field `server_mode`.
        let mode = field(server, "redis_mode:").or_else(|| field(server, "server_mode:"));
        let identity = format!(
            "{} {}",
            field(server, "run_id:").unwrap_or_default(),
            field(replication, "master_replid:").unwrap_or_default()
        );
        let mut version = field(server, "redis_version:")
            .unwrap_or_default()
            .split('.');
        let mut part = || {
            version
                .next()
                .and_then(|part| part.parse().ok())
                .unwrap_or(0)
        };
        Self {
            identity: Identity(identity),
            is_primary: field(replication, "role:") != Some("slave"),
            in_cluster: mode == Some("cluster"),
            is_sentinel: mode == Some("sentinel"),
            version: (part(), part()),
            has_replicas: !matches!(field(replication, "connected_slaves:"), None | Some("0")),
            counts_replicas: field(replication, "min_slaves_good_slaves:").is_some(),
            memory: memory.map(MaxMemory::parse),
        }
    }

    /// Returns advice for the operators of the server.
    pub(crate) fn advice(&self, has_sentinels: bool) -> Vec<&'static str> {
        let fails_over = has_sentinels || self.in_cluster || self.has_replicas;
        let advice = [
            (
                self.version != (0, 0) && self.version < (6, 2),
                "it is older than Redis 6.2, the oldest version that layercache is tested with",
            ),
            (
                self.memory == Some(MaxMemory::None),
                "maxmemory is not set: set it, with maxmemory-policy volatile-lru, before the \
                 machine's memory is full",
            ),
            (
                self.memory == Some(MaxMemory::Refuses),
                "maxmemory-policy is noeviction: when Redis is full nothing more is cached; \
                 volatile-lru would make room",
            ),
            (
                fails_over && !self.in_cluster && !self.counts_replicas,
                "it has replicas or sentinels and takes writes without them: a primary that is cut \
                 off from them goes on as if nothing had happened; set min-replicas-to-write 1 and \
                 min-replicas-max-lag 1",
            ),
        ];
        advice
            .into_iter()
            .filter_map(|(applies, text)| applies.then_some(text))
            .collect()
    }
}

impl MaxMemory {
    fn parse(memory: &str) -> Self {
        let policy = field(memory, "maxmemory_policy:");
        match (field(memory, "maxmemory:"), policy) {
            (None | Some("0"), _) => Self::None,
            (_, Some("noeviction")) => Self::Refuses,
            _ => Self::Evicts,
        }
    }
}

pub(crate) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let value = info.lines().find_map(|line| line.strip_prefix(name))?;
    Some(value.trim())
}

pub(crate) fn text(value: &Value) -> Option<String> {
    String::from_redis_value(value.clone()).ok()
}

fn nothing() -> RedisError {
    RedisError::from((
        ErrorKind::UnexpectedReturnType,
        "the reply to INFO cannot be read",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: &str = "redis_version:7.0.15\r\nredis_mode:standalone\r\nrun_id:abc\r\n";
    const REPLICATION: &str = "role:master\r\nconnected_slaves:0\r\nmaster_replid:def\r\n";
    const MEMORY: &str = "maxmemory:1000\r\nmaxmemory_policy:volatile-lru\r\n";

    fn advice(server: &str, replication: &str, memory: &str, has_sentinels: bool) -> String {
        let about = About::parse(server, replication, Some(memory));
        about.advice(has_sentinels).join(" | ")
    }

    #[test]
    fn the_identity_and_role_of_a_server_are_read() {
        let about = About::parse(SERVER, REPLICATION, None);
        assert_eq!(about.identity.as_str(), "abc def");
        assert!(about.is_primary && !about.in_cluster && !about.is_sentinel);
        let about = About::parse("server_mode:cluster\r\n", "role:slave\r\n", None);
        assert!(!about.is_primary && about.in_cluster);
        assert!(about.identity.is_hidden());
        for (server, replication) in [(SERVER, ""), ("", REPLICATION)] {
            let about = About::parse(server, replication, None);
            assert!(
                !about.identity.is_hidden(),
                "one of the two parts is enough"
            );
        }
    }

    #[test]
    fn advice_is_given_where_it_applies() {
        assert_eq!(advice(SERVER, REPLICATION, MEMORY, false), "");
        for (server, replication, memory, has_sentinels, words) in [
            ("redis_version:6.0.9", REPLICATION, MEMORY, false, "older"),
            (SERVER, REPLICATION, "maxmemory:0", false, "not set"),
            (
                SERVER,
                REPLICATION,
                "maxmemory:9\nmaxmemory_policy:noeviction",
                false,
                "noeviction",
            ),
            (SERVER, REPLICATION, MEMORY, true, "min-replicas-to-write"),
            (
                SERVER,
                "connected_slaves:2",
                MEMORY,
                false,
                "min-replicas-to-write",
            ),
        ] {
            let advice = advice(server, replication, memory, has_sentinels);
            assert!(advice.contains(words) && !advice.contains('|'), "{advice}");
        }
        let counts = "connected_slaves:2\r\nmin_slaves_good_slaves:2";
        assert_eq!(advice(SERVER, counts, MEMORY, true), "");
    }
}
