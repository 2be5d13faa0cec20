//! What can be wrong in Redis?

use layercache::internals::{AdminClient, Key, StoredMeta};
use layercache::{Digest, Link, LinkKind, RepositoryName};

/// The contents of the hash of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StoredHash {
    /// Nothing that a node could use as metadata.
    Nothing,
    /// A value that neither a node nor a Go registry has written.
    Broken,
    /// Metadata.
    Meta(StoredMeta),
    /// Not a hash.
    OtherType,
}

/// One thing in Redis that may have to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// A membership.
    Member(Link),
    /// The metadata of a blob.
    Meta(Key, StoredHash),
    /// A media type of a Go registry whose membership is missing.
    MediaType(RepositoryName, Digest),
    /// A member of a set that is not a digest.
    OddMember(LinkKind, RepositoryName, Vec<u8>),
    /// A key that does not have the type that its name says.
    OddType(Vec<u8>, &'static str),
    /// A lease or a fence that never expires.
    Forever(Vec<u8>),
    /// A key whose name only begins like one of the cache's.
    Junk(Vec<u8>),
}

/// Returns the key of a blob's hash.
pub(crate) fn hash_key(client: &AdminClient, of: &Key) -> String {
    let [key, ..] = client.keys_of(of);
    key
}

impl Item {
    /// Returns the key of the item, or the key that contains it.
    pub(crate) fn key(&self, client: &AdminClient) -> String {
        match self {
            Self::Member(link) => client.set_key(link.kind, &link.repository),
            Self::Meta(key, _) => hash_key(client, key),
            Self::MediaType(repository, digest) => client.media_type_key(repository, digest),
            Self::OddMember(kind, repository, _) => client.set_key(*kind, repository),
            Self::OddType(key, _) | Self::Forever(key) | Self::Junk(key) => {
                String::from_utf8_lossy(key).into_owned()
            }
        }
    }

    /// Returns the fact that the item is, if it is one. Nodes may have a fact in memory, so it is
    /// removed with the delete protocol.
    pub(crate) fn fact(&self) -> Option<Key> {
        match self {
            Self::Member(link) => Some(Key::Link(link.clone())),
            Self::Meta(key, _) => Some(key.clone()),
            _ => None,
        }
    }
}
