//! How a node works with the other nodes that share the Redis: channel, heartbeats and messages.

pub(crate) mod announce;
pub(crate) mod channel;
pub(crate) mod namespace;
pub(crate) mod preflight;
pub(crate) mod session;
pub(crate) mod shard;
