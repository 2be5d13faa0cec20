//! [`RepositoryName`]: is a text a valid name of a repository?

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The name of a repository, such as `library/alpine`.
///
/// The grammar is that of the [OCI distribution specification], with docker/distribution's limit of
/// 255 bytes. A name consists of path components, joined by `/`. A component consists of runs of
/// lower-case letters and digits, joined by one `.`, one or two `_`, or any number of `-`. So a
/// name is always a safe storage path: it has no `..` and no empty component.
///
/// Cloning only increments a reference count.
///
/// ```
/// use layercache::RepositoryName;
///
/// let name: RepositoryName = "library/alpine".parse()?;
/// assert_eq!(name.as_str(), "library/alpine");
/// assert!(name.as_str().len() <= RepositoryName::MAX_LEN);
///
/// let error = "library/../etc".parse::<RepositoryName>().unwrap_err();
/// assert_eq!(error.to_string(), "invalid repository name: byte 8 may not stand there");
/// # Ok::<(), layercache::RepositoryNameError>(())
/// ```
///
/// [OCI distribution specification]: https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryName(Arc<str>);

/// Why a text is not a [`RepositoryName`]. Positions are bytes from the start of the text.
///
/// ```
/// use layercache::{RepositoryName, RepositoryNameError};
///
/// let error = "Alpine".parse::<RepositoryName>().unwrap_err();
/// assert_eq!(error, RepositoryNameError::Character { at: 0 });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RepositoryNameError {
    /// The text is empty.
    #[error("invalid repository name: it is empty")]
    Empty,
    /// The text is longer than [`RepositoryName::MAX_LEN`].
    #[error("invalid repository name: {len} bytes long, at most {max} allowed", max = RepositoryName::MAX_LEN)]
    TooLong {
        /// The text's length in bytes.
        len: usize,
    },
    /// A character is not allowed, or not allowed at its position.
    #[error("invalid repository name: byte {at} may not stand there")]
    Character {
        /// The position of the character. If the end of the name is missing, the length of the
        /// text.
        at: usize,
    },
}

impl RepositoryName {
    /// The longest name, in bytes.
    pub const MAX_LEN: usize = 255;

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RepositoryName {
    type Err = RepositoryNameError;

    fn from_str(text: &str) -> Result<Self, RepositoryNameError> {
        check(text)?;
        Ok(Self(text.into()))
    }
}

fn check(text: &str) -> Result<(), RepositoryNameError> {
    if text.is_empty() {
        return Err(RepositoryNameError::Empty);
    }
    if text.len() > RepositoryName::MAX_LEN {
        return Err(RepositoryNameError::TooLong { len: text.len() });
    }
    let is_word = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let mut at = 0;
    loop {
        let word = bytes[at..].iter().take_while(|byte| is_word(byte)).count();
        if word == 0 {
            return Err(RepositoryNameError::Character { at });
        }
        at += word;
        at += match &bytes[at..] {
            [] => return Ok(()),
            [b'/' | b'.', ..] => 1,
            [b'_', b'_', ..] => 2,
            [b'_', ..] => 1,
            [b'-', rest @ ..] => 1 + rest.iter().take_while(|byte| **byte == b'-').count(),
            _ => return Err(RepositoryNameError::Character { at }),
        };
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RepositoryName({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn accepts_what_the_grammar_has() {
        for text in [
            "a",
            "0",
            "library/alpine",
            "a.b",
            "a_b",
            "a__b",
            "a-b",
            "a---b",
            "a/b/c/d",
        ] {
            assert_eq!(text.parse::<RepositoryName>().unwrap().as_str(), text);
        }
        assert!("a".repeat(255).parse::<RepositoryName>().is_ok());
    }

    #[test]
    fn says_where_a_text_goes_wrong() {
        for (text, at) in [
            ("/a", 0),
            ("a/", 2),
            ("a//b", 2),
            ("a/../b", 2),
            ("..", 0),
            ("a..b", 2),
            ("a___b", 3),
            ("a._b", 2),
            ("Aa", 0),
            ("aB", 1),
            ("a:b", 1),
            ("a-", 2),
            ("_layers", 0),
            ("é", 0),
            ("a\0", 1),
        ] {
            assert_eq!(
                text.parse::<RepositoryName>(),
                Err(RepositoryNameError::Character { at }),
                "{text:?}"
            );
        }
        assert_eq!(
            "".parse::<RepositoryName>(),
            Err(RepositoryNameError::Empty)
        );
        assert_eq!(
            "a".repeat(256).parse::<RepositoryName>(),
            Err(RepositoryNameError::TooLong { len: 256 })
        );
    }

    proptest! {
        #[test]
        fn the_grammar_is_accepted(text in "[a-z0-9]{1,4}((\\.|_|__|-{1,3}|/)[a-z0-9]{1,4}){0,6}") {
            let name: RepositoryName = text.parse().unwrap();
            prop_assert_eq!(name.as_str(), text);
        }

        #[test]
        fn no_text_panics_and_what_passes_is_a_safe_path(text in "[a-z0-9A-Z./_\\-é]{0,20}") {
            if let Ok(name) = text.parse::<RepositoryName>() {
                prop_assert!(name.as_str().split('/').all(|part| !part.is_empty() && part != ".."));
            }
        }
    }
}
