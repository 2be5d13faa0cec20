//! Tests the library through its public API, without any server.

mod limits;
mod send;
mod settings;
mod store_reads;
mod store_writes;
mod suite;
