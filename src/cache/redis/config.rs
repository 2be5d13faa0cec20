//! The settings of the Redis tier: where Redis is, what is kept there, and for how long.

use crate::cache::redis::net::address::Address;
use crate::cache::redis::net::connector::{Connector, OwnConnector};
use crate::coherence::change::ChangePolicy;
use crate::coherence::peers::term::MOST_TRUST;
use crate::types::Error;
use crate::types::error::BoxError;
use crate::types::namespace::Namespace;
use crate::types::setting::{FLAG, Section, Setting, TEXT, TIME, ValueKind, settings};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The settings of the Redis tier: the address, the keys and the timeouts.
///
/// ```
/// use layercache::{ChangePolicy, RedisConfig};
/// use std::time::Duration;
///
/// // The address alone is enough in most cases.
/// let config = RedisConfig::new("redis://:secret@127.0.0.1/0");
/// assert!(!format!("{config:?}").contains("secret"));
///
/// // Every setting:
/// let config = config
///     .with_prefix("eu:")
///     .with_namespace("team-a")
///     .with_ttl(Duration::from_secs(6 * 3600))
///     .with_timeout(Duration::from_millis(20))
///     .with_change_timeout(Duration::from_secs(2))
///     .with_omit_path(true)
///     .with_trust_timeout(Duration::from_secs(1))
///     .with_lease_ttl(Duration::from_secs(15))
///     .with_fence_ttl(Duration::from_secs(60))
///     .with_change_policy(ChangePolicy::BestEffort);
/// assert!(format!("{config:?}").contains("team-a"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct RedisConfig {
    pub(crate) url: String,
    pub(crate) prefix: String,
    pub(crate) namespace: Option<String>,
    /// The name space of one store over a shared cache. Only operators' tools set it.
    store_namespace: Option<String>,
    pub(crate) ttl: Duration,
    pub(crate) timeout: Duration,
    pub(crate) change_timeout: Duration,
    pub(crate) omit_path: bool,
    pub(crate) trust_timeout: Duration,
    pub(crate) lease_ttl: Duration,
    pub(crate) fence_ttl: Duration,
    pub(crate) change_policy: ChangePolicy,
    pub(crate) connector: OwnConnector,
}

impl Section for RedisConfig {
    const NAME: &'static str = "redis";
    const SETTINGS: &'static [Setting<Self>] = settings![
        url: TEXT,
        prefix: TEXT,
        namespace: TEXT,
        ttl: TIME,
        timeout: TIME,
        change_timeout: TIME,
        omit_path: FLAG,
        trust_timeout: TIME,
        lease_ttl: TIME,
        fence_ttl: TIME,
        change_policy: POLICY,
    ];
    const REQUIRED: Option<&'static str> = Some("url");

    fn start() -> Self {
        Self::new("")
    }
}

const POLICY: ValueKind<ChangePolicy> = ValueKind {
    accepts: "`strict-removals`, `strict` or `best-effort`",
    parse: |text| match text {
        "strict-removals" => Some(ChangePolicy::StrictRemovals),
        "strict" => Some(ChangePolicy::Strict),
        "best-effort" => Some(ChangePolicy::BestEffort),
        _ => None,
    },
};

/// The error for a duration below its minimum.
#[derive(Debug, thiserror::Error)]
#[error("{given:?} is too short, the least is {least:?}")]
struct TooShort {
    given: Duration,
    least: Duration,
}

/// The error for a prefix with braces.
#[derive(Debug, thiserror::Error)]
#[error("in a cluster braces decide where a key is kept: leave them out of the prefix")]
struct Braces;

/// The error for a duration above its maximum.
#[derive(Debug, thiserror::Error)]
#[error("{given:?} is too long, the most is {most:?}")]
struct TooLong {
    given: Duration,
    most: Duration,
}

/// The upper bounds of the durations. Below them neither this process's clock nor Redis's
/// overflows.
const MOST_TTL: Duration = Duration::from_secs(365 * 24 * 60 * 60);
const MOST_TIMEOUT: Duration = Duration::from_secs(60);
const MOST_CHANGE_TIMEOUT: Duration = Duration::from_secs(10 * 60);
const MOST_LEASE: Duration = Duration::from_secs(60 * 60);
const MOST_FENCE: Duration = Duration::from_secs(24 * 60 * 60);

