//! Why there is no connection to Redis, or no answer.

use crate::telemetry::metrics::Gap;
use crate::types::Error;
use ::redis::RedisError;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

/// Why there is no connection. The text says what to do, and contains no secret.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("no connection: {0}; is Redis there, and are user, password and certificates right?")]
    Connecting(#[source] RedisError),
    #[error(
        "no answer within {0:?} while connecting; does Redis hang, or does a firewall drop packets?"
    )]
    Slow(Duration),
    #[error("the connection was lost: {0}")]
    Lost(#[source] RedisError),
    #[error("the server has closed the connection")]
    Closed,
    #[error("Redis has sent nothing for {0:?}; is Redis overloaded, or is the timeout too short?")]
    Silent(Duration),
    #[error("for {0:?} this node has had no proof that the server is still the primary")]
    Stale(Duration),
    #[error("the server has answered {0}: it cannot be used as the primary now")]
    Demoted(String),
    #[error("the server is a replica: name its primary, or its sentinels (redis+sentinel://)")]
    Replica,
    #[error("the server is one of a cluster: name it as redis+cluster://")]
    InCluster,
    #[error("the server is a sentinel: name it as redis+sentinel://, with its service")]
    Sentinel,
    #[error("the connection leads to a different server than before")]
    Another,
    #[error(
        "the server hides its run_id and its master_replid, so this node could not notice a \
         failover; let INFO return them"
    )]
    Anonymous,
    #[error("Redis refuses what the cache needs: {}; grant the user these commands and keys", .0.join(", "))]
    Forbidden(Vec<String>),
    #[error(
        "the key {key} says that this Redis caches the storage {there:?}, and this node caches \
         {ours:?}; give each storage a name space of its own (RedisConfig::with_namespace, or the name beside a \
         shared cache), or delete that key after a purge"
    )]
    Foreign {
        key: String,
        there: String,
        ours: String,
    },
    #[error(
        "{answered} of {sentinels} sentinels have named a primary of service `{service}`, but more \
         than half of them must name one{}",
        because(.source)
    )]
    NoPrimary {
        answered: usize,
        sentinels: usize,
        service: String,
        source: Option<RedisError>,
    },
    #[error("no server of the cluster has sent the map of its slots{}", because(.0))]
    NoMap(Option<RedisError>),
    #[error("no primary of the cluster serves slot {0}")]
    NoSlot(u16),
    #[error("this node could not find out whether the server has old data: {0}")]
    Unproven(#[source] Box<Failure>),
    #[error("this node has shut down")]
    ShutDown,
}

/// Writes the cause of an error behind its text, if the cause is known.
fn because(cause: &Option<impl Display>) -> String {
    cause
        .as_ref()
        .map(|cause| format!(": {cause}"))
        .unwrap_or_default()
}

impl ConnectError {
    /// Returns what kind of gap in the channel this error causes.
    pub(crate) const fn gap(&self) -> Gap {
        match self {
            Self::Silent(_) | Self::Stale(_) | Self::Slow(_) => Gap::Silent,
            Self::Another | Self::Demoted(_) => Gap::Replaced,
            _ => Gap::Closed,
        }
    }

    /// Checks whether a new connection is likely to succeed at once.
    pub(crate) const fn may_be_over(&self) -> bool {
        matches!(
            self,
            Self::Lost(_) | Self::Closed | Self::Stale(_) | Self::Another | Self::Demoted(_)
        )
    }
}

/// Why an operation failed.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Failure {
    #[error("no answer within {0:?}; is Redis overloaded, or is the timeout too short?")]
    Timeout(Duration),
    #[error("Redis is not asked{}", because(.0))]
    NotAsked(#[source] Option<Arc<ConnectError>>),
    #[error("the connection was lost before an answer came{}", because(.0))]
    Lost(#[source] Option<Arc<ConnectError>>),
    #[error("{0}")]
    Redis(#[from] RedisError),
}

impl Failure {
    /// Returns the error code of Redis's reply, if Redis has replied.
    pub(crate) fn code(&self) -> Option<&str> {
        match self {
            Self::Redis(error) => error.code(),
            Self::Timeout(_) | Self::NotAsked(_) | Self::Lost(_) => None,
        }
    }
}

pub(crate) fn failed(
    operation: &'static str,
    source: impl std::error::Error + Send + Sync + 'static,
) -> Error {
    Error::Cache {
        tier: "redis",
        operation,
        source: Box::new(source),
    }
}
