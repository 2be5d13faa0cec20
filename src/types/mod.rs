//! The values that all other modules use: digests, repositories, links, metadata, questions,
//! answers, errors and descriptions of settings.

pub(crate) mod digest;
pub(crate) mod error;
pub(crate) mod layer_meta;
pub(crate) mod link;
pub(crate) mod namespace;
pub(crate) mod netstring;
pub(crate) mod per_key;
pub(crate) mod question;
pub(crate) mod repository;
pub(crate) mod runtime;
pub(crate) mod setting;
pub(crate) mod status;

pub use digest::{Digest, DigestError};
pub use error::{BoxError, Error};
pub use layer_meta::{LayerMeta, LayerMetaError};
pub use link::{Link, LinkKind};
pub use repository::{RepositoryName, RepositoryNameError};
pub use status::{Answer, CachePolicy, CacheStatus, Freshness};
