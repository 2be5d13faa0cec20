//! What is a key, by its name?

use layercache::internals::Key;
use layercache::{Digest, DigestError, Link, LinkKind, RepositoryName};

/// What a key is, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyName {
    /// The set of a repository's blobs of one kind.
    Set(LinkKind, RepositoryName),
    /// The metadata of a blob.
    Hash(Key),
    /// The media type that a blob has in a repository, which a Go registry notes.
    MediaType(RepositoryName, Digest),
    /// A lease or a fence, and the repository that it belongs to, if it belongs to one.
    Mark(Option<RepositoryName>),
    /// A name that begins like one of the cache's, and is not one.
    Junk,
    /// A key of another application, or of a kind that a scan does not look at.
    Other,
}

impl KeyName {
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
fn read_hash(rest: &str) -> Result<Key, KeyName> {
    let Some((name, rest)) = rest.split_once("::") else {
        return read_digest(rest).map(Key::Meta);
    };
    let name = name.parse().map_err(|_| KeyName::Junk)?;
    Ok(Key::Own(match rest.strip_prefix("manifests::") {
        Some(digest) => Link::manifest(name, read_digest(digest)?),
        None => Link::layer(name, read_digest(rest)?),
    }))
}

/// Reads a digest. The error says what the key is if the text is no digest.
fn read_digest(text: &str) -> Result<Digest, KeyName> {
    match text.parse::<Digest>() {
        Ok(digest) if digest.to_string() == text => Ok(digest),
        // A Go registry knows one more algorithm.
        Err(DigestError::UnknownAlgorithm { .. }) if is_sha384(text) => Err(KeyName::Other),
        _ => Err(KeyName::Junk),
    }
}

fn is_sha384(text: &str) -> bool {
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.strip_prefix("sha384:")
        .is_some_and(|hex| hex.len() == 96 && hex.bytes().all(is_hex))
}

fn read_repository(rest: &str) -> KeyName {
    let Some((name, rest)) = rest.split_once("::") else {
        return KeyName::Junk;
    };
    let Ok(name) = name.parse() else {
        return KeyName::Junk;
    };
    match rest {
        "blobs" => KeyName::Set(LinkKind::Layer, name),
        "manifests" => KeyName::Set(LinkKind::Manifest, name),
        _ => match rest.strip_prefix("blobs::").map(read_digest) {
            Some(Ok(digest)) => KeyName::MediaType(name, digest),
            Some(Err(other)) => other,
            None => KeyName::Junk,
        },
    }
}

/// Reads the rest of the name of a lease or a fence: `{subject}`, and for a member `::<digest>`
/// after it.
fn read_mark(prefix: &str, rest: &str) -> KeyName {
    let Some((subject, member)) = rest
        .strip_prefix('{')
        .and_then(|rest| rest.rsplit_once('}'))
    else {
        return KeyName::Junk;
    };
    let is_digest = |text: &str| read_digest(text) != Err(KeyName::Junk);
    match KeyName::read(prefix, subject.as_bytes()) {
        KeyName::Hash(key) if member.is_empty() => KeyName::Mark(key.repository().cloned()),
        KeyName::Set(_, name) if member.strip_prefix("::").is_some_and(is_digest) => {
            KeyName::Mark(Some(name))
        }
        _ => KeyName::Junk,
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
                KeyName::Set(LinkKind::Layer, name()),
            ),
            (
                "repository::library/alpine::manifests".to_owned(),
                KeyName::Set(LinkKind::Manifest, name()),
            ),
            (
                format!("blobs::sha256:{HEX}"),
                KeyName::Hash(Key::Meta(digest())),
            ),
            (
                format!("blobs::library/alpine::sha256:{HEX}"),
                KeyName::Hash(Key::Own(Link::layer(name(), digest()))),
            ),
            (
                format!("blobs::library/alpine::manifests::sha256:{HEX}"),
                KeyName::Hash(Key::Own(Link::manifest(name(), digest()))),
            ),
            (
                format!("lease::{{blobs::library/alpine::sha256:{HEX}}}"),
                KeyName::Mark(Some(name())),
            ),
            (
                format!("repository::library/alpine::blobs::sha256:{HEX}"),
                KeyName::MediaType(name(), digest()),
            ),
            (
                format!("lease::{{blobs::sha256:{HEX}}}"),
                KeyName::Mark(None),
            ),
            (
                format!("fence::{{repository::library/alpine::blobs}}::sha256:{HEX}"),
                KeyName::Mark(Some(name())),
            ),
            (format!("blobs::sha384:{long}"), KeyName::Other),
            (
                format!("repository::a::blobs::sha384:{long}"),
                KeyName::Other,
            ),
            ("layercache::{nodes}".to_owned(), KeyName::Other),
            ("session:7".to_owned(), KeyName::Other),
            (String::new(), KeyName::Other),
        ] {
            assert_eq!(KeyName::read("", key.as_bytes()), is, "{key}");
            if is != KeyName::Other {
                assert_eq!(
                    KeyName::read("eu:", key.as_bytes()),
                    KeyName::Other,
                    "{key}"
                );
            }
        }
    }

    #[test]
    fn a_name_that_only_begins_like_a_key_is_junk() {
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
            assert_eq!(KeyName::read("", key.as_bytes()), KeyName::Junk, "{key}");
        }
        assert_eq!(KeyName::read("", b"blobs::\xff"), KeyName::Junk);
        assert_eq!(KeyName::read("", b"other\xff"), KeyName::Other);
    }

    #[test]
    fn the_prefix_also_comes_before_a_subject() {
        let key = format!("eu:lease::{{eu:blobs::sha256:{HEX}}}");
        assert_eq!(KeyName::read("eu:", key.as_bytes()), KeyName::Mark(None));
        let key = format!("eu:lease::{{blobs::sha256:{HEX}}}");
        assert_eq!(KeyName::read("eu:", key.as_bytes()), KeyName::Junk);
    }

    proptest! {
        #[test]
        fn foreign_names_never_panic(key: Vec<u8>, rest in "[a-z:{}0-9/]{0,40}") {
            let _ = KeyName::read("", &key);
            for family in FAMILIES {
                let _ = KeyName::read("", format!("{family}{rest}").as_bytes());
            }
        }
    }
}
