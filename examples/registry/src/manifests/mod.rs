//! Manifests: `/v2/<name>/manifests/<reference>`. A manifest is a blob with a link of its own kind.

mod model;
mod read;
mod write;

pub(crate) use model::{Manifest, OCI_INDEX};
pub(crate) use read::{content, read};
pub(crate) use write::{delete, write};

/// The longest manifest, as in the Go registry.
const MAX_SIZE: u64 = 4 << 20;
