//! What the command `layercache` needs of Redis besides the public API: a client that is not a
//! node, and the primaries at an address.

mod client;
mod primaries;

use crate::cache::redis::RedisConfig;

pub use client::{AdminClient, FIELDS, KeyPage, Shard, Shards, StoredMeta};
pub use primaries::{Primary, Topology, Unusable, find_primaries};

/// Returns the settings to work with the facts of one store over a shared cache, and with the nodes
/// of that cache. `namespace` is the store's name beside [`CachedStoreBuilder::cache`]. It is
/// checked where the settings are used.
///
/// [`CachedStoreBuilder::cache`]: crate::CachedStoreBuilder::cache
pub fn in_namespace(config: RedisConfig, namespace: &str) -> RedisConfig {
    config.with_store_namespace(namespace.to_owned())
}
