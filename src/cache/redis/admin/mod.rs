//! What the command `layercache` needs of Redis besides the public API: a client that is not a
//! node, and the primaries at an address.

mod client;
mod primaries;

pub use client::{AdminClient, FIELDS, KeyPage, Shard, Shards, StoredMeta};
pub use primaries::{Primary, Topology, Unusable, find_primaries};
