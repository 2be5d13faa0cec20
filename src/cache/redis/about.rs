//! What a server says of itself, and what is to be said about that.

use super::trouble::Trouble;
use ::redis::aio::MultiplexedConnection;
use ::redis::{ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult, Value};

/// Which server it is, and whose data it has: a restart changes the one, a failover the other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Identity(String);

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct About {
    pub(super) identity: Identity,
    pub(super) is_primary: bool,
    in_cluster: bool,
    is_sentinel: bool,
    version: (u32, u32),
    has_replicas: bool,
    /// Whether writes are refused when too few replicas follow.
    counts_replicas: bool,
    /// Nothing is said of its memory by a heartbeat.
    memory: Option<MaxMemory>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MaxMemory {
    None,
    Refuses,
    Evicts,
}

impl Identity {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the server says neither of the two: it would look the same after a failover.
    fn is_hidden(&self) -> bool {
        self.0 == " "
    }
}

impl About {
    /// Adds the commands that [`read`](Self::read) reads the replies of.
    pub(super) fn ask(pipeline: &mut Pipeline) {
        pipeline.cmd("INFO").arg("server");
        pipeline.cmd("INFO").arg("replication");
    }

    /// Reads the two last replies.
    pub(super) fn read(replies: &[RedisResult<Value>]) -> Option<Self> {
        let [.., Ok(server), Ok(replication)] = replies else {
            return None;
        };
        Some(Self::parse(&text(server)?, &text(replication)?, None))
    }

    /// A new connection's server, which has to be a primary, in a cluster or not as it was named.
    pub(super) async fn greet(
        connection: &mut MultiplexedConnection,
        in_cluster: bool,
    ) -> Result<Self, Trouble> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("INFO").arg("memory");
        Self::ask(&mut pipeline);
        let asked = pipeline.ignore_errors().query_async(connection).await;
        let replies: Vec<RedisResult<Value>> = asked.map_err(Trouble::Connecting)?;
        let [memory, server, replication] = replies.as_slice() else {
            return Err(Trouble::Connecting(nothing()));
        };
        let read = |reply: &RedisResult<Value>| match reply {
            Ok(reply) => text(reply).ok_or_else(|| Trouble::Connecting(nothing())),
            Err(error) => Err(Trouble::Forbidden(vec![format!("INFO ({error})")])),
        };
        let memory = read(memory)?;
        let about = Self::parse(&read(server)?, &read(replication)?, Some(&memory));
        match (about.is_primary, about.in_cluster, in_cluster) {
            _ if about.is_sentinel => Err(Trouble::Sentinel),
            (_, true, false) => Err(Trouble::InCluster),
            (false, ..) => Err(Trouble::Replica),
            _ if about.identity.is_hidden() => Err(Trouble::Anonymous),
            _ => Ok(about),
        }
    }

    fn parse(server: &str, replication: &str, memory: Option<&str>) -> Self {
        // Valkey calls its mode by another name.
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

    /// What whoever runs the server should know.
    pub(super) fn advice(&self, has_sentinels: bool) -> Vec<&'static str> {
        let fails_over = has_sentinels || self.in_cluster || self.has_replicas;
        let advice = [
            (
                self.version != (0, 0) && self.version < (6, 2),
                "it is older than Redis 6.2, with which nothing here was tested",
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

pub(super) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let value = info.lines().find_map(|line| line.strip_prefix(name))?;
    Some(value.trim())
}

pub(super) fn text(value: &Value) -> Option<String> {
    String::from_redis_value(value.clone()).ok()
}

fn nothing() -> RedisError {
    RedisError::from((ErrorKind::UnexpectedReturnType, "INFO says nothing"))
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
    fn a_server_says_who_it_is() {
        let about = About::parse(SERVER, REPLICATION, None);
        assert_eq!(about.identity.as_str(), "abc def");
        assert!(about.is_primary && !about.in_cluster && !about.is_sentinel);
        let about = About::parse("server_mode:cluster\r\n", "role:slave\r\n", None);
        assert!(!about.is_primary && about.in_cluster);
        assert!(about.identity.is_hidden());
        for (server, replication) in [(SERVER, ""), ("", REPLICATION)] {
            let about = About::parse(server, replication, None);
            assert!(!about.identity.is_hidden(), "one of them is enough");
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
