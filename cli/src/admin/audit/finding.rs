//! What can an audit find, and what becomes of it?

use layercache::{Digest, RepositoryName};
use std::fmt;

/// An entry in Redis that the storage does not confirm, or that does not match its key's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The key in Redis, as text.
    pub key: String,
    /// The member of the set, if the finding is about a member.
    pub member: Option<String>,
    /// The repository, if the finding is about one.
    pub repository: Option<RepositoryName>,
    /// The blob, if the finding is about one.
    pub digest: Option<Digest>,
    /// What is wrong.
    pub wrong: Wrong,
    /// What the audit did about it.
    pub fate: Fate,
}

/// Names what is wrong with a cached entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// The repository has no link to the blob. A node that answers from this entry gives clients
    /// access to a blob that is not in the repository.
    StaleMembership,
    /// The link exists, but does not name the blob.
    BrokenLink {
        /// The link's content, as far as it is text and not too long.
        content: String,
    },
    /// The repository has a link to the blob, but the blob's content is gone, as after a garbage
    /// collection. A node that answers from this entry tells clients that they need not push the
    /// blob.
    NoContent,
    /// The blob does not exist.
    StaleMeta,
    /// The blob has another length.
    WrongLength {
        /// The value in Redis.
        cached: u64,
        /// The value in the storage.
        stored: u64,
    },
    /// The blob is not at the cached path, but at the path that the layout gives it.
    WrongPath {
        /// The path in Redis.
        cached: String,
        /// The blob's path. `None` if the layout has no path of its own for the blob and the cached
        /// path is not a place of this blob.
        expected: Option<String>,
    },
    /// The blob has another entity tag or version: its object was rewritten without the cache's
    /// knowledge.
    WrongTag {
        /// The value in Redis.
        cached: String,
        /// The value in the storage.
        stored: String,
    },
    /// The value has a form that neither a node nor a Go registry writes.
    Broken {
        /// In what way it is broken.
        why: &'static str,
    },
    /// No node needs the key, and it would never expire.
    Orphan {
        /// What the key is.
        what: &'static str,
    },
}

/// Says what the audit did about a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    /// The entry was left as it is.
    Left,
    /// The entry was removed.
    Removed,
    /// The entry was removed, and a node or a Go registry has cached the same again since.
    Returned,
}

impl Wrong {
    /// The names of all kinds, in their order.
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

    /// Returns a short name, which is stable across versions.
    pub const fn name(&self) -> &'static str {
        Self::NAMES[self.place()]
    }

    /// Returns the index of its name.
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
                write!(f, "the link contains {content:?} instead of the digest")
            }
            Self::NoContent => f.write_str("the link exists, and the blob's content does not"),
            Self::StaleMeta => f.write_str("there is no such blob"),
            Self::WrongLength { cached, stored } => {
                write!(f, "cached with {cached} bytes, stored with {stored}")
            }
            Self::WrongPath {
                cached,
                expected: Some(expected),
            } => write!(f, "cached at {cached:?}, but it belongs at {expected:?}"),
            Self::WrongPath {
                cached,
                expected: None,
            } => write!(f, "cached at {cached:?}, which is not a path of this blob"),
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
            Fate::Returned => f.write_str(" (removed, and cached again)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Wrong;

    #[test]
    fn a_finding_has_a_name_and_a_description() {
        let wrong = Wrong::WrongLength {
            cached: 0,
            stored: 307,
        };
        assert_eq!(wrong.name(), "wrong-length");
        assert_eq!(wrong.to_string(), "cached with 0 bytes, stored with 307");
        assert!(Wrong::NAMES.contains(&wrong.name()));
    }
}
