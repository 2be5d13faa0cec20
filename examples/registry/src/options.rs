//! The flags, and the store that they ask for.

use crate::app::Store;
use crate::limits::Limits;
use crate::lookup::LookUps;
use crate::storage;
use crate::units::{parse_share, parse_time};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, ValueEnum};
use layercache::{CachedStore, ChangePolicy, RedisConfig, VerifierConfig};
use std::time::Duration;
use url::Url;

/// A small OCI registry with a cache of blob metadata.
#[derive(Parser)]
#[command(name = "registry")]
// Not `Debug`: the address of Redis may hold a password.
pub(crate) struct Options {
    /// The address to listen on; port 0 takes a free one
    #[arg(long, env = "LAYERCACHE_LISTEN", default_value = "127.0.0.1:5000")]
    pub(crate) listen: String,

    /// Where the content is: a folder, file:///folder, s3://bucket/prefix (with the usual AWS_*
    /// variables) or memory://
    #[arg(
        long,
        env = "LAYERCACHE_STORAGE",
        hide_env_values = true,
        default_value = "registry-data"
    )]
    pub(crate) storage: String,

    /// A Redis to share the cache with other nodes: redis://[[user]:password@]host[:port][/database]
    #[arg(
        long,
        env = "LAYERCACHE_REDIS",
        hide_env_values = true,
        value_name = "URL"
    )]
    redis: Option<String>,

    /// How long Redis may take to answer: 50ms, 1s; without a unit, milliseconds
    #[arg(
        long,
        env = "LAYERCACHE_REDIS_TIMEOUT",
        default_value = "50ms",
        value_name = "TIME",
        value_parser = parse_time
    )]
    redis_timeout: Duration,

    /// What all keys in Redis begin with
    #[arg(
        long,
        env = "LAYERCACHE_REDIS_PREFIX",
        default_value = "",
        value_name = "TEXT"
    )]
    redis_prefix: String,

    /// How long this node answers from memory after it last heard that it hears the others
    #[arg(
        long,
        env = "LAYERCACHE_REDIS_TRUST",
        default_value = "2s",
        value_name = "TIME",
        value_parser = parse_time
    )]
    redis_trust: Duration,

    /// Leave out of Redis the paths that every node can derive: half the memory, but whoever else reads
    /// paths there finds none
    #[arg(long, env = "LAYERCACHE_REDIS_OMIT_PATH")]
    redis_omit_path: bool,

    /// How long a change may take to tell Redis, and waits for it where it is away
    #[arg(
        long,
        env = "LAYERCACHE_REDIS_CHANGE_TIMEOUT",
        default_value = "5s",
        value_name = "TIME",
        value_parser = parse_time
    )]
    redis_change_timeout: Duration,

    /// Which changes are made while Redis cannot be told of them
    #[arg(
        long,
        env = "LAYERCACHE_CHANGE_POLICY",
        default_value = "strict-removals",
        value_name = "POLICY"
    )]
    change_policy: Policy,

    /// Whom every read asks whether a blob is there; all but `cached` are to compare with
    #[arg(
        long,
        env = "LAYERCACHE_LOOK_UPS",
        default_value = "cached",
        value_name = "HOW"
    )]
    pub(crate) look_ups: LookUps,

    /// Have a verifier ask the storage of this share of the hits, from 0 to 1, and look after each delete
    /// whether it is still answered; see layercache_verifications_total in the metrics
    #[arg(
        long,
        env = "LAYERCACHE_VERIFY_HITS",
        value_name = "SHARE",
        value_parser = parse_share
    )]
    verify_hits: Option<f64>,

    /// Whether anybody may purge the cache: POST /admin/purge
    #[arg(long, env = "LAYERCACHE_ADMIN")]
    pub(crate) admin: bool,

    #[command(flatten)]
    pub(crate) limits: Limits,
}

/// A [`ChangePolicy`] on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Policy {
    /// Creations; removals are refused
    StrictRemovals,
    /// None
    Strict,
    /// All; the other nodes may answer what was before until Redis can be told
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
    /// The store that the flags ask for; an error names the flag.
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
                .with_store_path(!self.redis_omit_path)
                .with_change_timeout(self.redis_change_timeout)
                .with_change_policy(self.change_policy.into());
            builder = builder
                .redis(config)
                .map_err(|error| refuse("--redis", error.into()))?;
        }
        Ok(builder.build())
    }

    /// The tiers of the cache, without the password of Redis.
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