impl RedisConfig {
    /// Creates settings for the Redis at `url`, with defaults for the rest.
    ///
    /// The address is `redis://[user][:password@]host[:port][/database]`, `unix:///path`,
    /// `redis+sentinel://host,host/service` or `redis+cluster://host:port,host:port`. With the
    /// feature `redis-tls`, `rediss` in place of `redis` uses TLS.
    /// [`guide::redis`](crate::guide::redis) has the full syntax. Logs and errors name a server by
    /// host and port, and never show the password.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: String::new(),
            namespace: None,
            store_namespace: None,
            ttl: Duration::from_secs(24 * 60 * 60),
            timeout: Duration::from_millis(50),
            change_timeout: Duration::from_secs(5),
            omit_path: false,
            trust_timeout: Duration::from_secs(2),
            lease_ttl: Duration::from_secs(10),
            fence_ttl: Duration::from_secs(30),
            change_policy: ChangePolicy::StrictRemovals,
            connector: OwnConnector::default(),
        }
    }

    /// Checks that all settings can work together, and returns the parsed address.
    pub(crate) fn check(&self) -> Result<Address, Error> {
        let millis = Duration::from_millis;
        for (setting, given, least, most) in [
            ("redis ttl", self.ttl, 1, MOST_TTL),
            ("redis timeout", self.timeout, 1, MOST_TIMEOUT),
            (
                "redis change timeout",
                self.change_timeout,
                1,
                MOST_CHANGE_TIMEOUT,
            ),
            ("redis trust_timeout", self.trust_timeout, 20, MOST_TRUST),
            ("redis lease_ttl", self.lease_ttl, 1, MOST_LEASE),
            ("redis fence_ttl", self.fence_ttl, 1, MOST_FENCE),
        ] {
            let least = millis(least);
            let source: BoxError = match () {
                () if given < least => Box::new(TooShort { given, least }),
                () if given > most => Box::new(TooLong { given, most }),
                () => continue,
            };
            return Err(Error::Setting { setting, source });
        }
        let setting = |setting, source| Error::Setting { setting, source };
        if let Some(name) = &self.namespace {
            Namespace::new("redis namespace", name)?;
        }
        if let Some(name) = &self.store_namespace {
            Namespace::new("namespace", name)?;
        }
        let address =
            Address::parse(&self.url).map_err(|error| setting("redis url", Box::new(error)))?;
        if matches!(address, Address::Cluster { .. }) && self.prefix.contains(['{', '}']) {
            return Err(setting("redis prefix", Box::new(Braces)));
        }
        Ok(address.with_connector(&self.connector))
    }

    /// Returns what all keys of the cache begin with: the prefix and the name space.
    pub(crate) fn key_prefix(&self) -> String {
        match &self.namespace {
            Some(name) => format!("{}{name}:", self.prefix),
            None => self.prefix.clone(),
        }
    }

    /// Returns the prefix of the keys that hold facts.
    pub(crate) fn fact_prefix(&self) -> String {
        let prefix = self.key_prefix();
        match &self.store_namespace {
            Some(name) => in_namespace(&prefix, name),
            None => prefix,
        }
    }

    /// Makes an operator's tool use the facts of one store over a shared cache, and the nodes of
    /// that cache.
    pub(crate) fn with_store_namespace(mut self, name: String) -> Self {
        self.store_namespace = Some(name);
        self
    }

    /// Returns how long a read may wait for Redis. Operators' tools wait as long.
    ///
    /// ```
    /// use layercache::RedisConfig;
    /// use std::time::Duration;
    ///
    /// assert_eq!(RedisConfig::new("redis://127.0.0.1").timeout(), Duration::from_millis(50));
    /// ```
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sets what comes first in the name of every key and channel, so that other applications can
    /// share the Redis. Default: empty, as in docker/distribution.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Separates several stores that share one Redis. The name of every key and channel begins with
    /// the [prefix](Self::with_prefix), this name and a colon. 1 to 64 letters, digits, `.`, `_` and
    /// `-`. All nodes of a store must use the same name. A node that finds another store or another
    /// layout under its name space does not use that Redis
    /// ([`guide::stacking`](crate::guide::stacking#several-stores-over-one-redis)). Default: none,
    /// as in docker/distribution.
    #[must_use]
    pub fn with_namespace(mut self, name: impl Into<String>) -> Self {
        self.namespace = Some(name.into());
        self
    }

    /// Sets how long a fact stays in Redis, counted from its write. Reads do not renew it. A random
    /// part of up to a tenth is taken off, so that facts do not expire together. 1 ms to 365 days.
    /// Default: one day.
    #[must_use]
    pub const fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Sets how long a read may wait for Redis, including the wait for a connection. After that the
    /// read asks the backend. 1 ms to 1 minute. Default: 50 ms.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how long a change may wait for Redis, including the wait for a connection. After that
    /// the [change policy](Self::with_change_policy) decides whether the change is made. 1 ms to 10
    /// minutes. Default: 5 s.
    #[must_use]
    pub const fn with_change_timeout(mut self, timeout: Duration) -> Self {
        self.change_timeout = timeout;
        self
    }

    /// Sets whether a blob's hash leaves out its path where the layout can derive it. Without the
    /// path a hash takes about half the memory, but other applications cannot read the path from
    /// Redis ([`guide::redis`](crate::guide::redis)). Nodes with and without this setting can share
    /// a Redis. Default: `false`.
    #[must_use]
    pub const fn with_omit_path(mut self, omit_path: bool) -> Self {
        self.omit_path = omit_path;
        self
    }

    /// Sets how long a node answers from memory without a new proof that the channel between nodes
    /// works. The time counts from when the newest heartbeat that came back was sent; a node sends
    /// four heartbeats in it. A change waits this long, and a twentieth more, for a node that does
    /// not acknowledge it. All nodes should use the same value; if they differ, a change waits for
    /// the longest. 20 ms to 1 minute. Default: 2 s.
    #[must_use]
    pub const fn with_trust_timeout(mut self, trust: Duration) -> Self {
        self.trust_timeout = trust;
        self
    }

    /// Sets the TTL of a lease: how long a node that reads from the backend may fill Redis with the
    /// result. It should exceed the time that a read takes. If a read takes longer, Redis refuses
    /// its fill, and nothing else goes wrong. Other nodes wait for the fill during the first tenth
    /// of this time, and can take over the lease after half of it. 1 ms to 1 hour. Default: 10 s.
    #[must_use]
    pub const fn with_lease_ttl(mut self, lease: Duration) -> Self {
        self.lease_ttl = lease;
        self
    }

    /// Sets the TTL of a change's fence. If the outcome of a backend call is unknown, or the node
    /// dies during the change, the keys of the change stay uncached this long. It must exceed the
    /// time in which a backend call that timed out can still take effect. The node renews the fence
    /// while the change runs. If this is shorter than the
    /// [change timeout](Self::with_change_timeout), a fence may expire before its change ends; the
    /// change then notices it, and tells the other nodes once more. 1 ms to 1 day. Default: 30 s.
    #[must_use]
    pub const fn with_fence_ttl(mut self, fence: Duration) -> Self {
        self.fence_ttl = fence;
        self
    }

    /// Sets what happens to a change while Redis cannot be told of it. Default: a removal is
    /// refused, a creation is made ([`ChangePolicy::StrictRemovals`]).
    #[must_use]
    pub const fn with_change_policy(mut self, policy: ChangePolicy) -> Self {
        self.change_policy = policy;
        self
    }

    /// Sets what opens the byte streams to Redis. Only code can set it. Default: the node connects
    /// by TCP, by TLS or to a Unix socket, as the address says.
    ///
    /// ```
    /// use layercache::{Connector, RedisConfig};
    /// use std::sync::Arc;
    ///
    /// fn through(tunnel: Arc<dyn Connector>) -> RedisConfig {
    ///     RedisConfig::new("redis://redis.internal").with_connector(tunnel)
    /// }
    /// ```
    #[must_use]
    pub fn with_connector(mut self, connector: Arc<dyn Connector>) -> Self {
        self.connector = OwnConnector(Some(connector));
        self
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("prefix", &self.prefix)
            .field("namespace", &self.namespace)
            .field("ttl", &self.ttl)
            .field("timeout", &self.timeout)
            .field("change_timeout", &self.change_timeout)
            .field("omit_path", &self.omit_path)
            .field("trust_timeout", &self.trust_timeout)
            .field("lease_ttl", &self.lease_ttl)
            .field("fence_ttl", &self.fence_ttl)
            .field("change_policy", &self.change_policy)
            .finish_non_exhaustive()
    }
}

