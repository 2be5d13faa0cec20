//! Parses the path of a request into the resource that it names.

use crate::error::Error;
use layercache::{Digest, RepositoryName};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

#[derive(Debug)]
pub enum Route {
    Blob(RepositoryName, Digest),
    Uploads(RepositoryName),
    Upload(RepositoryName, Uuid),
    Manifest(RepositoryName, Reference),
    Tags(RepositoryName),
    Referrers(RepositoryName, Digest),
}

impl FromStr for Route {
    type Err = Error;

    /// Parses the text after `/v2/`. A name may hold slashes and words such as `blobs`, so the text
    /// is parsed from the right.
    fn from_str(path: &str) -> Result<Self, Error> {
        let (rest, last) = path.rsplit_once('/').ok_or(Error::NoSuchEndpoint)?;
        let (name, word) = rest.rsplit_once('/').ok_or(Error::NoSuchEndpoint)?;
        Ok(match (word, last) {
            ("tags", "list") => Self::Tags(name.parse()?),
            ("manifests", reference) => Self::Manifest(name.parse()?, reference.parse()?),
            ("referrers", digest) => Self::Referrers(name.parse()?, digest.parse()?),
            ("blobs", "uploads") => Self::Uploads(name.parse()?),
            ("blobs", digest) => Self::Blob(name.parse()?, digest.parse()?),
            ("uploads", id) => {
                let name = name.strip_suffix("/blobs").ok_or(Error::NoSuchEndpoint)?;
                match id {
                    "" => Self::Uploads(name.parse()?),
                    id => {
                        Self::Upload(name.parse()?, id.parse().map_err(|_| Error::UploadUnknown)?)
                    }
                }
            }
            _ => return Err(Error::NoSuchEndpoint),
        })
    }
}

/// How a request names a manifest.
#[derive(Debug)]
pub enum Reference {
    Tag(Tag),
    Digest(Digest),
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.contains(':') {
            return Ok(Self::Digest(text.parse()?));
        }
        Ok(Self::Tag(text.parse()?))
    }
}

/// A tag. It is always safe as a part of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag(String);

impl FromStr for Tag {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let is_inner = |byte: &u8| is_word(byte) || matches!(byte, b'.' | b'-');
        match text.as_bytes() {
            [first, rest @ ..]
                if is_word(first) && rest.len() < 128 && rest.iter().all(is_inner) =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => Err(Error::TagInvalid),
        }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(path: &str) -> String {
        match path.parse() {
            Ok(Route::Blob(name, _)) => format!("blob of {name}"),
            Ok(Route::Uploads(name)) => format!("uploads of {name}"),
            Ok(Route::Upload(name, _)) => format!("upload of {name}"),
            Ok(Route::Manifest(name, Reference::Tag(tag))) => format!("{tag} of {name}"),
            Ok(Route::Manifest(name, Reference::Digest(_))) => format!("manifest of {name}"),
            Ok(Route::Tags(name)) => format!("tags of {name}"),
            Ok(Route::Referrers(name, _)) => format!("referrers of {name}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn paths_are_parsed_from_the_right() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let id = Uuid::nil();
        for (path, meaning) in [
            (format!("a/b/blobs/{digest}"), "blob of a/b"),
            (format!("a/blobs/blobs/{digest}"), "blob of a/blobs"),
            ("a/b/blobs/uploads/".to_owned(), "uploads of a/b"),
            ("a/b/blobs/uploads".to_owned(), "uploads of a/b"),
            (format!("a/blobs/uploads/{id}"), "upload of a"),
            ("a/manifests/latest".to_owned(), "latest of a"),
            ("a/tags/manifests/list".to_owned(), "list of a/tags"),
            (format!("a/b/c/manifests/{digest}"), "manifest of a/b/c"),
            ("a/manifests/tags/list".to_owned(), "tags of a/manifests"),
            (format!("a/referrers/{digest}"), "referrers of a"),
            (
                "a/blobs/uploads/1".to_owned(),
                "blob upload unknown to registry",
            ),
            (format!("a/uploads/{id}"), "no such endpoint"),
            ("a".to_owned(), "no such endpoint"),
            (
                "a/../manifests/x".to_owned(),
                "invalid repository name: byte 2 may not stand there",
            ),
            ("a/manifests/..".to_owned(), "invalid tag"),
            ("a/manifests/".to_owned(), "invalid tag"),
        ] {
            assert_eq!(route(&path), meaning, "{path}");
        }
    }
}
