//! Which Redis a command uses: the options for it, and its name in messages.

use crate::command_error::CommandError;
use clap::Args;
use layercache::{RedisConfig, internals};
use std::time::Duration;
use url::Url;

/// The options of the Redis.
#[derive(Args, Clone)]
// It has no `Debug`, because the address may hold a password.
pub(crate) struct RedisOptions {
    /// The address of the Redis that the nodes share:
    /// redis://[user][:password@]host[:port][/database], unix:///path,
    /// redis+sentinel://host,host/service, redis+cluster://host,host
    ///
    /// With `rediss` in place of `redis` the connection uses TLS. ?ca=FILE&cert=FILE&key=FILE names
    /// its certificates and its key.
    #[arg(
        long,
        env = "LAYERCACHE_REDIS_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    redis: Option<String>,

    /// The prefix of all keys in Redis; must be the same as on the nodes
    #[arg(
        long,
        env = "LAYERCACHE_REDIS_PREFIX",
        default_value = "",
        value_name = "TEXT"
    )]
    redis_prefix: String,

    /// The name space of the store if several stores share the Redis; must be the same as on the
    /// nodes
    #[arg(long, env = "LAYERCACHE_REDIS_NAMESPACE", value_name = "NAME")]
    redis_namespace: Option<String>,

    /// The name space of one store, if several stores of the nodes share one cache
    /// (CachedStoreBuilder::cache)
    #[arg(long, env = "LAYERCACHE_STORE_NAMESPACE", value_name = "NAME")]
    store_namespace: Option<String>,

    /// How long to wait for an answer of Redis, such as 50ms or 1s; without a unit, milliseconds
    #[arg(
        long,
        env = "LAYERCACHE_REDIS_TIMEOUT",
        default_value = "1s",
        value_name = "TIME",
        value_parser = crate::units::parse_time
    )]
    redis_timeout: Duration,

    /// How long a node answers from memory after its newest heartbeat; must be the same as on the
    /// nodes
    #[arg(
        long,
        env = "LAYERCACHE_REDIS_TRUST_TIMEOUT",
        default_value = "2s",
        value_name = "TIME",
        value_parser = crate::units::parse_time
    )]
    redis_trust: Duration,

    /// Write no paths to Redis that a node can derive from the layout; set it if the nodes do so
    #[arg(long, env = "LAYERCACHE_REDIS_OMIT_PATH")]
    redis_omit_path: bool,
}

/// The settings of a Redis, and its name for messages.
#[derive(Debug, Clone)]
pub(crate) struct Redis {
    pub(crate) config: RedisConfig,
    /// The cache that several stores share, and the name space of one of them. Then
    /// [`config`](Self::config) leads to the facts of that store.
    pub(crate) shared: Option<(RedisConfig, String)>,
    /// The address of the Redis, without user, password and files.
    pub(crate) place: String,
}

impl RedisOptions {
    /// Returns the Redis. Returns `None` if the options name none. Does not connect.
    pub(crate) fn open(&self) -> Option<Redis> {
        let url = self.redis.as_deref().filter(|url| !url.is_empty())?;
        let mut config = RedisConfig::new(url)
            .with_prefix(&self.redis_prefix)
            .with_timeout(self.redis_timeout)
            .with_trust_timeout(self.redis_trust)
            .with_omit_path(self.redis_omit_path);
        if let Some(name) = &self.redis_namespace {
            config = config.with_namespace(name);
        }
        let name = self.store_namespace.clone();
        let shared = name.map(|name| (config.clone(), name));
        Some(Redis {
            config: match &shared {
                Some((config, name)) => internals::in_namespace(config.clone(), name),
                None => config,
            },
            shared,
            place: place(url).unwrap_or_else(|| "redis".to_owned()),
        })
    }

    /// Returns the Redis for a command that needs one. It is an error if the options name none.
    pub(crate) fn required(&self) -> Result<Redis, CommandError> {
        self.open().ok_or_else(|| {
            CommandError::new("no Redis is given")
                .help("set its address with --redis URL or LAYERCACHE_REDIS_URL, as on the nodes")
        })
    }
}

/// Returns the error for a setting that the library refuses.
pub(crate) fn refused(error: layercache::Error) -> CommandError {
    CommandError::new("a setting of the Redis is not valid")
        .because(error)
        .help(
            "`layercache check --help` lists the addresses, layercache::guide::redis explains them",
        )
}

/// Returns the scheme, the hosts and the part after them. Returns `None` for text that does not
/// look like an address, because it may be a secret.
fn place(address: &str) -> Option<String> {
    let (scheme, rest) = address.split_once("://")?;
    let is_known =
        |plain: &str| matches!(plain, "redis" | "rediss" | "valkey" | "valkeys" | "unix");
    if !is_known(scheme.split('+').next()?) {
        return None;
    }
    let rest = rest.split_once('?').map_or(rest, |(rest, _)| rest);
    // A password may hold any character, so everything up to the last `@` is cut off.
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    // An invalid host may be a password in a wrong place.
    let first = rest.split([',', '/']).next()?;
    let is_place = scheme.ends_with("unix") || Url::parse(&format!("redis://{first}")).is_ok();
    is_place.then(|| format!("{scheme}://{rest}"))
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn a_place_has_no_secret() {
        for (address, shown) in [
            ("redis://:s3cret@h:1/2", "redis://h:1/2"),
            ("redis://user:s3@cret@h", "redis://h"),
            (
                "rediss+sentinel://u:s3cret@a:1,b/main?sentinel_password=s3cret",
                "rediss+sentinel://a:1,b/main",
            ),
            (
                "unix:///run/redis.sock?pass=s3cret",
                "unix:///run/redis.sock",
            ),
        ] {
            assert_eq!(place(address).as_deref(), Some(shown));
        }
        for address in ["", "s3cret", "s3cret://h", "redis://h:s3cret"] {
            assert_eq!(place(address), None, "{address}");
        }
    }
}
