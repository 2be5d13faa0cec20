//! [`LayerMeta`]: where is a blob's object, how long is it, and which other metadata does it have?

use crate::types::netstring;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The path and the length of a blob's object, and further metadata if it is known.
///
/// `path` and `length` are the two fields of docker/distribution's `LayerMeta`. With the other
/// fields, the cache can answer an `object_store` `head` without the backend. A meta with a
/// [`last_modified`](Self::last_modified) is *full*: if it lacks another field, the object lacks
/// that field too.
///
/// Cloning only increments a reference count. A value never changes in place. It is one pointer to
/// two allocations, which take about 60 bytes together, plus the texts.
///
/// ```
/// use layercache::LayerMeta;
/// use std::time::SystemTime;
///
/// let meta = LayerMeta::new("blobs/sha256/ab/abcd/data", 1024)?.with_e_tag("\"5d41\"");
/// assert_eq!(meta.length(), 1024);
/// assert_eq!(meta.e_tag(), Some("\"5d41\""));
/// assert!(!meta.is_full());
///
/// let full = meta.with_version("7").with_attributes("…").with_last_modified(SystemTime::UNIX_EPOCH);
/// assert!(full.is_full());
/// assert_eq!((full.path(), full.version()), ("blobs/sha256/ab/abcd/data", Some("7")));
/// assert_eq!(full.last_modified(), Some(SystemTime::UNIX_EPOCH));
/// assert_eq!(full.attributes(), Some("…"));
/// # Ok::<(), layercache::LayerMetaError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct LayerMeta(Arc<CompactFields>);

/// The fields in a compact form, because memory keeps one for each blob.
#[derive(Clone, PartialEq, Eq)]
struct CompactFields {
    length: u64,
    /// Nanoseconds since the epoch, or [`UNKNOWN`].
    last_modified: i64,
    /// Path, entity tag, version and attributes. Each is a netstring, or [`ABSENT`] if it is
    /// missing.
    texts: Box<str>,
}

const UNKNOWN: i64 = i64::MIN;
const ABSENT: char = '-';

/// All fields of a [`LayerMeta`], to create it in one step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parts<'a> {
    pub(crate) path: &'a str,
    pub(crate) length: u64,
    pub(crate) e_tag: Option<&'a str>,
    pub(crate) version: Option<&'a str>,
    pub(crate) last_modified: Option<SystemTime>,
    pub(crate) attributes: Option<&'a str>,
}

/// Why a [`LayerMeta`] cannot be created.
///
/// ```
/// use layercache::{LayerMeta, LayerMetaError};
///
/// assert_eq!(LayerMeta::new("", 7), Err(LayerMetaError::EmptyPath));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayerMetaError {
    /// The path is empty. No object has an empty path.
    #[error("invalid layer meta: the path is empty")]
    EmptyPath,
}

impl LayerMeta {
    /// Creates the metadata of the object at `path`, which is `length` bytes long.
    ///
    /// # Errors
    /// Fails if `path` is empty.
    pub fn new(path: impl Into<Box<str>>, length: u64) -> Result<Self, LayerMetaError> {
        let path: Box<str> = path.into();
        Self::from_parts(Parts {
            path: &path,
            length,
            e_tag: None,
            version: None,
            last_modified: None,
            attributes: None,
        })
    }

    /// Creates a value from its fields. Allocates twice.
    pub(crate) fn from_parts(parts: Parts<'_>) -> Result<Self, LayerMetaError> {
        if parts.path.is_empty() {
            return Err(LayerMetaError::EmptyPath);
        }
        Ok(Self::of(parts))
    }

    fn of(parts: Parts<'_>) -> Self {
        let Parts {
            path,
            length,
            e_tag,
            version,
            last_modified,
            attributes,
        } = parts;
        let fields = [Some(path), e_tag, version, attributes];
        let len = fields.iter().flatten().map(|text| text.len() + 6).sum();
        let mut texts = String::with_capacity(len);
        for field in fields {
            match field {
                Some(text) => netstring::push(&mut texts, text),
                None => texts.push(ABSENT),
            }
        }
        Self(Arc::new(CompactFields {
            length,
            last_modified: last_modified.and_then(nanos).unwrap_or(UNKNOWN),
            texts: texts.into_boxed_str(),
        }))
    }

