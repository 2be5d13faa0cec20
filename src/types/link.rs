//! [`Link`]: which blob is in which repository? [`Key`]: which fact does the cache hold?

use crate::types::{Digest, RepositoryName};

/// The kind of a membership: layer or manifest. Redis has a separate set for each kind.
///
/// If a registry lets one kind answer for the other, it serves manifests as blobs
/// ([distribution#4812](https://github.com/distribution/distribution/issues/4812)).
///
/// ```
/// use layercache::{Digest, Link, LinkKind};
///
/// let digest = Digest::Sha256([0xab; 32]);
/// let link = Link::manifest("library/alpine".parse()?, digest);
/// assert_eq!(link.kind, LinkKind::Manifest);
/// assert_ne!(link, Link::layer("library/alpine".parse()?, digest));
/// # Ok::<(), layercache::RepositoryNameError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum LinkKind {
    /// A layer, a configuration or any other blob (`_layers` in docker/distribution).
    Layer,
    /// A manifest or an index (`_manifests/revisions` in docker/distribution).
    Manifest,
}

/// A blob's membership in a repository. An access check asks for it.
///
/// ```
/// use layercache::{Digest, Link};
///
/// let digest: Digest = format!("sha256:{}", "ab".repeat(32)).parse()?;
/// let layer = Link::layer("library/alpine".parse()?, digest);
/// let manifest = Link::manifest("library/alpine".parse()?, digest);
/// assert_eq!(layer.digest, manifest.digest);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link {
    /// The kind of the membership.
    pub kind: LinkKind,
    /// The repository that has the blob.
    pub repository: RepositoryName,
    /// The blob.
    pub digest: Digest,
}

impl Link {
    /// Creates the link of a layer.
    pub const fn layer(repository: RepositoryName, digest: Digest) -> Self {
        Self {
            kind: LinkKind::Layer,
            repository,
            digest,
        }
    }

    /// Creates the link of a manifest.
    pub const fn manifest(repository: RepositoryName, digest: Digest) -> Self {
        Self {
            kind: LinkKind::Manifest,
            repository,
            digest,
        }
    }
}

/// A borrowed [`Link`], for look-ups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LinkRef<'a> {
    pub(crate) kind: LinkKind,
    pub(crate) repository: &'a RepositoryName,
    pub(crate) digest: &'a Digest,
}

impl LinkRef<'_> {
    pub(crate) fn to_owned(self) -> Link {
        Link {
            kind: self.kind,
            repository: self.repository.clone(),
            digest: *self.digest,
        }
    }
}

impl<'a> From<&'a Link> for LinkRef<'a> {
    fn from(link: &'a Link) -> Self {
        Self {
            kind: link.kind,
            repository: &link.repository,
            digest: &link.digest,
        }
    }
}

/// The key of a cached fact. No fact implies another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// The membership of a blob in a repository.
    Link(Link),
    /// The metadata of a blob that all repositories share.
    Meta(Digest),
    /// The metadata of a repository's own object, whose presence is this membership.
    Own(Link),
}

