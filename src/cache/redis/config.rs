//! How to reach Redis, and what to keep there.

use super::address::Address;
use crate::Error;
use crate::coherence::change::ChangePolicy;
use crate::coherence::peers::MOST_TRUST;
use std::fmt;
use std::time::Duration;

/// How to reach Redis, and what to keep there.
///
/// ```
/// use layercache::{ChangePolicy, RedisConfig};
/// use std::time::Duration;
///
/// // Most need no more than the address.
/// let config = RedisConfig::new("redis://:secret@127.0.0.1/0");
/// assert!(!format!("{config:?}").contains("secret"));
///
/// // All that can be set.
/// let config = config
///     .with_prefix("team-a:")
///     .with_ttl(Duration::from_secs(6 * 3600))
///     .with_timeout(Duration::from_millis(20))
///     .with_change_timeout(Duration::from_secs(2))
///     .with_store_path(false)
///     .with_trust(Duration::from_secs(1))
///     .with_lease(Duration::from_secs(15))
///     .with_fence(Duration::from_secs(60))
///     .with_change_policy(ChangePolicy::BestEffort);
/// assert_eq!(config.prefix, "team-a:");
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedisConfig {
    /// The address: `redis://[user][:password@]host[:port][/database]`, `unix:///path`,
    /// `redis+sentinel://host,host/service`, `redis+cluster://host:port,host:port`, and with feature
    /// `redis-tls` the same with `rediss`; [`guide::redis`](crate::guide::redis) has all of it. Of it only hosts
    /// and ports are ever shown.
    pub url: String,
    /// What all keys begin with, so that several registries can share a Redis. Default: nothing,
    /// as docker/distribution has it.
    pub prefix: String,
    /// How long a fact is answered, counted from its write and never renewed by reads; up to a
    /// tenth is taken off at random. Default: one day.
    pub ttl: Duration,
    /// How long a read may wait for Redis, waiting for a connection included. After that the read asks
    /// the backend. Default: 50 ms.
    pub timeout: Duration,
    /// How long a change may wait for Redis, waiting for a connection included. After that
    /// [`change_policy`](Self::change_policy) decides. Default: 5 s.
    pub change_timeout: Duration,
    /// Whether a blob's path is stored where the layout can derive it: without it a hash takes
    /// about half the memory, but nobody else can read the path there
    /// ([`guide::redis`](crate::guide::redis)). Nodes with and without it share a Redis.
    /// Default: `true`.
    pub store_path: bool,
    /// How long a node answers from memory after it has last heard that the channel between nodes
    /// works; so long at most a change waits for a node that says nothing. Four heartbeats are sent
    /// in it. All nodes should have the same; where they have not, the longest is waited for. At
    /// least 20 ms, and at most a minute. Default: 2 s.
    pub trust: Duration,
    /// How long a node that reads from the backend has to fill Redis with it: longer than a read takes.
    /// The other nodes wait for it during a tenth of this, and take its place after half of it. Default: 10 s.
    pub lease: Duration,
    /// How long nothing is cached of what a change that nobody ends was about: longer than a call to
    /// the backend may take effect after it was given up. While a change is under way its fence is
    /// renewed. Default: 30 s.
    pub fence: Duration,
    /// What to do with a change while Redis cannot be told of it. Default: refuse it.
    pub change_policy: ChangePolicy,
}

/// Why a time is refused.
#[derive(Debug, thiserror::Error)]
#[error("{given:?} is too short, the least is {least:?}")]
struct TooShort {
    given: Duration,
    least: Duration,
}

/// Why a prefix is refused.
#[derive(Debug, thiserror::Error)]
#[error("in a cluster braces decide where a key is kept: leave them out of the prefix")]
struct Braces;

/// Why another is.
#[derive(Debug, thiserror::Error)]
#[error("{given:?} is too long, the most is {MOST_TRUST:?}")]
struct TooLong {
    given: Duration,
}

impl RedisConfig {
    /// The Redis at `url`, with the defaults for the rest.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: String::new(),
            ttl: Duration::from_secs(24 * 60 * 60),
            timeout: Duration::from_millis(50),
            change_timeout: Duration::from_secs(5),
            store_path: true,
            trust: Duration::from_secs(2),
            lease: Duration::from_secs(10),
            fence: Duration::from_secs(30),
            change_policy: ChangePolicy::Strict,
        }
    }

    /// The address, if all can work together.
    pub(super) fn check(&self) -> Result<Address, Error> {
        let millis = Duration::from_millis;
        for (setting, given, least) in [
            ("redis ttl", self.ttl, millis(1)),
            ("redis timeout", self.timeout, millis(1)),
            ("redis change timeout", self.change_timeout, millis(1)),
            ("redis trust", self.trust, millis(20)),
            ("redis lease", self.lease, millis(1)),
            ("redis fence", self.fence, millis(1)),
        ] {
            if given < least {
                let source = Box::new(TooShort { given, least });
                return Err(Error::Setting { setting, source });
            }
        }
        let given = self.trust;
        if given > MOST_TRUST {
            return Err(Error::Setting {
                setting: "redis trust",
                source: Box::new(TooLong { given }),
            });
        }
        let setting = |setting, source| Error::Setting { setting, source };
        let address =
            Address::parse(&self.url).map_err(|error| setting("redis url", Box::new(error)))?;
        if matches!(address, Address::Cluster { .. }) && self.prefix.contains(['{', '}']) {
            return Err(setting("redis prefix", Box::new(Braces)));
        }
        Ok(address)
    }

    /// Sets [`prefix`](Self::prefix).
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets [`ttl`](Self::ttl).
    #[must_use]
    pub const fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Sets [`timeout`](Self::timeout).
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets [`change_timeout`](Self::change_timeout).
    #[must_use]
    pub const fn with_change_timeout(mut self, timeout: Duration) -> Self {
        self.change_timeout = timeout;
        self
    }

    /// Sets [`store_path`](Self::store_path).
    #[must_use]
    pub const fn with_store_path(mut self, store_path: bool) -> Self {
        self.store_path = store_path;
        self
    }

    /// Sets [`trust`](Self::trust).
    #[must_use]
    pub const fn with_trust(mut self, trust: Duration) -> Self {
        self.trust = trust;
        self
    }

    /// Sets [`lease`](Self::lease).
    #[must_use]
    pub const fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Sets [`fence`](Self::fence).
    #[must_use]
    pub const fn with_fence(mut self, fence: Duration) -> Self {
        self.fence = fence;
        self
    }

    /// Sets [`change_policy`](Self::change_policy).
    #[must_use]
    pub const fn with_change_policy(mut self, policy: ChangePolicy) -> Self {
        self.change_policy = policy;
        self
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("prefix", &self.prefix)
            .field("ttl", &self.ttl)
            .field("timeout", &self.timeout)
            .field("change_timeout", &self.change_timeout)
            .field("store_path", &self.store_path)
            .field("trust", &self.trust)
            .field("lease", &self.lease)
            .field("fence", &self.fence)
            .field("change_policy", &self.change_policy)
            .finish_non_exhaustive()
    }
}