    pub(crate) fn parts(&self) -> Parts<'_> {
        let mut texts = &*self.0.texts;
        let mut next = || match texts.strip_prefix(ABSENT) {
            Some(rest) => {
                texts = rest;
                None
            }
            None => netstring::pop(&mut texts),
        };
        Parts {
            path: next().unwrap_or_default(),
            length: self.0.length,
            e_tag: next(),
            version: next(),
            last_modified: self.last_modified(),
            attributes: next(),
        }
    }

    /// Adds the object's entity tag, exactly as the backend writes it.
    #[must_use]
    pub fn with_e_tag(self, e_tag: impl Into<Box<str>>) -> Self {
        let e_tag: Box<str> = e_tag.into();
        Self::of(Parts {
            e_tag: Some(&e_tag),
            ..self.parts()
        })
    }

    /// Adds the object's version, exactly as the backend writes it.
    #[must_use]
    pub fn with_version(self, version: impl Into<Box<str>>) -> Self {
        let version: Box<str> = version.into();
        Self::of(Parts {
            version: Some(&version),
            ..self.parts()
        })
    }

    /// Adds the time when the object was written, and so makes the meta full. A time before 1677 or
    /// after 2262 is not kept, because it does not fit a 64-bit number of nanoseconds since the
    /// epoch.
    #[must_use]
    pub fn with_last_modified(self, last_modified: SystemTime) -> Self {
        Self::of(Parts {
            last_modified: Some(last_modified),
            ..self.parts()
        })
    }

    /// Adds the object's attributes, such as its content type, in a form that their writer can read
    /// back.
    #[must_use]
    pub fn with_attributes(self, attributes: impl Into<Box<str>>) -> Self {
        let attributes: Box<str> = attributes.into();
        Self::of(Parts {
            attributes: Some(&attributes),
            ..self.parts()
        })
    }

    /// Returns the object's path in the backend. It is never empty.
    pub fn path(&self) -> &str {
        self.parts().path
    }

    /// Returns the object's length in bytes.
    pub fn length(&self) -> u64 {
        self.0.length
    }

    /// Returns the object's entity tag.
    pub fn e_tag(&self) -> Option<&str> {
        self.parts().e_tag
    }

    /// Returns the object's version.
    pub fn version(&self) -> Option<&str> {
        self.parts().version
    }

    /// Returns the time when the object was written.
    pub fn last_modified(&self) -> Option<SystemTime> {
        let nanos = self.0.last_modified;
        let distance = Duration::from_nanos(nanos.unsigned_abs());
        match nanos {
            UNKNOWN => None,
            0.. => UNIX_EPOCH.checked_add(distance),
            _ => UNIX_EPOCH.checked_sub(distance),
        }
    }

    /// Returns the object's attributes, as [`with_attributes`](Self::with_attributes) received
    /// them.
    pub fn attributes(&self) -> Option<&str> {
        self.parts().attributes
    }

    /// Returns whether all metadata of the object is known, so that the cache can answer a `head`.
    pub fn is_full(&self) -> bool {
        self.0.last_modified != UNKNOWN
    }

    /// Returns a copy in allocations of its own. Threads that clone one value share its reference
    /// count, and wait for each other.
    pub(crate) fn apart(&self) -> Self {
        Self(Arc::new(CompactFields::clone(&self.0)))
    }

    /// Returns the approximate number of bytes that this value takes on the heap.
    pub(crate) fn heap_size(&self) -> usize {
        size_of::<CompactFields>() + 2 * size_of::<usize>() + self.0.texts.len()
    }
}

fn nanos(at: SystemTime) -> Option<i64> {
    match at.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).ok(),
        Err(before) => {
            let nanos = i64::try_from(before.duration().as_nanos()).ok()?;
            Some(-nanos)
        }
    }
}

impl fmt::Debug for LayerMeta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts {
            path,
            length,
            e_tag,
            version,
            last_modified,
            attributes,
        } = self.parts();
        f.debug_struct("LayerMeta")
            .field("path", &path)
            .field("length", &length)
            .field("e_tag", &e_tag)
            .field("version", &version)
            .field("last_modified", &last_modified)
            .field("attributes", &attributes)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_path_is_refused() {
        assert_eq!(LayerMeta::new("", 1), Err(LayerMetaError::EmptyPath));
    }

    #[test]
    fn adding_to_a_clone_leaves_the_original() {
        let meta = LayerMeta::new("a", 1).unwrap();
        let full = meta.clone().with_last_modified(SystemTime::UNIX_EPOCH);
        assert!(full.is_full());
        assert!(!meta.is_full());
    }

    #[test]
    fn times_before_the_epoch_are_kept_and_those_out_of_range_are_not() {
        let meta = LayerMeta::new("a", 1).unwrap();
        let second = Duration::from_secs(1);
        for at in [UNIX_EPOCH - second, UNIX_EPOCH, UNIX_EPOCH + second] {
            let full = meta.clone().with_last_modified(at);
            assert_eq!(full.last_modified(), Some(at));
        }
        let years = second * 3600 * 24 * 366 * 300;
        for at in [UNIX_EPOCH - years, UNIX_EPOCH + years] {
            assert!(!meta.clone().with_last_modified(at).is_full());
        }
    }

    proptest! {
        #[test]
        fn what_is_put_in_comes_out(
            path in "\\PC+", length: u64, nanos: i64,
            e_tag: Option<String>, version: Option<String>, attributes: Option<String>,
        ) {
            let after = Duration::from_nanos(nanos.unsigned_abs());
            let parts = Parts {
                path: &path,
                length,
                e_tag: e_tag.as_deref(),
                version: version.as_deref(),
                last_modified: Some(UNIX_EPOCH + after).filter(|_| nanos >= 0),
                attributes: attributes.as_deref(),
            };
            let meta = LayerMeta::from_parts(parts).unwrap();
            prop_assert_eq!(meta.path(), &path);
            prop_assert_eq!(meta.length(), length);
            prop_assert_eq!(meta.e_tag(), parts.e_tag);
            prop_assert_eq!(meta.version(), parts.version);
            prop_assert_eq!(meta.last_modified(), parts.last_modified);
            prop_assert_eq!(meta.attributes(), parts.attributes);
        }
    }
}
