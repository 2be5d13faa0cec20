//! How to reach Redis, and what to keep there.

use super::address::Address;
use crate::Error;
use crate::coherence::change::ChangePolicy;
use crate::coherence::peers::MOST_TRUST;
use crate::error::BoxError;
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
///     .with_prefix("eu:")
///     .with_namespace("team-a")
///     .with_ttl(Duration::from_secs(6 * 3600))
///     .with_timeout(Duration::from_millis(20))
///     .with_change_timeout(Duration::from_secs(2))
///     .with_store_path(false)
///     .with_trust(Duration::from_secs(1))
///     .with_lease(Duration::from_secs(15))
///     .with_fence(Duration::from_secs(60))
///     .with_change_policy(ChangePolicy::BestEffort);
/// assert_eq!(config.namespace.as_deref(), Some("team-a"));
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedisConfig {
    /// The address: `redis://[user][:password@]host[:port][/database]`, `unix:///path`,
    /// `redis+sentinel://host,host/service`, `redis+cluster://host:port,host:port`, and with feature
    /// `redis-tls` the same with `rediss`; [`guide::redis`](crate::guide::redis) has all of it. Of it only hosts
    /// and ports are ever shown.
    pub url: String,
    /// What all keys begin with, so that a Redis can be shared with others. Default: nothing, as
    /// docker/distribution has it.
    pub prefix: String,
    /// Which of several stores over one Redis this is: the keys and channels begin with it and a colon, after
    /// the [`prefix`](Self::prefix). Letters, digits, `.`, `_` and `-`, 64 at most. All nodes of a store have
    /// the same. A node that finds another store or another layout under its name space does not use
    /// that Redis ([`guide::stacking`](crate::guide::stacking#several-stores-over-one-redis)). Default: none,
    /// as docker/distribution has it.
    pub namespace: Option<String>,
    /// How long a fact is answered, counted from its write and never renewed by reads; up to a
    /// tenth is taken off at random. At most 365 days. Default: one day.
    pub ttl: Duration,
    /// How long a read may wait for Redis, waiting for a connection included. After that the read asks
    /// the backend. At most a minute. Default: 50 ms.
    pub timeout: Duration,
    /// How long a change may wait for Redis, waiting for a connection included. After that
    /// [`change_policy`](Self::change_policy) decides. At most 10 minutes. Default: 5 s.
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
    /// Where it is shorter, the fill is refused, and nothing else goes wrong. The other nodes wait for the
    /// fill during a tenth of this, and take its place after half of it. At most an hour. Default: 10 s.
    pub lease: Duration,
    /// How long nothing is cached of what a change that nobody ends was about: longer than a call to
    /// the backend may take effect after it was given up. While a change is under way its fence is
    /// renewed. Where it is shorter than the [`change_timeout`](Self::change_timeout), a fence may be over before
    /// its change is, which the change finds out: it tells the other nodes once more. At most a day.
    /// Default: 30 s.
    pub fence: Duration,
    /// What to do with a change while Redis cannot be told of it. Default: a removal is refused, a
    /// creation is made ([`ChangePolicy::StrictRemovals`]).
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
#[error("{given:?} is too long, the most is {most:?}")]
struct TooLong {
    given: Duration,
    most: Duration,
}

/// Why a name space is refused.
#[derive(Debug, thiserror::Error)]
#[error("{given:?} is no name: it has 1 to {LONGEST_NAME} letters, digits, `.`, `_` and `-`")]
struct NoName {
    given: String,
}

const LONGEST_NAME: usize = 64;

/// The bounds of all times: none of them overflows a clock, ours or that of Redis.
const MOST_TTL: Duration = Duration::from_secs(365 * 24 * 60 * 60);
const MOST_TIMEOUT: Duration = Duration::from_secs(60);
const MOST_CHANGE_TIMEOUT: Duration = Duration::from_secs(10 * 60);
const MOST_LEASE: Duration = Duration::from_secs(60 * 60);
const MOST_FENCE: Duration = Duration::from_secs(24 * 60 * 60);

impl RedisConfig {
    /// The Redis at `url`, with the defaults for the rest.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: String::new(),
            namespace: None,
            ttl: Duration::from_secs(24 * 60 * 60),
            timeout: Duration::from_millis(50),
            change_timeout: Duration::from_secs(5),
            store_path: true,
            trust: Duration::from_secs(2),
            lease: Duration::from_secs(10),
            fence: Duration::from_secs(30),
            change_policy: ChangePolicy::StrictRemovals,
        }
    }

    /// The address, if all can work together.
    pub(super) fn check(&self) -> Result<Address, Error> {
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
            ("redis trust", self.trust, 20, MOST_TRUST),
            ("redis lease", self.lease, 1, MOST_LEASE),
            ("redis fence", self.fence, 1, MOST_FENCE),
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
        if let Some(given) = self.namespace.as_ref().filter(|name| !is_name(name)) {
            let given = given.clone();
            return Err(setting("redis namespace", Box::new(NoName { given })));
        }
        let address =
            Address::parse(&self.url).map_err(|error| setting("redis url", Box::new(error)))?;
        if matches!(address, Address::Cluster { .. }) && self.prefix.contains(['{', '}']) {
            return Err(setting("redis prefix", Box::new(Braces)));
        }
        Ok(address)
    }

    /// What the keys of this name space begin with.
    pub(super) fn key_prefix(&self) -> String {
        match &self.namespace {
            Some(name) => format!("{}{name}:", self.prefix),
            None => self.prefix.clone(),
        }
    }

    /// The same, with the name space in the prefix.
    pub(super) fn in_its_prefix(mut self) -> Self {
        self.prefix = self.key_prefix();
        self.namespace = None;
        self
    }

    /// Sets [`prefix`](Self::prefix).
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets [`namespace`](Self::namespace).
    #[must_use]
    pub fn with_namespace(mut self, name: impl Into<String>) -> Self {
        self.namespace = Some(name.into());
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
            .field("namespace", &self.namespace)
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

fn is_name(name: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(is_good)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::memory::jittered;
    use proptest::prelude::*;
    use std::time::{SystemTime, UNIX_EPOCH};
    use tokio::time::Instant;

    /// Sets one of the times.
    type Set = fn(RedisConfig, Duration) -> RedisConfig;

    const TIMES: [(&str, Set); 6] = [
        ("redis ttl", RedisConfig::with_ttl),
        ("redis timeout", RedisConfig::with_timeout),
        ("redis change timeout", RedisConfig::with_change_timeout),
        ("redis trust", RedisConfig::with_trust),
        ("redis lease", RedisConfig::with_lease),
        ("redis fence", RedisConfig::with_fence),
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
        /// No time that passes overflows an instant of ours, or the milliseconds of Redis.
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
            prop_assert_eq!(is_refused, !is_name(&name));
        }
    }

    #[test]
    fn what_could_be_taken_for_another_key_is_no_name() {
        for name in ["", "a:b", "blobs::", "{a}", "a b", "a\n", "ä", "a/b", "a*"] {
            assert!(config().with_namespace(name).check().is_err(), "{name:?}");
        }
    }
}
