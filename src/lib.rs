#![forbid(unsafe_code)]
#![warn(missing_docs)]
//! A read-through cache of container-registry blob metadata, as middleware on [`object_store`].

mod digest;
pub mod layout;
mod link;
mod meta;
mod repository;

pub use digest::{Digest, DigestError};
pub use link::{Link, LinkKind};
pub use meta::{LayerMeta, LayerMetaError};
pub use object_store;
pub use repository::{RepositoryName, RepositoryNameError};
