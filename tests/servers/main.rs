//! Tests with real servers: Redis and its relatives, S3, the Go registry, and the programs of this
//! workspace. A test that misses a program fails, and says how to install it.

mod audit;
mod backend_trouble;
mod client;
mod command;
mod examples;
mod faults;
mod fixtures;
mod hostile;
mod metrics;
mod multipart;
mod name_spaces;
mod nodes;
mod nodes_http;
mod outage;
mod own_blobs;
mod races;
mod redis;
mod registry;
mod scripts;
mod secrets;
mod shared_cache;
mod signer;
mod suite;
mod topologies;
mod traces;
mod versions;
mod warm;