/// Returns the prefix of a name space's keys, in a cache with this `prefix`. No name and no
/// [`RedisConfig::with_namespace`] contains the slash, so the keys belong to no other store.
pub(crate) fn in_namespace(prefix: &str, name: &str) -> String {
    format!("{prefix}{name}/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::memory::jittered;
    use proptest::prelude::*;
    use std::time::{SystemTime, UNIX_EPOCH};
    use tokio::time::Instant;

    /// Sets one of the durations.
    type Set = fn(RedisConfig, Duration) -> RedisConfig;

    const TIMES: [(&str, Set); 6] = [
        ("redis ttl", RedisConfig::with_ttl),
        ("redis timeout", RedisConfig::with_timeout),
        ("redis change timeout", RedisConfig::with_change_timeout),
        ("redis trust_timeout", RedisConfig::with_trust_timeout),
        ("redis lease_ttl", RedisConfig::with_lease_ttl),
        ("redis fence_ttl", RedisConfig::with_fence_ttl),
    ];

    fn config() -> RedisConfig {
        RedisConfig::new("redis://127.0.0.1")
    }

    #[test]
    fn a_time_that_is_too_long_or_too_short_is_named_with_its_bound() {
        for (name, set) in TIMES {
            for (given, bound) in [
                (Duration::MAX, "the most is"),
                (Duration::ZERO, "the least is"),
            ] {
                let said = set(config(), given).check().unwrap_err();
                let Error::Setting { setting, source } = said else {
                    panic!("{said}");
                };
                assert_eq!(setting, name);
                let said = source.to_string();
                assert!(
                    said.contains(&format!("{given:?}")) && said.contains(bound),
                    "{said}"
                );
            }
        }
    }

    fn any_time() -> impl Strategy<Value = Duration> {
        prop_oneof![
            any::<Duration>(),
            (0..u64::MAX.ilog2()).prop_map(|bits| Duration::from_millis(1 << bits)),
        ]
    }

    proptest! {
        /// A duration that `check` accepts overflows neither an `Instant` nor Redis's milliseconds.
        #[test]
        fn no_time_that_passes_overflows_a_clock(times in prop::array::uniform6(any_time())) {
            for ((_, set), time) in TIMES.into_iter().zip(times) {
                if set(config(), time).check().is_ok() {
                    let now = Instant::now();
                    prop_assert!(now.checked_add(jittered(time) * 8).is_some());
                    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
                    prop_assert!(i64::try_from((since + time * 8).as_millis()).is_ok());
                }
            }
        }

        #[test]
        fn a_name_space_is_a_plain_name(name in "\\PC{0,70}", good in "[a-zA-Z0-9._-]{1,64}") {
            prop_assert!(config().with_namespace(good.clone()).check().is_ok());
            prop_assert_eq!(config().with_namespace(good.clone()).key_prefix(), format!("{good}:"));
            let is_refused = config().with_namespace(name.clone()).check().is_err();
            let is_good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            let is_name = (1..=64).contains(&name.len()) && name.chars().all(is_good);
            prop_assert_eq!(is_refused, !is_name);
        }
    }

    #[test]
    fn what_could_be_taken_for_another_key_is_no_name() {
        for name in ["", "a:b", "blobs::", "{a}", "a b", "a\n", "ä", "a/b", "a*"] {
            assert!(config().with_namespace(name).check().is_err(), "{name:?}");
            let of_store = config().with_store_namespace(name.to_owned());
            assert!(of_store.check().is_err(), "{name:?}");
        }
    }

    #[test]
    fn the_facts_of_a_store_over_a_shared_cache_have_a_prefix_of_their_own() {
        let config = config().with_prefix("eu:").with_namespace("cache");
        let config = config.with_store_namespace("a".to_owned());
        assert_eq!(config.key_prefix(), "eu:cache:");
        assert_eq!(config.fact_prefix(), "eu:cache:a/");
    }
}
