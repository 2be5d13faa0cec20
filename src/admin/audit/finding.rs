//! What is found wrong.

use crate::{Digest, RepositoryName};
use std::fmt;

/// Something in Redis that the storage does not confirm, or that is not what its key says.
///
/// ```
/// use layercache::admin::{Fate, Finding, Wrong};
///
/// /// What somebody has to look after: a client is let in where he must not be, and still is.
/// fn is_urgent(finding: &Finding) -> bool {
///     finding.wrong == Wrong::StaleMembership && finding.fate != Fate::Removed
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The key in Redis, as text.
    pub key: String,
    /// The member of the set that the key is, if it is about one of them.
    pub member: Option<String>,
    /// The repository that it is about, if it is about one.
    pub repository: Option<RepositoryName>,
    /// The blob that it is about, if it is about one.
    pub digest: Option<Digest>,
    /// What is wrong.
    pub wrong: Wrong,
    /// What became of it.
    pub fate: Fate,
}

/// What is wrong with something that is cached.
///
/// ```
/// use layercache::admin::Wrong;
///
/// let wrong = Wrong::WrongLength { cached: 0, stored: 307 };
/// assert_eq!(wrong.name(), "wrong-length");
/// assert_eq!(wrong.to_string(), "cached with 0 bytes, stored with 307");
/// assert!(Wrong::NAMES.contains(&wrong.name()));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wrong {
    /// The repository does not have the blob: there is no link. Who is answered from it is let in where he
    /// must not be.
    StaleMembership,
    /// There is a link, and it does not name the blob.
    BrokenLink {
        /// What it holds, as far as it is text and not too long.
        content: String,
    },
    /// The repository has a link to the blob, and the blob is gone, as after a garbage collection. A client
    /// is told that it need not push what is not there.
    NoContent,
    /// There is no such blob.
    StaleMeta,
    /// The blob has another length.
    WrongLength {
        /// What is cached.
        cached: u64,
        /// What the storage says.
        stored: u64,
    },
    /// The blob is not there, but where the layout says.
    WrongPath {
        /// What is cached.
        cached: String,
        /// Where it is; `None` if no place is named by that.
        expected: Option<String>,
    },
    /// The blob has another entity tag or version: its object was written anew behind the cache's back.
    WrongTag {
        /// What is cached.
        cached: String,
        /// What the storage says.
        stored: String,
    },
    /// The value is nothing that a node or a Go registry writes.
    Broken {
        /// In what way.
        why: &'static str,
    },
    /// Nobody needs it, and it would stay for ever.
    Orphan {
        /// What it is.
        what: &'static str,
    },
}

/// What became of a finding.
///
/// ```
/// use layercache::admin::Fate;
///
/// /// Whether the finding may mislead a client from now on.
/// fn is_over(fate: Fate) -> bool {
///     match fate {
///         Fate::Removed => true,
///         Fate::Left | Fate::Returned => false,
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It was left as it is.
    Left,
    /// It was taken away.
    Removed,
    /// It was taken away, and somebody has cached the same again since.
    Returned,
}

impl Wrong {
    /// The names of all, in their order.
    pub const NAMES: [&'static str; 9] = [
        "stale-membership",
        "broken-link",
        "no-content",
        "stale-meta",
        "wrong-length",
        "wrong-path",
        "wrong-tag",
        "broken-value",
        "orphan",
    ];

    /// A short name for it, which does not change.
    pub const fn name(&self) -> &'static str {
        Self::NAMES[self.place()]
    }

    /// Where its name stands among all.
    pub(super) const fn place(&self) -> usize {
        match self {
            Self::StaleMembership => 0,
            Self::BrokenLink { .. } => 1,
            Self::NoContent => 2,
            Self::StaleMeta => 3,
            Self::WrongLength { .. } => 4,
            Self::WrongPath { .. } => 5,
            Self::WrongTag { .. } => 6,
            Self::Broken { .. } => 7,
            Self::Orphan { .. } => 8,
        }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StaleMembership => f.write_str("the repository has no link to this blob"),
            Self::BrokenLink { content } => {
                write!(f, "the link holds {content:?} and not the digest")
            }
            Self::NoContent => f.write_str("the link is there, and the blob's content is gone"),
            Self::StaleMeta => f.write_str("there is no such blob"),
            Self::WrongLength { cached, stored } => {
                write!(f, "cached with {cached} bytes, stored with {stored}")
            }
            Self::WrongPath {
                cached,
                expected: Some(expected),
            } => write!(f, "cached at {cached:?}, belongs at {expected:?}"),
            Self::WrongPath {
                cached,
                expected: None,
            } => write!(f, "cached at {cached:?}, which is no place of this blob"),
            Self::WrongTag { cached, stored } => {
                write!(f, "cached with the tag {cached:?}, stored with {stored:?}")
            }
            Self::Broken { why } => f.write_str(why),
            Self::Orphan { what } => f.write_str(what),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.wrong.name(), self.key)?;
        if let Some(member) = &self.member {
            write!(f, " {member}")?;
        }
        write!(f, ": {}", self.wrong)?;
        match self.fate {
            Fate::Left => Ok(()),
            Fate::Removed => f.write_str(" (removed)"),
            Fate::Returned => f.write_str(" (removed, and cached again by somebody)"),
        }
    }
}
