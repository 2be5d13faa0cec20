//! How the keys in Redis are named.

use crate::types::link::{Key, KeyRef};
use crate::types::{Digest, LinkKind, RepositoryName};
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

    /// Returns the name of the set of a repository's blobs of one kind.
    pub(crate) fn set_of(&self, kind: LinkKind, repository: &RepositoryName) -> String {
        let kind = set_name(kind);
        format!("{}repository::{repository}::{kind}", self.prefix)
    }

    /// Returns the key in which a Go registry notes the media type that a blob has in a repository.
    pub(crate) fn media_type(&self, repository: &RepositoryName, digest: &Digest) -> String {
        format!("{}repository::{repository}::blobs::{digest}", self.prefix)
    }

    /// Returns the key that holds a fact.
    pub(crate) fn subject(&self, key: KeyRef<'_>) -> String {
        self.subject_name(key).to_string()
    }

    /// Adds the key that holds a fact to a command.
    pub(crate) fn write_subject(&self, key: KeyRef<'_>, command: &mut impl RedisWrite) {
        command.write_arg_fmt(self.subject_name(key));
    }

    /// Returns the key that holds a fact, the key of its lease, and the key of its fence. The
    /// braces keep all three in one slot of a cluster. Each member of a set has its own lease and
    /// fence.
    pub(crate) fn of(&self, key: &Key) -> [String; 3] {
        let subject = self.subject(key.into());
        let member = match member_of(key) {
            Some(digest) => format!("::{digest}"),
            None => String::new(),
        };
        let beside = |what: &str| format!("{}{what}::{{{subject}}}{member}", self.prefix);
        [subject.clone(), beside("lease"), beside("fence")]
    }

    const fn subject_name<'a>(&'a self, key: KeyRef<'a>) -> SubjectName<'a> {
        let prefix = self.prefix.as_str();
        SubjectName { prefix, key }
    }
}

/// Returns which member of a set a fact is. Returns `None` if a hash holds the fact.
pub(crate) const fn member_of(key: &Key) -> Option<&Digest> {
    match key {
        Key::Link(link) => Some(&link.digest),
        Key::Meta(_) | Key::Own(_) => None,
    }
}

/// The name of the key that holds a fact: `repository::<name>::blobs` and
/// `repository::<name>::manifests` for memberships, `blobs::<digest>` for a blob that all
/// repositories share, `blobs::<name>::<digest>` for a repository's own layer, and
/// `blobs::<name>::manifests::<digest>` for its own manifest.
struct SubjectName<'a> {
    prefix: &'a str,
    key: KeyRef<'a>,
}

impl fmt::Display for SubjectName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.prefix)?;
        match self.key {
            KeyRef::Link(link) => {
                let kind = set_name(link.kind);
                write!(f, "repository::{}::{kind}", link.repository)
            }
            KeyRef::Meta(digest) => write!(f, "blobs::{digest}"),
            KeyRef::Own(link) => {
                let kind = match link.kind {
                    LinkKind::Layer => "",
                    LinkKind::Manifest => "manifests::",
                };
                write!(f, "blobs::{}::{kind}{}", link.repository, link.digest)
            }
        }
    }
}

const fn set_name(kind: LinkKind) -> &'static str {
    match kind {
        LinkKind::Layer => "blobs",
        LinkKind::Manifest => "manifests",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Link;

    #[test]
    fn names_are_the_seeds() {
        let digest = Digest::Sha256([0xab; 32]);
        let name: crate::types::RepositoryName = "library/alpine".parse().unwrap();
        let keys = Keys::new(String::new());
        assert_eq!(
            keys.subject((&Key::Link(Link::layer(name.clone(), digest))).into()),
            "repository::library/alpine::blobs"
        );
        assert_eq!(
            keys.subject((&Key::Link(Link::manifest(name, digest))).into()),
            "repository::library/alpine::manifests"
        );
        assert_eq!(
            Keys::new("eu:".into()).subject(KeyRef::Meta(&digest)),
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
            keys.subject((&Key::Own(Link::manifest(name, digest))).into()),
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
