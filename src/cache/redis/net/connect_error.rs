//! Why there is no connection to Redis, or no answer.

use crate::telemetry::metrics::Gap;
use crate::types::Error;
use ::redis::RedisError;
use std::sync::Arc;
use std::time::Duration;

/// Why there is no connection. The text says what to do, and contains no secret.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("no connection: {0}; is Redis there, and are user, password and certificates right?")]
    Connecting(#[source] RedisError),
    #[error("no answer within {0:?} while connecting; does Redis hang, or a firewall swallow it?")]
    Slow(Duration),
    #[error("the connection was lost: {0}")]
    Lost(#[source] RedisError),
    #[error("the server has closed the connection")]
    Closed,
    #[error("nothing came back for {0:?}; is Redis overloaded, or the timeout too short?")]
    Silent(Duration),
    #[error("for {0:?} nothing has shown that this server is still the one to ask")]
    Stale(Duration),
    #[error("the server says {0}: it is not a primary that can be used now")]
    Demoted(String),
    #[error("the server is a replica: name its primary, or its sentinels (redis+sentinel://)")]
    Replica,
    #[error("the server is one of a cluster: name it as redis+cluster://")]
    InCluster,
    #[error("the server is a sentinel: name it as redis+sentinel://, with its service")]
    Sentinel,
    #[error("behind the connection is another server than before")]
    Another,
    #[error(
        "the server hides its run_id and its master_replid: a failover could not be noticed; let INFO \
         say them"
    )]
    Anonymous,
    #[error("Redis refuses what the cache needs: {}; grant the user these commands and keys", .0.join(", "))]
    Forbidden(Vec<String>),
    #[error(
        "{key} says that what is cached there is of {there:?}, and this node caches {ours:?}; \
         give each storage a name space (RedisConfig::namespace), or delete that key after a purge"
    )]
    Foreign {
        key: String,
        there: String,
        ours: String,
    },
    #[error(
        "{answered} of {sentinels} sentinels know a primary of service `{service}`, and more than half \
         have to{}",
        because(.source)
    )]
    NoPrimary {
        answered: usize,
        sentinels: usize,
        service: String,
        source: Option<RedisError>,
    },
    #[error("no node of the cluster says who serves which slots{}", because(.0))]
    NoMap(Option<RedisError>),
    #[error("no primary of the cluster serves slot {0}")]
    NoSlot(u16),
    #[error("what was kept from an earlier life of this server could not be ruled out: {0}")]
    Unproven(#[source] Box<Failure>),
    #[error("this node has shut down")]
    ShutDown,
}

fn because(source: &Option<RedisError>) -> String {
    source
        .as_ref()
        .map(|source| format!(": {source}"))
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
    #[error("no answer within {0:?}; is Redis overloaded, or the timeout too short?")]
    Timeout(Duration),
    #[error("Redis is not asked{}", .0.as_ref().map(|trouble| format!(": {trouble}")).unwrap_or_default())]
    NotAsked(#[source] Option<Arc<ConnectError>>),
    #[error("the connection was lost before an answer came{}", .0.as_ref().map(|trouble| format!(": {trouble}")).unwrap_or_default())]
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
