//! How to reach Redis, and what to keep there.

use std::fmt;
use std::time::Duration;

/// How to reach Redis, and what to keep there.
///
/// ```
/// use layercache::RedisConfig;
/// use std::time::Duration;
///
/// let config = RedisConfig::new("redis://:secret@127.0.0.1/0").with_timeout(Duration::from_millis(20));
/// assert!(!format!("{config:?}").contains("secret"));
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedisConfig {
    /// The address: `redis://[user][:password@]host[:port][/database]`, `unix:///path`, or with
    /// feature `redis-tls` `rediss://…`. It never appears in `Debug`, errors or logs.
    pub url: String,
    /// What all keys begin with, so that several registries can share a Redis. Default: nothing,
    /// as docker/distribution has it.
    pub prefix: String,
    /// How long a fact is answered, counted from its write and never renewed by reads; up to a
    /// tenth is taken off at random. Default: one day.
    pub ttl: Duration,
    /// How long any operation may take, waiting for a connection included. Default: 50 ms.
    pub timeout: Duration,
    /// Whether a blob's path is stored where the layout can derive it: without it a hash takes
    /// about half the memory, but nobody else can read the path there. Default: `true`.
    pub store_path: bool,
}

impl RedisConfig {
    /// The Redis at `url`, with the defaults for the rest.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: String::new(),
            ttl: Duration::from_secs(24 * 60 * 60),
            timeout: Duration::from_millis(50),
            store_path: true,
        }
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

    /// Sets [`store_path`](Self::store_path).
    #[must_use]
    pub const fn with_store_path(mut self, store_path: bool) -> Self {
        self.store_path = store_path;
        self
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("prefix", &self.prefix)
            .field("ttl", &self.ttl)
            .field("timeout", &self.timeout)
            .field("store_path", &self.store_path)
            .finish_non_exhaustive()
    }
}
