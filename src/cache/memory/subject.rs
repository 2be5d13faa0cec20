//! [`Subject`]: what an entry is about.
//!
//! moka keeps a key twice once its value has been replaced, so a key is 8 bytes, a part of the digest; the
//! rest of it stands in the entry. Two blobs that have the part in common take turns: each look-up
//! compares the whole.

use crate::link::{LinkRef, MetaRef, WireName};
use crate::{Digest, Link};

/// What entries are found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Tag(pub(super) u64);

/// Whose an entry is: what of it the tag does not say already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    /// A blob.
    Sha256([u8; 24]),
    /// What is rarer.
    Other(Box<Other>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Other {
    Sha512([u8; 64]),
    Object(Link),
}

/// A blob, or an object whose presence is a membership.
#[derive(Debug, Clone, Copy)]
pub(super) enum SubjectRef<'a> {
    Blob(&'a Digest),
    Object(LinkRef<'a>),
}

impl SubjectRef<'_> {
    pub(super) fn tag(self) -> Tag {
        Tag(match self {
            // Its first 8 bytes.
            Self::Blob(digest) => digest.wire_name(),
            Self::Object(link) => link.wire_name(),
        })
    }

    pub(super) fn to_owned(self) -> Subject {
        match self {
            Self::Blob(Digest::Sha256(hash)) => Subject::Sha256(rest(hash)),
            Self::Blob(Digest::Sha512(hash)) => Subject::Other(Box::new(Other::Sha512(*hash))),
            Self::Object(link) => Subject::Other(Box::new(Other::Object(link.to_owned()))),
        }
    }

    /// Whether an entry that was found by the tag is this one's.
    pub(super) fn is(self, subject: &Subject) -> bool {
        match (self, subject) {
            (Self::Blob(Digest::Sha256(hash)), Subject::Sha256(other)) => rest(hash) == *other,
            (Self::Blob(Digest::Sha512(hash)), Subject::Other(other)) => {
                matches!(&**other, Other::Sha512(other) if hash == other)
            }
            (Self::Object(link), Subject::Other(other)) => {
                matches!(&**other, Other::Object(other) if link == LinkRef::from(other))
            }
            _ => false,
        }
    }
}

impl<'a> From<MetaRef<'a>> for SubjectRef<'a> {
    fn from(meta: MetaRef<'a>) -> Self {
        match meta {
            MetaRef::Shared(digest) => Self::Blob(digest),
            MetaRef::Own(link) => Self::Object(link),
        }
    }
}

impl Subject {
    /// The bytes that it keeps on the heap.
    pub(super) const fn heap_size(&self) -> usize {
        match self {
            Self::Sha256(_) => 0,
            Self::Other(_) => size_of::<Other>(),
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
        let blobs = digests.iter().chain([&wide]).map(SubjectRef::Blob);
        let objects = links.iter().map(|link| SubjectRef::Object(link.into()));
        let all: Vec<_> = blobs.chain(objects).collect();
        let is = |one: SubjectRef<'_>, other: SubjectRef<'_>| {
            one.tag() == other.tag() && one.is(&other.to_owned())
        };
        for (i, one) in all.iter().enumerate() {
            for (j, other) in all.iter().enumerate() {
                assert_eq!(is(*one, *other), i == j, "{one:?} {other:?}");
            }
        }
    }
}
