//! Where can an audit resume?

use crc::{CRC_32_ISCSI, Crc};
use std::fmt;
use std::str::FromStr;

/// Marks the part of Redis that an audit has done. Store it as text and pass it to
/// [`Audit::resume_after`](super::Audit::resume_after).
///
/// A position is valid for the same servers as long as they run. If a server was restarted or
/// replaced, the audit starts again at the first key of that server. If a cluster has redistributed
/// its slots, the audit starts again at the first key of all servers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_copy_implementations, reason = "it may get more fields")]
pub struct AuditPosition {
    /// Checksum of how the servers share the keys.
    pub(super) share: u32,
    /// Index of the server.
    pub(super) shard: u32,
    /// Checksum of the server's identity, which changes with a restart; 0 matches any.
    pub(super) life: u32,
    /// The `SCAN` cursor of the next page of keys, or of the page that is half done.
    pub(super) cursor: u64,
    /// How much of the sets of that page is done.
    pub(super) sets: Option<Within>,
}

/// How much of a page's sets is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Within {
    /// Number of sets that are done, in the order of their names.
    pub(super) done: u32,
    /// Checksum of the names of the sets that are done, and of the set that is begun, if there is
    /// one.
    pub(super) names: u32,
    /// The cursor of the next page of the set that is begun.
    pub(super) cursor: u64,
}

/// The error for a text that is not a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a position of an audit; an interrupted audit prints its position")]
pub struct AuditPositionError;

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// Returns a checksum of some texts. It is never 0, because 0 means "none".
pub(super) fn sum<'a>(texts: impl IntoIterator<Item = &'a str>) -> u32 {
    let mut sum = CRC.digest();
    for text in texts {
        sum.update(text.as_bytes());
        sum.update(b"\n");
    }
    sum.finalize().max(1)
}

impl fmt::Display for AuditPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            share,
            shard,
            life,
            cursor,
            sets,
        } = self;
        write!(f, "{share:x}.{shard}.{life:x}.{cursor}")?;
        match sets {
            Some(Within {
                done,
                names,
                cursor,
            }) => write!(f, ".{done}.{names:x}.{cursor}"),
            None => Ok(()),
        }
    }
}

impl FromStr for AuditPosition {
    type Err = AuditPositionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let parts: Vec<_> = text.split('.').collect();
            let hex = |text| u32::from_str_radix(text, 16).ok();
            let (&[share, shard, life, cursor], within) = parts.split_first_chunk()?;
            let sets = match within {
                [] => None,
                [done, names, cursor] => Some(Within {
                    done: done.parse().ok()?,
                    names: hex(names)?,
                    cursor: cursor.parse().ok()?,
                }),
                _ => return None,
            };
            Some(Self {
                share: hex(share)?,
                shard: shard.parse().ok()?,
                life: hex(life)?,
                cursor: cursor.parse().ok()?,
                sets,
            })
        };
        read().ok_or(AuditPositionError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_position_has_a_stable_text() {
        let position: AuditPosition = "0.0.5d8a4bd1.6912".parse().unwrap();
        assert_eq!(position.to_string(), "0.0.5d8a4bd1.6912");
        assert_eq!(
            "yesterday".parse::<AuditPosition>(),
            Err(AuditPositionError)
        );
    }

    proptest! {
        #[test]
        fn a_printed_position_is_parsed(
            numbers: [u32; 3], cursor: u64, sets in prop::option::of((any::<u32>(), any::<u32>(), any::<u64>())),
        ) {
            let [share, shard, life] = numbers;
            let sets = sets.map(|(done, names, cursor)| Within { done, names, cursor });
            let position = AuditPosition { share, shard, life, cursor, sets };
            prop_assert_eq!(position.to_string().parse(), Ok(position));
        }

        #[test]
        fn foreign_texts_never_panic(text: String, close in "[0-9a-f.]{0,30}") {
            let _ = text.parse::<AuditPosition>();
            let _ = close.parse::<AuditPosition>();
        }
    }
}
