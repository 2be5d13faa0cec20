//! What a key is, by its name, and what can be wrong with it.

use crate::cache::redis::tier::keys::Keys;
use crate::types::link::Key;
use crate::types::{Digest, DigestError, Link, LinkKind, RepositoryName};
use std::borrow::Cow;

/// What a key is, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Name {
    /// The set of a repository's blobs of one kind.
    Set(LinkKind, RepositoryName),
    /// The metadata of a blob.
    Hash(Key),
    /// The media type that a blob has in a repository, which a Go registry notes.
    MediaType(RepositoryName, Digest),
    /// A lease or a fence, and the repository that it belongs to, if it belongs to one.
    Mark(Option<RepositoryName>),
    /// A name that begins like one of ours, and is not one.
    Junk,
    /// A key of another application, or of a kind that a scan does not look at.
    Other,
}

/// One thing in Redis that may have to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    /// A membership.
    Member(Link),
    /// The metadata of a blob.
    Meta(Key, super::Held),
    /// A media type of a Go registry whose membership is missing.
    MediaType(RepositoryName, Digest),
    /// A member of a set that is not a digest.
    OddMember(LinkKind, RepositoryName, Vec<u8>),
    /// A key that does not have the type that its name says.
    OddType(Vec<u8>, &'static str),
    /// A lease or a fence that never expires.
    Forever(Vec<u8>),
    /// A key with a name that is almost one of ours.
    Junk(Vec<u8>),
}

/// Bytes from outside as text.
#[derive(Debug)]
pub(crate) struct Text;

impl Text {
    /// Returns the bytes as text. Bytes that are not UTF-8 show as replacement characters.
    pub(crate) fn of(bytes: &[u8]) -> Cow<'_, str> {
        String::from_utf8_lossy(bytes)
    }
}

impl Name {
    /// Reads the name of a key. A key with another prefix is [`Other`](Self::Other).
    pub(crate) fn read(prefix: &str, key: &[u8]) -> Self {
        let Some(name) = key.strip_prefix(prefix.as_bytes()) else {
            return Self::Other;
        };
        let Ok(name) = std::str::from_utf8(name) else {
            let begins = |family: &str| name.starts_with(family.as_bytes());
            return match FAMILIES.into_iter().any(begins) {
                true => Self::Junk,
                false => Self::Other,
            };
        };
        if let Some(rest) = name.strip_prefix("blobs::") {
            return read_hash(rest).map_or_else(|other| other, Self::Hash);
        }
        if let Some(rest) = name.strip_prefix("repository::") {
            return read_repository(rest);
        }
        match name
            .strip_prefix("lease::")
            .or(name.strip_prefix("fence::"))
        {
            Some(rest) => read_mark(prefix, rest),
            None => Self::Other,
        }
    }

    /// Reads a member of a set. A digest is a [`Hash`](Self::Hash).
    pub(crate) fn member(text: &str) -> Self {
        read_digest(text).map_or_else(|other| other, |digest| Self::Hash(Key::Meta(digest)))
    }

    /// Returns the repository that the key belongs to, if it belongs to one.
    pub(crate) const fn repository(&self) -> Option<&RepositoryName> {
        match self {
            Self::Set(_, name) | Self::MediaType(name, _) | Self::Mark(Some(name)) => Some(name),
            Self::Hash(key) => key.repository(),
            Self::Mark(None) | Self::Junk | Self::Other => None,
        }
    }
}

const FAMILIES: [&str; 4] = ["blobs::", "repository::", "lease::", "fence::"];

/// Reads the rest of a hash's name: `<digest>`, or for a repository's own object
/// `<name>::<digest>` or `<name>::manifests::<digest>`.
fn read_hash(rest: &str) -> Result<Key, Name> {
    let Some((name, rest)) = rest.split_once("::") else {
        return read_digest(rest).map(Key::Meta);
    };
    let name = name.parse().map_err(|_| Name::Junk)?;
    Ok(Key::Own(match rest.strip_prefix("manifests::") {
        Some(digest) => Link::manifest(name, read_digest(digest)?),
        None => Link::layer(name, read_digest(rest)?),
    }))
}

/// Reads a digest. The error says what the key is if the text is no digest.
fn read_digest(text: &str) -> Result<Digest, Name> {
    match text.parse::<Digest>() {
        Ok(digest) if digest.to_string() == text => Ok(digest),
        // A Go registry knows one more algorithm.
        Err(DigestError::UnknownAlgorithm { .. }) if is_sha384(text) => Err(Name::Other),
        _ => Err(Name::Junk),
    }
}

fn is_sha384(text: &str) -> bool {
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.strip_prefix("sha384:")
        .is_some_and(|hex| hex.len() == 96 && hex.bytes().all(is_hex))
}

fn read_repository(rest: &str) -> Name {
    let Some((name, rest)) = rest.split_once("::") else {
        return Name::Junk;
    };
    let Ok(name) = name.parse() else {
        return Name::Junk;
    };
    match rest {
        "blobs" => Name::Set(LinkKind::Layer, name),
        "manifests" => Name::Set(LinkKind::Manifest, name),
        _ => match rest.strip_prefix("blobs::").map(read_digest) {
            Some(Ok(digest)) => Name::MediaType(name, digest),
            Some(Err(other)) => other,
            None => Name::Junk,
        },
    }
}

