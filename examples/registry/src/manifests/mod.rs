//! How manifests are served: `/v2/<name>/manifests/<reference>`. A manifest is a blob with its own
//! kind of link.

mod model;
mod read;
pub(crate) mod subjects;
mod write;

pub(crate) use model::{Manifest, OCI_INDEX};
pub(crate) use read::{content, read};
pub(crate) use write::{delete, write};

/// The size limit of a manifest, in bytes, as in the Go registry.
const MAX_SIZE: u64 = 4 << 20;
