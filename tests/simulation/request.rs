//! [`Request`]: a question or a change that a client sends to a node.

use histories::record::Fact;
use layercache::Freshness;
use std::time::Duration;

/// One request of a client.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Request {
    Stat(u32, u32, Freshness),
    Contains(u32, u32),
    BlobStat(u32),
    Get {
        fact: Fact,
        head: bool,
    },
    StatMany(u32),
    Link(u32, u32),
    PutLink(u32, u32),
    PutBlob(u32),
    Upload(u32),
    Mount(u32, u32),
    Unlink(u32, u32),
    DeleteBlob(u32),
    DeleteObject(Fact),
    DeleteMany(u32),
    /// Signs a URL that creates or deletes an object, and is valid this long.
    Sign(Fact, bool, Duration),
    ClearMemory,
    Purge,
    Warm,
}

impl Request {
    /// Returns whether the request changes objects.
    pub(crate) const fn is_change(self) -> bool {
        matches!(
            self,
            Self::Link(..)
                | Self::PutLink(..)
                | Self::PutBlob(_)
                | Self::Upload(_)
                | Self::Mount(..)
                | Self::Unlink(..)
                | Self::DeleteBlob(_)
                | Self::DeleteObject(_)
                | Self::DeleteMany(_)
        )
    }

    /// Returns whether the request removes objects.
    pub(crate) const fn removes(self) -> bool {
        matches!(
            self,
            Self::Unlink(..) | Self::DeleteBlob(_) | Self::DeleteObject(_) | Self::DeleteMany(_)
        )
    }

    /// Returns a question about the objects that the request changes, if it changes some.
    pub(crate) const fn question(self) -> Option<Self> {
        Some(match self {
            Self::Link(repository, blob)
            | Self::PutLink(repository, blob)
            | Self::Mount(repository, blob)
            | Self::Unlink(repository, blob) => Self::about(Fact::Link(repository, blob)),
            Self::PutBlob(blob) | Self::Upload(blob) | Self::DeleteBlob(blob) => {
                Self::about(Fact::Blob(blob))
            }
            Self::DeleteObject(fact) => Self::about(fact),
            Self::DeleteMany(repository) => Self::StatMany(repository),
            _ => return None,
        })
    }

    /// Returns a question about a fact.
    pub(crate) const fn about(fact: Fact) -> Self {
        match fact {
            Fact::Link(repository, blob) => Self::Stat(repository, blob, Freshness::Cached),
            Fact::Blob(blob) => Self::BlobStat(blob),
        }
    }

    /// Returns the blob that the request is about, if it is about one.
    pub(crate) const fn blob(self) -> Option<u32> {
        match self {
            Self::Stat(_, blob, _)
            | Self::Contains(_, blob)
            | Self::BlobStat(blob)
            | Self::Link(_, blob)
            | Self::PutLink(_, blob)
            | Self::PutBlob(blob)
            | Self::Upload(blob)
            | Self::Mount(_, blob)
            | Self::Unlink(_, blob)
            | Self::DeleteBlob(blob) => Some(blob),
            Self::Get { fact, .. } | Self::DeleteObject(fact) | Self::Sign(fact, ..) => {
                match fact {
                    Fact::Blob(blob) | Fact::Link(_, blob) => Some(blob),
                }
            }
            Self::StatMany(_)
            | Self::DeleteMany(_)
            | Self::ClearMemory
            | Self::Purge
            | Self::Warm => None,
        }
    }
}