/// Reads the rest of the name of a lease or a fence: `{subject}`, and for a member `::<digest>`
/// after it.
fn read_mark(prefix: &str, rest: &str) -> Name {
    let Some((subject, member)) = rest
        .strip_prefix('{')
        .and_then(|rest| rest.rsplit_once('}'))
    else {
        return Name::Junk;
    };
    let is_digest = |text: &str| read_digest(text) != Err(Name::Junk);
    match Name::read(prefix, subject.as_bytes()) {
        Name::Hash(key) if member.is_empty() => Name::Mark(key.repository().cloned()),
        Name::Set(_, name) if member.strip_prefix("::").is_some_and(is_digest) => {
            Name::Mark(Some(name))
        }
        _ => Name::Junk,
    }
}

impl Subject {
    /// Returns the key of the subject, or the key that contains it.
    pub(crate) fn key(&self, keys: &Keys) -> String {
        match self {
            Self::Member(link) => keys.set_of(link.kind, &link.repository),
            Self::Meta(key, _) => keys.subject(key.into()),
            Self::MediaType(repository, digest) => keys.media_type(repository, digest),
            Self::OddMember(kind, repository, _) => keys.set_of(*kind, repository),
            Self::OddType(key, _) | Self::Forever(key) | Self::Junk(key) => {
                Text::of(key).into_owned()
            }
        }
    }

    /// Returns the fact that the subject is, if it is one. Nodes may have a fact in memory, so it
    /// is removed with the delete protocol.
    pub(crate) fn fact(&self) -> Option<Key> {
        match self {
            Self::Member(link) => Some(Key::Link(link.clone())),
            Self::Meta(key, _) => Some(key.clone()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "abababababababababababababababababababababababababababababababab";

    fn digest() -> Digest {
        Digest::Sha256([0xab; 32])
    }

    fn name() -> RepositoryName {
        "library/alpine".parse().unwrap()
    }

    #[test]
    fn names_are_read() {
        let long = "ab".repeat(48);
        for (key, is) in [
            (
                "repository::library/alpine::blobs".to_owned(),
                Name::Set(LinkKind::Layer, name()),
            ),
            (
                "repository::library/alpine::manifests".to_owned(),
                Name::Set(LinkKind::Manifest, name()),
            ),
            (
                format!("blobs::sha256:{HEX}"),
                Name::Hash(Key::Meta(digest())),
            ),
            (
                format!("blobs::library/alpine::sha256:{HEX}"),
                Name::Hash(Key::Own(Link::layer(name(), digest()))),
            ),
            (
                format!("blobs::library/alpine::manifests::sha256:{HEX}"),
                Name::Hash(Key::Own(Link::manifest(name(), digest()))),
            ),
            (
                format!("lease::{{blobs::library/alpine::sha256:{HEX}}}"),
                Name::Mark(Some(name())),
            ),
            (
                format!("repository::library/alpine::blobs::sha256:{HEX}"),
                Name::MediaType(name(), digest()),
            ),
            (format!("lease::{{blobs::sha256:{HEX}}}"), Name::Mark(None)),
            (
                format!("fence::{{repository::library/alpine::blobs}}::sha256:{HEX}"),
                Name::Mark(Some(name())),
            ),
            (format!("blobs::sha384:{long}"), Name::Other),
            (format!("repository::a::blobs::sha384:{long}"), Name::Other),
            ("layercache::{nodes}".to_owned(), Name::Other),
            ("session:7".to_owned(), Name::Other),
            (String::new(), Name::Other),
        ] {
            assert_eq!(Name::read("", key.as_bytes()), is, "{key}");
            if is != Name::Other {
                assert_eq!(Name::read("eu:", key.as_bytes()), Name::Other, "{key}");
            }
        }
    }

    #[test]
    fn what_is_almost_a_name_is_junk() {
        for key in [
            "blobs::".to_owned(),
            "blobs::sha256:ab".to_owned(),
            "blobs::a::sha256:ab".to_owned(),
            format!("blobs::A::sha256:{HEX}"),
            format!("blobs::a::other::sha256:{HEX}"),
            format!("blobs::sha256:{}", HEX.to_uppercase()),
            format!("blobs::md5:{HEX}"),
            "repository::A::blobs".to_owned(),
            "repository::a".to_owned(),
            "repository::a::other".to_owned(),
            "repository::a::manifests::x".to_owned(),
            format!("repository::::blobs::sha256:{HEX}"),
            "lease::x".to_owned(),
            "lease::{blobs::x}".to_owned(),
            format!("fence::{{blobs::sha256:{HEX}}}::sha256:{HEX}"),
            "fence::{repository::a::blobs}".to_owned(),
        ] {
            assert_eq!(Name::read("", key.as_bytes()), Name::Junk, "{key}");
        }
        assert_eq!(Name::read("", b"blobs::\xff"), Name::Junk);
        assert_eq!(Name::read("", b"other\xff"), Name::Other);
    }

    #[test]
    fn a_prefix_comes_before_a_subject_too() {
        let key = format!("eu:lease::{{eu:blobs::sha256:{HEX}}}");
        assert_eq!(Name::read("eu:", key.as_bytes()), Name::Mark(None));
        let key = format!("eu:lease::{{blobs::sha256:{HEX}}}");
        assert_eq!(Name::read("eu:", key.as_bytes()), Name::Junk);
    }

    proptest! {
        #[test]
        fn foreign_names_never_panic(key: Vec<u8>, rest in "[a-z:{}0-9/]{0,40}") {
            let _ = Name::read("", &key);
            for family in FAMILIES {
                let _ = Name::read("", format!("{family}{rest}").as_bytes());
            }
        }
    }
}
