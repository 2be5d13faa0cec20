//! [`LayerMeta`]: what is known of an object that holds a blob.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

/// Where a blob is and how long it is, and as much as is known of the rest.
///
/// `path` and `length` are the two fields of docker/distribution's `LayerMeta`; the others make it
/// possible to answer an `object_store` `head` without asking the backend. A meta that knows
/// [`last_modified`](Self::last_modified) is *full*: what it lacks then, the object lacks too.
///
/// Cloning is a reference count, and a value is never changed in place.
///
/// ```
/// use layercache::LayerMeta;
///
/// let meta = LayerMeta::new("blobs/sha256/ab/abcd/data", 1024)?.with_e_tag("\"5d41\"");
/// assert_eq!(meta.length(), 1024);
/// assert_eq!(meta.e_tag(), Some("\"5d41\""));
/// assert!(!meta.is_full());
/// # Ok::<(), layercache::LayerMetaError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct LayerMeta(Arc<Fields>);

#[derive(Clone, PartialEq, Eq)]
struct Fields {
    path: Box<str>,
    length: u64,
    e_tag: Option<Box<str>>,
    version: Option<Box<str>>,
    last_modified: Option<SystemTime>,
    attributes: Option<Box<str>>,
}

/// Why a [`LayerMeta`] cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayerMetaError {
    /// The path is empty, which no object's path is.
    #[error("invalid layer meta: the path is empty")]
    EmptyPath,
}

impl LayerMeta {
    /// What is known of the object at `path`, which is `length` bytes long.
    ///
    /// # Errors
    /// An empty `path` is refused.
    pub fn new(path: impl Into<Box<str>>, length: u64) -> Result<Self, LayerMetaError> {
        let path = path.into();
        if path.is_empty() {
            return Err(LayerMetaError::EmptyPath);
        }
        Ok(Self(Arc::new(Fields {
            path,
            length,
            e_tag: None,
            version: None,
            last_modified: None,
            attributes: None,
        })))
    }

    /// Adds the object's entity tag, exactly as the backend writes it.
    #[must_use]
    pub fn with_e_tag(self, e_tag: impl Into<Box<str>>) -> Self {
        self.with(|fields| fields.e_tag = Some(e_tag.into()))
    }

    /// Adds the object's version, exactly as the backend writes it.
    #[must_use]
    pub fn with_version(self, version: impl Into<Box<str>>) -> Self {
        self.with(|fields| fields.version = Some(version.into()))
    }

    /// Adds when the object was written, and says that nothing else is to be known.
    #[must_use]
    pub fn with_last_modified(self, last_modified: SystemTime) -> Self {
        self.with(|fields| fields.last_modified = Some(last_modified))
    }

    /// Adds the object's attributes (its content type and the like), in a form that whoever wrote
    /// them can read back.
    #[must_use]
    pub fn with_attributes(self, attributes: impl Into<Box<str>>) -> Self {
        self.with(|fields| fields.attributes = Some(attributes.into()))
    }

    fn with(mut self, change: impl FnOnce(&mut Fields)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// The object's path in the backend. Never empty.
    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// The object's length in bytes.
    pub fn length(&self) -> u64 {
        self.0.length
    }

    /// The object's entity tag.
    pub fn e_tag(&self) -> Option<&str> {
        self.0.e_tag.as_deref()
    }

    /// The object's version.
    pub fn version(&self) -> Option<&str> {
        self.0.version.as_deref()
    }

    /// When the object was written.
    pub fn last_modified(&self) -> Option<SystemTime> {
        self.0.last_modified
    }

    /// The object's attributes, as [`with_attributes`](Self::with_attributes) received them.
    pub fn attributes(&self) -> Option<&str> {
        self.0.attributes.as_deref()
    }

    /// Whether this is all there is to know, so that a `head` can be answered with it.
    pub fn is_full(&self) -> bool {
        self.0.last_modified.is_some()
    }

    /// The bytes that this value keeps on the heap, about.
    pub(crate) fn heap_size(&self) -> usize {
        let text = |field: &Option<Box<str>>| field.as_deref().map_or(0, str::len);
        size_of::<Fields>()
            + self.0.path.len()
            + text(&self.0.e_tag)
            + text(&self.0.version)
            + text(&self.0.attributes)
    }
}

impl fmt::Debug for LayerMeta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayerMeta")
            .field("path", &self.0.path)
            .field("length", &self.0.length)
            .field("e_tag", &self.0.e_tag)
            .field("version", &self.0.version)
            .field("last_modified", &self.0.last_modified)
            .field("attributes", &self.0.attributes)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
