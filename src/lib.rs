#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(
    not(feature = "redis"),
    allow(
        rustdoc::broken_intra_doc_links,
        reason = "what is said of Redis links to what the feature brings"
    )
)]
//! A read-through cache of container-registry blob metadata, as middleware on [`object_store`].
//!
//! A registry asks its storage two small questions all day: is this blob linked into this
//! repository, and where is it, how long is it? This crate answers them from memory, then from a
//! Redis that nodes share, and asks the store only when neither knows.
//!
//! | you have | you use |
//! |---|---|
//! | an `object_store` | [`CachedStore`], which is one too |
//! | a registry to write on it | [`CachedStore::registry`]: [`Registry`], [`Repository`], [`Blobs`] |
//! | a storage trait of your own | [`Backend`], and [`Registry::new`] |
//! | another layout of paths | [`layout::Layout`] |
//! | need of the cache alone | [`LayerInfoCache`]: [`MemoryCache`], `RedisCache`, [`TieredCache`] |
//!
//! # Two independent facts
//! *Membership*: a blob is in a repository, as a layer or as a manifest ([`Link`]). *Meta*: where a
//! blob is and how long it is ([`LayerMeta`]). Neither implies the other, and access is decided by
//! membership alone. Only positives are cached.
//!
//! # Consistency
//! No read that begins after a change has returned is answered from before it, on this node or on
//! any other that shares its Redis. [`guide::coherence`] says how, on which assumptions, what it
//! costs, and what happens when something fails.
//!
//! # Failure
//! A cache failure never fails a read, and never costs one more than one deadline
//! in Redis. A change that cannot be told to Redis is refused before anything is changed
//! ([`Error::ChangeRefused`]); one whose end cannot be told is reported
//! ([`Error::ChangeUnconfirmed`]).
//!
//! # Features
//! `redis` brings the shared tier, `redis-tls` its encrypted connections, `signer` signed addresses,
//! `testing` the check suite of [`LayerInfoCache`], `cli` the command `layercache`. None is on by default.
//!
//! # Where to go on
//! [`guide`] has pages for those who begin, choose settings, run nodes, or come from a Go registry.

#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub mod admin;
pub mod cache;
#[cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "a node that is alone needs less of it")
)]
mod coherence;
mod digest;
mod error;
pub mod guide;
pub mod layout;
mod link;
mod meta;
mod metrics;
mod netstring;
mod read_through;
mod registry;
#[cfg(feature = "redis")]
mod remark;
mod repository;
mod spans;
mod status;
mod store;
mod turns;

pub use cache::{Forgotten, LayerInfoCache, MemoryCache, MemoryConfig, TieredCache};
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub use cache::{RedisCache, RedisConfig};
pub use coherence::change::ChangePolicy;
pub use digest::{Digest, DigestError};
pub use error::{BoxError, Error};
pub use link::{Link, LinkKind};
pub use meta::{LayerMeta, LayerMetaError};
pub use object_store;
pub use read_through::{AuditorConfig, Backend, LinkState, Stat, WritableBackend};
pub use registry::{Blobs, Registry, Repository};
pub use repository::{RepositoryName, RepositoryNameError};
pub use status::{Answer, CachePolicy, CacheStatus, Freshness};
pub use store::{CachedStore, CachedStoreBuilder, StoreBackend, Warm, WarmError, WarmProgress};
pub use turns::Limits;

/// What the targets in `fuzz/` cannot reach otherwise. Not there in any other build.
#[cfg(all(fuzzing, feature = "redis"))]
#[doc(hidden)]
pub use cache::redis::fuzzing;

/// The servers that tests start, as the integration tests do.
#[cfg(all(test, feature = "redis"))]
#[path = "../tests/support"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "shared with the integration tests, which use all of it"
)]
mod support {
    pub mod redis;
    pub mod server;
    pub mod tls;
    pub mod tools;
}

/// Compiles what the README shows.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
