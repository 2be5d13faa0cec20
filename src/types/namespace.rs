//! [`Namespace`]: the name that separates several stores that share one Redis or one cache.

use super::Error;

/// A valid name: 1 to 64 letters, digits, `.`, `_` and `-`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Namespace(Box<str>);

/// The error for an invalid name.
#[derive(Debug, thiserror::Error)]
#[error("{given:?} is no name: it has 1 to {LONGEST} letters, digits, `.`, `_` and `-`")]
struct NoName {
    given: String,
}

const LONGEST: usize = 64;

impl Namespace {
    /// Returns the name if it is valid.
    ///
    /// # Errors
    /// [`Error::Setting`] with the name of the setting that has the invalid name.
    pub(crate) fn new(setting: &'static str, name: &str) -> Result<Self, Error> {
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        match (1..=LONGEST).contains(&name.len()) && name.bytes().all(is_good) {
            true => Ok(Self(name.into())),
            false => {
                let given = name.to_owned();
                let source = Box::new(NoName { given });
                Err(Error::Setting { setting, source })
            }
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}
