//! A Redis as a state machine, for the deterministic simulation of whole nodes.
//!
//! [`Server`] answers the commands that the nodes, the command and their tests send, with the
//! replies and errors of a real Redis, and runs their real scripts in Lua 5.1. It reads no clock,
//! opens no socket, starts no thread and has no random numbers of its own. A test holds it against
//! real servers.

mod client;
mod cluster;
mod commands;
mod core;
mod glob;
mod keyspace;
mod lua;
mod memory;
mod replication;
mod reply;
mod request;
mod sentinel;
mod server;
mod setup;
mod value;

pub use cluster::{ClusterNode, ClusterView, slot_of};
pub use commands::scripting::hash as script_hash;
pub use memory::Policy;
pub use replication::Effect;
pub use sentinel::{SentinelView, Service};
pub use server::{ConnectionId, MovedKey, Server, Snapshot};
pub use setup::{Flavor, Setup};
