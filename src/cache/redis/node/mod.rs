//! How a node works with the other nodes that share the Redis: channel, heartbeats and messages.

mod acknowledge;
pub(crate) mod announce;
pub(crate) mod channel;
mod heartbeat;
pub(crate) mod joined;
pub(crate) mod namespace;
pub(crate) mod preflight;
pub(crate) mod primary;
mod read;
pub(crate) mod scripts;
mod session;
pub(crate) mod space_claim;
pub(crate) mod this_node;
