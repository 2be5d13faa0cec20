//! The names of keys.

use crate::{Digest, Link, LinkKind};

/// The seed's key names, behind a prefix.
#[derive(Debug)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) const fn new(prefix: String) -> Self {
        Self { prefix }
    }

    /// The set of a repository's blobs of one kind.
    pub(super) fn set(&self, link: &Link) -> String {
        let kind = match link.kind {
            LinkKind::Layer => "blobs",
            LinkKind::Manifest => "manifests",
        };
        format!("{}repository::{}::{kind}", self.prefix, link.repository)
    }

    /// The hash of what is known of a blob.
    pub(super) fn hash(&self, digest: &Digest) -> String {
        format!("{}blobs::{digest}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_seeds() {
        let digest = Digest::Sha256([0xab; 32]);
        let name: crate::RepositoryName = "library/alpine".parse().unwrap();
        let keys = Keys::new(String::new());
        assert_eq!(
            keys.set(&Link::layer(name.clone(), digest)),
            "repository::library/alpine::blobs"
        );
        assert_eq!(
            keys.set(&Link::manifest(name, digest)),
            "repository::library/alpine::manifests"
        );
        assert_eq!(
            Keys::new("eu:".into()).hash(&digest),
            format!("eu:blobs::sha256:{}", "ab".repeat(32))
        );
    }
}
