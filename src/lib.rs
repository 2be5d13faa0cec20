#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![warn(missing_docs)]
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
//! any other that shares its Redis:
//!
//! - a change takes the fact out of both tiers *before* the store is touched, and a fence keeps it
//!   away until the store has answered;
//! - a fill of Redis needs a lease from before the read, which any change takes away; memory is
//!   filled only with what Redis has accepted or answered;
//! - a value in memory is dead once its key was changed, here or elsewhere, and memory answers only
//!   while other nodes' changes are sure to be heard of;
//! - a change returns when every node that may answer from memory has said that it forgot, or can
//!   no longer trust its memory (2.1 s at most);
//! - nobody boards a load that had left before the question was asked;
//! - a change runs in a task of its own, which a caller that goes away does not stop.
//!
//! Two things are bounded by the time to live instead: what a Go registry that shares the Redis
//! deletes, and what is removed from the store behind the cache's back, for which there is
//! [`TieredCache::purge`]. Redis Cluster is not supported yet.
//!
//! # Failure
//! A cache failure never fails a read, and never costs one more than the deadline of one operation
//! in Redis. A change that cannot be told to Redis is refused before anything is changed
//! ([`Error::ChangeRefused`]); one whose end cannot be told is reported
//! ([`Error::ChangeUnconfirmed`]).
//!
//! # Features
//! `redis` brings the shared tier, `redis-tls` its encrypted connections, `signer` signed addresses,
//! `testing` the check suite of [`LayerInfoCache`]. None is on by default.

pub mod cache;
#[cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "a node that is alone needs less of it")
)]
mod coherence;
mod digest;
mod error;
pub mod layout;
mod link;
mod meta;
mod metrics;
mod read_through;
mod registry;
mod repository;
mod status;
mod store;

pub use cache::{LayerInfoCache, MemoryCache, MemoryConfig, TieredCache};
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub use cache::{RedisCache, RedisConfig};
pub use coherence::change::ChangePolicy;
pub use digest::{Digest, DigestError};
pub use error::{BoxError, Error};
pub use link::{Link, LinkKind};
pub use meta::{LayerMeta, LayerMetaError};
pub use object_store;
pub use read_through::{Backend, LinkState, Stat, WritableBackend};
pub use registry::{Blobs, Registry, Repository};
pub use repository::{RepositoryName, RepositoryNameError};
pub use status::{Answer, CachePolicy, CacheStatus, Freshness};
pub use store::{CachedStore, CachedStoreBuilder, StoreBackend};

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
    pub mod tools;
}

/// Compiles what the README shows.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