/// A borrowed [`Key`], for look-ups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyRef<'a> {
    Link(LinkRef<'a>),
    Meta(&'a Digest),
    Own(LinkRef<'a>),
}

/// The kind of a fact. It decides which values a key can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyKind {
    Membership,
    Meta,
}

impl KeyKind {
    /// The names of all kinds in the metrics, in the order of the variants.
    pub(crate) const NAMES: [&'static str; 2] = ["membership", "meta"];
}

impl Key {
    /// Returns the digest of the blob.
    pub const fn digest(&self) -> &Digest {
        match self {
            Self::Link(link) | Self::Own(link) => &link.digest,
            Self::Meta(digest) => digest,
        }
    }

    /// Returns the repository whose fact this is, or `None` for a fact that all share.
    pub const fn repository(&self) -> Option<&RepositoryName> {
        match self {
            Self::Link(link) | Self::Own(link) => Some(&link.repository),
            Self::Meta(_) => None,
        }
    }
}

impl<'a> KeyRef<'a> {
    pub(crate) const fn kind(self) -> KeyKind {
        match self {
            Self::Link(_) => KeyKind::Membership,
            Self::Meta(_) | Self::Own(_) => KeyKind::Meta,
        }
    }

    #[cfg(feature = "redis")]
    pub(crate) const fn digest(self) -> &'a Digest {
        match self {
            Self::Link(link) | Self::Own(link) => link.digest,
            Self::Meta(digest) => digest,
        }
    }

    /// Returns the membership, also that of a repository's own object.
    pub(crate) const fn link(self) -> Option<LinkRef<'a>> {
        match self {
            Self::Link(link) | Self::Own(link) => Some(link),
            Self::Meta(_) => None,
        }
    }

    pub(crate) fn to_owned(self) -> Key {
        match self {
            Self::Link(link) => Key::Link(link.to_owned()),
            Self::Meta(digest) => Key::Meta(*digest),
            Self::Own(link) => Key::Own(link.to_owned()),
        }
    }
}

impl<'a> From<&'a Key> for KeyRef<'a> {
    fn from(key: &'a Key) -> Self {
        match key {
            Key::Link(link) => Self::Link(link.into()),
            Key::Meta(digest) => Self::Meta(digest),
            Key::Own(link) => Self::Own(link.into()),
        }
    }
}

/// The name of a key in the messages between nodes. The names are frozen: nodes of all versions
/// must give a key the same name. Keys with the same name are forgotten together.
pub(crate) trait WireName {
    fn wire_name(&self) -> u64;
}

impl WireName for Digest {
    fn wire_name(&self) -> u64 {
        let [first, ..] = self.as_bytes().as_chunks::<8>().0 else {
            return 0;
        };
        match self {
            Self::Sha256(_) => u64::from_le_bytes(*first),
            Self::Sha512(_) => !u64::from_le_bytes(*first),
        }
    }
}

impl WireName for Link {
    fn wire_name(&self) -> u64 {
        LinkRef::from(self).wire_name()
    }
}

impl WireName for LinkRef<'_> {
    fn wire_name(&self) -> u64 {
        // FNV-1a of the kind and the repository, combined with the digest.
        let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        let kind = match self.kind {
            LinkKind::Layer => b'L',
            LinkKind::Manifest => b'M',
        };
        let start = fnv(0xcbf2_9ce4_8422_2325, &kind);
        let repository = self.repository.as_str().as_bytes();
        let hash = repository.iter().fold(start, fnv);
        (hash ^ self.digest.wire_name()).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// A name that was computed before.
impl WireName for u64 {
    fn wire_name(&self) -> u64 {
        *self
    }
}

/// A repository's own object has the name of its membership, so that both are forgotten together.
impl WireName for KeyRef<'_> {
    fn wire_name(&self) -> u64 {
        match self {
            Self::Link(link) | Self::Own(link) => link.wire_name(),
            Self::Meta(digest) => digest.wire_name(),
        }
    }
}

impl WireName for Key {
    fn wire_name(&self) -> u64 {
        KeyRef::from(self).wire_name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_names_are_frozen() {
        let digest = Digest::Sha256([0xab; 32]);
        let name: RepositoryName = "library/alpine".parse().unwrap();
        assert_eq!(Key::Meta(digest).wire_name(), 0xabab_abab_abab_abab);
        let layer = Key::Link(Link::layer(name.clone(), digest)).wire_name();
        let own = Key::Own(Link::layer(name.clone(), digest)).wire_name();
        let manifest = Key::Link(Link::manifest(name, digest)).wire_name();
        let wide = Digest::Sha512([0xab; 64]);
        assert_eq!(Key::Meta(wide).wire_name(), 0x5454_5454_5454_5454);
        assert_eq!(layer, 0x16e4_49bc_01ae_49f7);
        assert_eq!(own, layer, "a repository's object is its membership");
        assert_eq!(manifest, 0x7769_7bcc_fd9f_8a1c);
    }
}
