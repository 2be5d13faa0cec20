//! A small OCI registry on [`layercache`].
//!
//! It uses docker/distribution's storage layout. So it serves what the Go registry has written, and
//! the Go registry serves what it has written. It has no authentication: put a proxy in front of it
//! that has.
//!
//! [`run()`] starts it and serves until a signal. The public modules are those that the tests use
//! without a server.
//!
//! A request goes through these modules: `server` accepts the connection, `router` finds the
//! function for the method and the [`route`], `blobs`, `manifests`, `tags`, `referrers` and
//! `uploads` answer, and `lookup` asks the cache. [`paths`] says where each object is in the
//! storage.
#![forbid(unsafe_code)]

mod admin;
mod app;
mod blobs;
mod error;
pub mod folder;
mod headers;
mod limits;
mod lookup;
mod manifests;
mod options;
mod parameters;
pub mod paths;
mod process;
mod range;
mod referrers;
pub mod route;
mod router;
mod run;
mod server;
mod sessions;
mod storage;
mod tags;
mod units;
mod unread;
mod uploads;

pub use error::Error;
pub use options::Options;
pub use run::run;
