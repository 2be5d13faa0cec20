//! Is a cached value wrong, given what the storage says? Does no I/O.

use super::finding::Wrong;
use layercache::{Digest, LayerMeta};
use object_store::ObjectMeta;

/// The storage's answer about a membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StoredMembership {
    /// The layout has no place for links of this kind.
    Unknown,
    Absent,
    /// The link exists, but does not hold the digest.
    Broken(String),
    /// The link exists; the blob's content exists or not.
    Linked {
        has_content: bool,
    },
}

/// The storage's description of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) length: u64,
    e_tag: Option<String>,
    version: Option<String>,
}

impl From<ObjectMeta> for Stored {
    fn from(meta: ObjectMeta) -> Self {
        Self {
            length: meta.size,
            e_tag: meta.e_tag,
            version: meta.version,
        }
    }
}

/// Where a blob belongs according to the layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// At this path, whatever path is cached.
    At(String),
    /// At the cached path, which belongs to a repository.
    Cached,
    /// At no path: the cached path is not a place of this blob.
    Nowhere,
}

pub(super) fn of_membership(stored: &StoredMembership) -> Option<Wrong> {
    match stored {
        StoredMembership::Absent => Some(Wrong::StaleMembership),
        StoredMembership::Broken(content) => Some(Wrong::BrokenLink {
            content: content.clone(),
        }),
        StoredMembership::Linked { has_content: false } => Some(Wrong::NoContent),
        StoredMembership::Linked { has_content: true } | StoredMembership::Unknown => None,
    }
}

/// Returns what is wrong with a blob's hash. `path` is the path in the hash, if it has one.
/// `stored` is the storage's description, or `None` if the blob does not exist.
pub(super) fn of_meta(
    cached: &LayerMeta,
    path: Option<&str>,
    place: &Place,
    stored: Option<&Stored>,
) -> Option<Wrong> {
    let named = || path.unwrap_or_default().to_owned();
    let stored = match (place, stored) {
        (Place::Nowhere, _) => {
            return Some(Wrong::WrongPath {
                cached: named(),
                expected: None,
            });
        }
        (_, None) => return Some(Wrong::StaleMeta),
        (_, Some(stored)) => stored,
    };
    if let (Place::At(expected), Some(path)) = (place, path)
        && expected != path
    {
        return Some(Wrong::WrongPath {
            cached: named(),
            expected: Some(expected.clone()),
        });
    }
    if cached.length() != stored.length {
        return Some(Wrong::WrongLength {
            cached: cached.length(),
            stored: stored.length,
        });
    }
    // A field that is missing on one side is no contradiction.
    let differ = |cached: Option<&str>, stored: &Option<String>| match (cached, stored) {
        (Some(cached), Some(stored)) if cached != stored => Some(Wrong::WrongTag {
            cached: cached.to_owned(),
            stored: stored.clone(),
        }),
        _ => None,
    };
    differ(cached.e_tag(), &stored.e_tag).or_else(|| differ(cached.version(), &stored.version))
}

/// Returns whether a blob is in a sample of this share. The digest decides, so every audit takes
/// the same blobs in all repositories, and a larger sample contains every smaller one.
pub(super) fn is_sampled(digest: &Digest, share: f64) -> bool {
    if share >= 1.0 {
        return true;
    }
    let first = digest.as_bytes().first_chunk().copied();
    let at = u64::from_be_bytes(first.unwrap_or_default());
    // An `f64` holds 53 bits exactly.
    ((at >> 11) as f64) < share * (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta() -> LayerMeta {
        LayerMeta::new("a/data", 5).unwrap()
    }

    fn stored(length: u64, e_tag: Option<&str>) -> Stored {
        Stored {
            length,
            e_tag: e_tag.map(str::to_owned),
            version: None,
        }
    }

    fn here() -> Place {
        Place::At("a/data".to_owned())
    }

    #[test]
    fn a_value_that_the_storage_confirms_is_right() {
        for (cached, stored) in [
            (meta(), stored(5, None)),
            (meta(), stored(5, Some("x"))),
            (meta().with_e_tag("x"), stored(5, None)),
            (meta().with_e_tag("x"), stored(5, Some("x"))),
        ] {
            for (path, place) in [
                (Some("a/data"), here()),
                (None, here()),
                (Some("b/data"), Place::Cached),
            ] {
                assert_eq!(of_meta(&cached, path, &place, Some(&stored)), None);
            }
        }
    }

    #[test]
    fn a_value_that_the_storage_does_not_confirm_has_a_name() {
        let tagged = meta().with_e_tag("x");
        let all = stored(5, Some("y"));
        for (cached, path, place, stored, name) in [
            (meta(), None, here(), None, "stale-meta"),
            (meta(), Some("b"), here(), None, "stale-meta"),
            (meta(), Some("b"), here(), Some(&all), "wrong-path"),
            (meta(), Some("b"), Place::Nowhere, None, "wrong-path"),
            (meta(), None, here(), Some(&stored(6, None)), "wrong-length"),
            (tagged, None, here(), Some(&all), "wrong-tag"),
        ] {
            let wrong = of_meta(&cached, path, &place, stored);
            assert_eq!(wrong.map(|wrong| wrong.name()), Some(name));
        }
        let versioned = meta().with_version("1");
        let other = Stored {
            version: Some("2".to_owned()),
            ..stored(5, None)
        };
        let wrong = of_meta(&versioned, None, &here(), Some(&other));
        assert_eq!(wrong.map(|wrong| wrong.name()), Some("wrong-tag"));
    }

    #[test]
    fn memberships_are_judged() {
        for (stored, name) in [
            (StoredMembership::Absent, Some("stale-membership")),
            (
                StoredMembership::Broken("x".to_owned()),
                Some("broken-link"),
            ),
            (
                StoredMembership::Linked { has_content: false },
                Some("no-content"),
            ),
            (StoredMembership::Linked { has_content: true }, None),
            (StoredMembership::Unknown, None),
        ] {
            assert_eq!(of_membership(&stored).map(|wrong| wrong.name()), name);
        }
    }

    #[test]
    fn a_sample_contains_every_smaller_sample() {
        let digest = |i: u64| {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
            Digest::Sha256(hash)
        };
        let sampled = |share: f64| {
            (0..10_000)
                .filter(|i| is_sampled(&digest(*i), share))
                .count()
        };
        assert_eq!((sampled(0.0), sampled(1.0)), (0, 10_000));
        assert!((950..1050).contains(&sampled(0.1)), "{}", sampled(0.1));
        let is_more = |i| !is_sampled(&digest(i), 0.1) || is_sampled(&digest(i), 0.2);
        assert!((0..10_000).all(is_more));
    }
}
