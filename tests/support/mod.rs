//! Holds what the integration tests and benches share: real servers on loopback, real clients,
//! small images.
#![allow(
    missing_copy_implementations,
    missing_debug_implementations,
    reason = "these are tools of tests"
)]
#![allow(
    clippy::future_not_send,
    reason = "a test's own futures stay on its thread"
)]

pub mod bucket;
pub mod cluster;
pub mod command;
pub mod every_path;
pub mod example;
pub mod go_registry;
pub mod guarded;
pub mod history;
pub mod http;
pub mod image;
pub mod log;
pub mod meter;
pub mod metrics;
pub mod minio;
pub mod nodes;
pub mod own_blobs;
pub mod proxy;
pub mod recording;
pub mod redis;
pub mod registry;
pub mod sentinel;
pub mod server;
pub mod skopeo;
pub mod stacks;
pub mod suite;
pub mod tls;
pub mod tools;
pub mod trouble;
pub mod world;

pub use skopeo::skopeo;
