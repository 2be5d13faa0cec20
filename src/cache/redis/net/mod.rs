//! How the cache reaches Redis: where the servers are, whether they answer, and what runs on them.

pub(crate) mod address;
pub(crate) mod breaker;
mod client;
pub(crate) mod cluster;
pub(crate) mod connect_error;
pub(crate) mod connection;
pub(crate) mod connector;
mod cryptography;
pub(crate) mod in_time;
pub(crate) mod lifecycle;
pub(crate) mod purge;
pub(crate) mod resolve;
pub(crate) mod script;
pub(crate) mod sentinel;
pub(crate) mod server_info;
pub(crate) mod servers;
pub(crate) mod slots;
