//! [`EntryKey`]: which blob or object is an entry about?
//!
//! moka stores a key twice once its value has been replaced. So the key in moka is only a [`Tag`],
//! 8 bytes of the digest, and the entry holds the rest. Two blobs with the same tag replace each
//! other in the cache. Each look-up compares the whole digest, so no look-up confuses them. Several name spaces
//! share one cache, so each mixes its salt into its tags, and each look-up compares the name space.

use crate::types::link::{KeyRef, LinkRef, WireName};
use crate::types::{Digest, Link};

/// The key of an entry in moka.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Tag(pub(super) u64);

/// The part of an entry's key that is not in the tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EntryKey {
    /// A blob: the bytes of its SHA-256 that are not in the tag.
    Sha256([u8; 24]),
    /// A rarer key. It is boxed, so that the enum stays small.
    RareKey(Box<RareKey>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RareKey {
    Sha512([u8; 64]),
    Object(Link),
}

/// The subject of a look-up: a blob, or an object whose presence is a membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryKeyRef<'a> {
    Blob(&'a Digest),
    Object(LinkRef<'a>),
}

impl EntryKeyRef<'_> {
    /// Returns the tag of the subject's entry in a name space with this salt.
    pub(super) fn tag(self, salt: u64) -> Tag {
        let name = match self {
            // The first 8 bytes of a SHA-256, or their complement for a SHA-512.
            Self::Blob(digest) => digest.wire_name(),
            Self::Object(link) => link.wire_name(),
        };
        Tag(name ^ salt)
    }

    pub(super) fn to_owned(self) -> EntryKey {
        match self {
            Self::Blob(Digest::Sha256(hash)) => EntryKey::Sha256(rest(hash)),
            Self::Blob(Digest::Sha512(hash)) => EntryKey::RareKey(Box::new(RareKey::Sha512(*hash))),
            Self::Object(link) => EntryKey::RareKey(Box::new(RareKey::Object(link.to_owned()))),
        }
    }

    /// Returns whether an entry with this key belongs to this subject. Their tags must be equal.
    pub(super) fn is(self, subject: &EntryKey) -> bool {
        match (self, subject) {
            (Self::Blob(Digest::Sha256(hash)), EntryKey::Sha256(other)) => rest(hash) == *other,
            (Self::Blob(Digest::Sha512(hash)), EntryKey::RareKey(other)) => {
                matches!(&**other, RareKey::Sha512(other) if hash == other)
            }
            (Self::Object(link), EntryKey::RareKey(other)) => {
                matches!(&**other, RareKey::Object(other) if link == LinkRef::from(other))
            }
            _ => false,
        }
    }
}

/// Returns the entry that has the fact of a key. A blob's entry has its memberships too.
impl<'a> From<KeyRef<'a>> for EntryKeyRef<'a> {
    fn from(key: KeyRef<'a>) -> Self {
        match key {
            KeyRef::Link(LinkRef { digest, .. }) | KeyRef::Meta(digest) => Self::Blob(digest),
            KeyRef::Own(link) => Self::Object(link),
        }
    }
}

impl EntryKey {
    /// Returns the number of bytes of the key on the heap.
    pub(super) const fn heap_size(&self) -> usize {
        match self {
            Self::Sha256(_) => 0,
            Self::RareKey(_) => size_of::<RareKey>(),
        }
    }
}

fn rest(hash: &[u8; 32]) -> [u8; 24] {
    let [_, rest @ ..] = hash.as_chunks::<8>().0 else {
        return [0; 24];
    };
    let mut bytes = [0; 24];
    bytes.copy_from_slice(rest.as_flattened());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_what_is_looked_up_and_nothing_else() {
        let digests: Vec<_> = (0..32)
            .map(|i| {
                let mut hash = [1; 32];
                hash[i] = 2;
                Digest::Sha256(hash)
            })
            .collect();
        let wide = Digest::Sha512([1; 64]);
        let name = || "library/alpine".parse().unwrap();
        let links = [
            Link::layer(name(), digests[0]),
            Link::manifest(name(), digests[0]),
            Link::layer(name(), wide),
        ];
        let blobs = digests.iter().chain([&wide]).map(EntryKeyRef::Blob);
        let objects = links.iter().map(|link| EntryKeyRef::Object(link.into()));
        let all: Vec<_> = blobs.chain(objects).collect();
        let is = |one: EntryKeyRef<'_>, other: EntryKeyRef<'_>| {
            one.tag(7) == other.tag(7) && one.is(&other.to_owned())
        };
        for (i, one) in all.iter().enumerate() {
            for (j, other) in all.iter().enumerate() {
                assert_eq!(is(*one, *other), i == j, "{one:?} {other:?}");
            }
        }
    }
}
