//! How the keys in Redis are named.

use crate::types::link::{Key, MetaRef};
use crate::types::{Digest, Link, LinkKind, RepositoryName};
use ::redis::RedisWrite;
use std::fmt;

/// The key names of docker/distribution, after a prefix.
#[derive(Debug)]
pub(crate) struct Keys {
    prefix: String,
}

impl Keys {
    pub(crate) const fn new(prefix: String) -> Self {
        Self { prefix }
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns the name of the set that contains a membership.
    pub(crate) fn set(&self, link: &Link) -> String {
        self.set_of(link.kind, &link.repository)
    }

    /// Returns the name of the set of a repository's blobs of one kind.
    pub(crate) fn set_of(&self, kind: LinkKind, repository: &RepositoryName) -> String {
        let kind = match kind {
            LinkKind::Layer => "blobs",
            LinkKind::Manifest => "manifests",
        };
        format!("{}repository::{repository}::{kind}", self.prefix)
    }

    /// Returns the key in which a Go registry notes the media type that a blob has in a repository.
    pub(crate) fn media_type(&self, repository: &RepositoryName, digest: &Digest) -> String {
        format!("{}repository::{repository}::blobs::{digest}", self.prefix)
    }

    /// Returns the key that holds a fact.
    pub(crate) fn subject(&self, key: &Key) -> String {
        match key {
            Key::Link(link) => self.set(link),
            Key::Meta(digest) => self.hash(MetaRef::Shared(digest)),
            Key::Own(link) => self.hash(MetaRef::Own(link.into())),
        }
    }

    /// Returns the key that holds a fact, the key of its lease, and the key of its fence. The
    /// braces keep all three in one slot of a cluster. Each member of a set has its own lease and
    /// fence.
    pub(crate) fn of(&self, key: &Key) -> [String; 3] {
        let subject = self.subject(key);
        let member = match key {
            Key::Link(link) => format!("::{}", link.digest),
            Key::Meta(_) | Key::Own(_) => String::new(),
        };
        let beside = |what: &str| format!("{}{what}::{{{subject}}}{member}", self.prefix);
        [subject.clone(), beside("lease"), beside("fence")]
    }

    /// Adds the name of a hash to a command.
    pub(crate) fn write_hash(&self, of: MetaRef<'_>, command: &mut impl RedisWrite) {
        command.write_arg_fmt(self.hash_name(of));
    }

    /// Returns the name of a blob's hash.
    pub(crate) fn hash(&self, of: MetaRef<'_>) -> String {
        self.hash_name(of).to_string()
    }

    const fn hash_name<'a>(&'a self, of: MetaRef<'a>) -> HashName<'a> {
        let prefix = self.prefix.as_str();
        HashName { prefix, of }
    }
}

/// The name of a hash: `blobs::<digest>` for a blob that all repositories share,
/// `blobs::<name>::<digest>` for a repository's own layer, and
/// `blobs::<name>::manifests::<digest>` for its own manifest.
struct HashName<'a> {
    prefix: &'a str,
    of: MetaRef<'a>,
}

impl fmt::Display for HashName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}blobs::", self.prefix)?;
        if let MetaRef::Own(link) = self.of {
            write!(f, "{}::", link.repository)?;
            if link.kind == LinkKind::Manifest {
                f.write_str("manifests::")?;
            }
        }
        self.of.digest().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_seeds() {
        let digest = Digest::Sha256([0xab; 32]);
        let name: crate::types::RepositoryName = "library/alpine".parse().unwrap();
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
            Keys::new("eu:".into()).hash(MetaRef::Shared(&digest)),
            format!("eu:blobs::sha256:{}", "ab".repeat(32))
        );
    }

    #[test]
    fn a_repositorys_own_object_has_a_hash_of_its_own() {
        let digest = Digest::Sha256([0xab; 32]);
        let name: crate::types::RepositoryName = "library/alpine".parse().unwrap();
        let keys = Keys::new("eu:".into());
        let [subject, lease, fence] = keys.of(&Key::Own(Link::layer(name.clone(), digest)));
        assert_eq!(subject, format!("eu:blobs::library/alpine::{digest}"));
        assert_eq!(lease, format!("eu:lease::{{{subject}}}"));
        assert_eq!(fence, format!("eu:fence::{{{subject}}}"));
        assert_eq!(
            keys.subject(&Key::Own(Link::manifest(name, digest))),
            format!("eu:blobs::library/alpine::manifests::{digest}")
        );
    }

    #[test]
    fn a_lease_and_a_fence_are_in_the_slot_of_their_subject() {
        let digest = Digest::Sha256([0xab; 32]);
        let name: crate::types::RepositoryName = "library/alpine".parse().unwrap();
        let keys = Keys::new("eu:".into());
        let [subject, lease, fence] = keys.of(&Key::Link(Link::layer(name, digest)));
        assert_eq!(subject, "eu:repository::library/alpine::blobs");
        assert_eq!(lease, format!("eu:lease::{{{subject}}}::{digest}"));
        assert_eq!(fence, format!("eu:fence::{{{subject}}}::{digest}"));
        let [subject, lease, _] = keys.of(&Key::Meta(digest));
        assert_eq!(lease, format!("eu:lease::{{{subject}}}"));
    }
}
