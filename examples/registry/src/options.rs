//! The flags, and the store that they configure.

use crate::limits::Limits;
use crate::storage::{self, Store};
use crate::units::{parse_share, parse_time};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, ValueEnum};
use layercache::{CachedStore, ChangePolicy, RedisConfig, VerifierConfig};
use std::time::Duration;
use url::Url;

/// A small OCI registry with a cache of blob metadata.
#[derive(Parser)]
#[command(name = "registry")]
#[allow(
    missing_debug_implementations,
    reason = "the address of Redis may hold a password"
)]
pub struct Options {
    /// The address to listen on; port 0 takes a free one
    #[arg(long, env = "LAYERCACHE_LISTEN", default_value = "127.0.0.1:5000")]
    pub(crate) listen: String,

    /// Where the content is: a folder, file:///folder, s3://bucket/prefix or memory://
    ///
    /// S3 takes its settings from the usual AWS_* variables.
    #[arg(
        long,
        env = "LAYERCACHE_STORAGE",
        hide_env_values = true,
        default_value = "registry-data"
    )]
    pub(crate) storage: String,

    /// The Redis to share the cache through: redis://[[user]:password@]host[:port][/database]
    #[arg(
        long,
        env = "LAYERCACHE_REDIS_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    redis: Option<String>,

    /// How long a read may wait for Redis: 50ms, 1s; without a unit, milliseconds
    #[arg(
        long,
        env = "LAYERCACHE_REDIS_TIMEOUT",
        default_value = "50ms",
        value_name = "TIME",
        value_parser = parse_time
    )]
    redis_timeout: Duration,

    /// The prefix of all keys in Redis
    #[arg(
        long,
        env = "LAYERCACHE_REDIS_PREFIX",
        default_value = "",
        value_name = "TEXT"
    )]
    redis_prefix: String,

    /// How long the node answers from memory after its newest heartbeat
    #[arg(
        long,
        env = "LAYERCACHE_REDIS_TRUST_TIMEOUT",
        default_value = "2s",
        value_name = "TIME",
        value_parser = parse_time
    )]
    redis_trust: Duration,

    /// Leave the paths that every node can derive out of Redis
    ///
    /// A blob then takes about half the memory in Redis, but other applications find no paths
    /// there.
    #[arg(long, env = "LAYERCACHE_REDIS_OMIT_PATH")]
    redis_omit_path: bool,

    /// How long a change may wait for Redis
    #[arg(
        long,
        env = "LAYERCACHE_REDIS_CHANGE_TIMEOUT",
        default_value = "5s",
        value_name = "TIME",
        value_parser = parse_time
    )]
    redis_change_timeout: Duration,

    /// Which changes are made while Redis cannot be reached
    #[arg(
        long,
        env = "LAYERCACHE_REDIS_CHANGE_POLICY",
        default_value = "strict-removals",
        value_name = "POLICY"
    )]
    change_policy: Policy,

    /// Where reads ask whether a blob is there; all but `cached` are for comparisons
    #[arg(
        long,
        env = "LAYERCACHE_LOOK_UPS",
        default_value = "cached",
        value_name = "HOW"
    )]
    pub(crate) look_ups: LookUps,

    /// Start a verifier, and set the share of hits, from 0 to 1, that it asks the storage again
    ///
    /// It also checks after each delete whether a tier still answers. The metric
    /// layercache_verifications_total counts the results.
    #[arg(
        long,
        env = "LAYERCACHE_VERIFIER_HITS",
        value_name = "SHARE",
        value_parser = parse_share
    )]
    verify_hits: Option<f64>,

    /// Allow every client to purge the cache: POST /admin/purge
    #[arg(long, env = "LAYERCACHE_ADMIN")]
    pub(crate) admin: bool,

    #[command(flatten)]
    pub(crate) limits: Limits,
}

/// How a read learns whether a blob is there. `Verified` and `Plain` are for comparisons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LookUps {
    /// Ask the cache
    Cached,
    /// Ask the storage both questions at the same time
    Verified,
    /// Ask the storage one question after the other, as a registry without a cache does
    Plain,
}

/// A [`ChangePolicy`] on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Policy {
    /// Make creations, and refuse removals
    StrictRemovals,
    /// Refuse all changes
    Strict,
    /// Make all changes; until Redis can be reached, other nodes may give the old answers
    BestEffort,
}

impl From<Policy> for ChangePolicy {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::StrictRemovals => Self::StrictRemovals,
            Policy::Strict => Self::Strict,
            Policy::BestEffort => Self::BestEffort,
        }
    }
}

impl Options {
    /// Opens the store that the flags configure. An error names the flag.
    pub(crate) fn store(&self) -> Result<Store, clap::Error> {
        let inner = storage::open(&self.storage).map_err(|why| refuse("--storage", why))?;
        let mut builder = CachedStore::builder(inner);
        if let Some(share) = self.verify_hits {
            builder = builder.verifier(VerifierConfig::default().with_hits(share));
        }
        if let Some(url) = &self.redis {
            let config = RedisConfig::new(url)
                .with_timeout(self.redis_timeout)
                .with_prefix(&self.redis_prefix)
                .with_trust_timeout(self.redis_trust)
                .with_omit_path(self.redis_omit_path)
                .with_change_timeout(self.redis_change_timeout)
                .with_change_policy(self.change_policy.into());
            builder = builder.redis(config);
        }
        let built = builder.build();
        built.map_err(|error| refuse("--redis", error.into()))
    }

    /// Returns the names of the cache's tiers, without the password of Redis.
    pub(crate) fn tiers(&self) -> String {
        let Some(url) = &self.redis else {
            return "memory".to_owned();
        };
        let place = Url::parse(url).map(|url| match url.host_str() {
            Some(host) => format!(" at {host}:{}", url.port().unwrap_or(6379)),
            None => format!(" at {}", url.path()),
        });
        format!("memory, redis{}", place.unwrap_or_default())
    }
}

fn refuse(flag: &str, why: Box<dyn std::error::Error + Send + Sync>) -> clap::Error {
    Options::command().error(ErrorKind::ValueValidation, format!("{flag}: {why}"))
}
