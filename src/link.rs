//! [`Link`]: a blob's membership in a repository, and [`Key`]: what a fact is about.

use crate::{Digest, RepositoryName};
use std::hash::{Hash, Hasher};

/// What a link makes a blob: two kinds, with sets of their own.
///
/// A registry that lets one kind answer for the other serves manifests as blobs
/// ([distribution#4812](https://github.com/distribution/distribution/issues/4812)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkKind {
    /// A layer, a configuration or any other blob (`_layers` in docker/distribution).
    Layer,
    /// A manifest or an index (`_manifests/revisions` in docker/distribution).
    Manifest,
}

/// A blob's membership in a repository: what an access check asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link {
    /// What the link makes the blob.
    pub kind: LinkKind,
    /// The repository that has the blob.
    pub repository: RepositoryName,
    /// The blob.
    pub digest: Digest,
}

impl Link {
    /// A layer's link.
    pub const fn layer(repository: RepositoryName, digest: Digest) -> Self {
        Self {
            kind: LinkKind::Layer,
            repository,
            digest,
        }
    }

    /// A manifest's link.
    pub const fn manifest(repository: RepositoryName, digest: Digest) -> Self {
        Self {
            kind: LinkKind::Manifest,
            repository,
            digest,
        }
    }
}

/// The key of a cached fact. No fact says anything of another.
///
/// Hashes as what it holds does, so that a stripe can be found without making one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    /// A blob is in a repository.
    Link(Link),
    /// Where a blob is and how long it is.
    Meta(Digest),
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Link(link) => link.hash(state),
            Self::Meta(digest) => digest.hash(state),
        }
    }
}
