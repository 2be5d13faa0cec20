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
//! A registry asks its storage two small questions all day. Is this blob linked into this
//! repository? Where is the blob, and how long is it? This crate answers them from memory, then
//! from a Redis that the nodes share. It asks the store only when neither has the answer.
//!
//! | you have | you use |
//! |---|---|
//! | an `object_store` | [`CachedStore`], which is an `object_store` too |
//! | a registry that you write on an `object_store` | [`CachedStore::registry`]: [`Registry`], [`Repository`], [`Blobs`] |
//! | a storage trait of your own | [`Backend`], and [`Registry::builder`] |
//! | another layout of paths | [`layout::Layout`] |
//! | a use for the cache alone | [`LayerInfoCache`]: [`MemoryCache`], `RedisCache`, [`TieredCache`] |
//!
//! # Two independent facts
//! *Membership*: a blob is in a repository, as a layer or as a manifest ([`Link`]). *Meta*: the
//! path and the length of a blob ([`LayerMeta`]). Neither fact implies the other. Membership alone
//! decides access. The cache stores only positive facts.
//!
//! # Consistency
//! After a change has returned, no read that begins later gets an answer from before the change, on
//! any node that shares the Redis. [`guide::coherence`] explains how, under which assumptions, at
//! which cost, and what happens when something fails.
//!
//! # Failure
//! A failure of the cache never fails a read, and never delays a read by more than one deadline in
//! Redis. It never fails a creation either: while Redis cannot be told, the node keeps the keys in
//! a retry queue. If Redis cannot be told of a removal, the removal is refused before anything is
//! changed ([`Error::ChangeRefused`]). If Redis can be told of its begin but not of its end, the
//! removal is made, and the caller gets [`Error::ChangeUnconfirmed`]. [`ChangePolicy`] offers other
//! choices.
//!
//! # Features
//! `redis` adds the shared tier, `redis-tls` its encrypted connections, `serde` [`Settings`] from a
//! file, `signer` signed URLs, and `testing` the check suite of [`LayerInfoCache`]. None is on by
//! default.
//!
//! # Where to go on
//! [`guide`] has pages on getting started, on settings, on running nodes and on migrating from a Go
//! registry.

pub mod cache;
#[cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "a node that is alone needs less of it")
)]
mod coherence;
pub mod guide;
pub mod layout;
mod read_through;
mod registry;
mod settings;
mod store;
mod telemetry;
mod types;

#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub use cache::{Connector, RedisCache, RedisConfig, RedisStream};
pub use cache::{Forgotten, LayerInfoCache, MemoryCache, MemoryConfig, TieredCache};
pub use coherence::change::ChangePolicy;
pub use coherence::limiter::Limits;
pub use object_store;
pub use read_through::{Backend, LinkState, Stat, VerifierConfig, WritableBackend};
pub use registry::{Blobs, Registry, RegistryBuilder, Repository};
pub use settings::{Settings, SettingsError};
pub use store::{CachedStore, CachedStoreBuilder, StoreBackend, Warm, WarmError, WarmProgress};
pub use types::{
    Answer, BoxError, CachePolicy, CacheStatus, Digest, DigestError, Error, Freshness, LayerMeta,
    LayerMetaError, Link, LinkKind, RepositoryName, RepositoryNameError,
};

/// What the command `layercache` (the crate `layercache-cli`) needs beside the public API: it reads
/// Redis with the code that nodes use. Semantic versioning does not cover this module, so every
/// release may change it.
#[doc(hidden)]
pub mod internals {
    #[cfg(feature = "redis")]
    pub use crate::cache::redis::admin::*;
    #[cfg(all(feature = "redis", feature = "testing"))]
    pub use crate::cache::redis::script_texts::script_texts;
    #[cfg(all(feature = "redis", feature = "testing"))]
    pub use crate::cache::redis::specified;
    #[cfg(feature = "redis")]
    pub use crate::cache::redis::tier::fields::Broken;
    pub use crate::store::has_text_of;
    pub use crate::types::link::Key;
}

/// Internals that the targets in `fuzz/` need. Only fuzzing builds have them.
#[cfg(all(fuzzing, feature = "redis"))]
#[doc(hidden)]
pub use cache::redis::fuzzing;

/// How the simulation bends a rule of the protocol. Only builds for it have this.
#[cfg(layercache_bends)]
#[doc(hidden)]
pub mod bends {
    pub use crate::coherence::rules::{bend, rules};
}

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
