//! Layouts: which blob or link is at a storage path, and which path does a blob or link have?

mod distribution;
mod oci;
mod template;
mod text;

pub use distribution::Distribution;
pub use oci::OciImages;
pub use template::{Template, TemplateError};
pub use text::{LayoutError, parse};

use crate::types::{Digest, Link};
use object_store::path::Path;
use std::fmt::Debug;
use std::sync::Arc;

/// The meaning of the object at a path.
///
/// ```
/// use layercache::Digest;
/// use layercache::layout::{Distribution, Layout, Meaning};
/// use object_store::path::Path;
///
/// let digest: Digest = format!("sha256:{}", "ab".repeat(32)).parse()?;
/// let link = Path::from(format!(
///     "docker/registry/v2/repositories/library/alpine/_layers/sha256/{}/link",
///     digest.hex(),
/// ));
/// match Distribution::default().meaning(&link) {
///     Some(Meaning::Link(link)) => assert_eq!(link.repository.as_str(), "library/alpine"),
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), layercache::DigestError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Meaning {
    /// The content of a blob, shared by all repositories.
    Blob(Digest),
    /// A small object whose presence is the membership, and whose content is the digest.
    Link(Link),
    /// The content of a blob in one repository. Its presence there is the membership.
    RepositoryBlob(Link),
}

/// How a store lays out its blobs: maps a path to its meaning, and a meaning to its path.
///
/// This crate has three layouts: [`Distribution`], [`OciImages`] and [`Template`]. Other stores,
/// such as a Nix cache, a Bazel content store or Git LFS, can implement their own.
///
/// # Contract
/// The two directions must agree. Otherwise, a change of an object would not reach the facts that
/// came from it:
///
/// - `meaning(&path) == Some(Meaning::Blob(d))` exactly if `blob_path(&d) == Some(path)`;
/// - `meaning(&path)` is `Link(l)` or `RepositoryBlob(l)` exactly if `link_path(&l) == Some(path)`.
///
/// For any other path, `meaning` returns `None`, and the call passes through the cache unchanged.
/// Paths come from outside, so `meaning` must never panic.
///
/// ```
/// use layercache::layout::{Layout, Meaning};
/// use layercache::{Digest, Link};
/// use object_store::path::Path;
///
/// /// Git LFS: `objects/ab/cd/abcd…`
/// #[derive(Debug)]
/// struct GitLfs;
///
/// impl Layout for GitLfs {
///     fn meaning(&self, location: &Path) -> Option<Meaning> {
///         let hex = location.filename()?;
///         let digest: Digest = format!("sha256:{hex}").parse().ok()?;
///         (self.blob_path(&digest)? == *location).then_some(Meaning::Blob(digest))
///     }
///
///     fn blob_path(&self, digest: &Digest) -> Option<Path> {
///         let hex = digest.hex();
///         Some(Path::from(format!("objects/{}/{}/{hex}", &hex[..2], &hex[2..4])))
///     }
///
///     fn link_path(&self, _link: &Link) -> Option<Path> {
///         None
///     }
/// }
///
/// let digest = Digest::Sha256([0xab; 32]);
/// let path = GitLfs.blob_path(&digest).unwrap();
/// assert_eq!(GitLfs.meaning(&path), Some(Meaning::Blob(digest)));
/// assert!(GitLfs.is_blob_path(&digest, path.as_ref()));
/// ```
pub trait Layout: Debug + Send + Sync + 'static {
    /// Returns the meaning of the object at `location`, or `None` if this crate does not cache it.
    fn meaning(&self, location: &Path) -> Option<Meaning>;

    /// Returns the path of a blob's shared content, or `None` if each repository has content of its
    /// own.
    fn blob_path(&self, digest: &Digest) -> Option<Path>;

    /// Returns whether `path` is the [`blob_path`](Self::blob_path) of this blob. The cache calls
    /// this for every blob that Redis answers. Override it if the layout can compare without
    /// building the path.
    fn is_blob_path(&self, digest: &Digest, path: &str) -> bool {
        self.blob_path(digest)
            .is_some_and(|own| own.as_ref() == path)
    }

    /// Returns the path of the object whose presence is this membership, or `None` if the layout
    /// keeps no membership of that kind.
    fn link_path(&self, link: &Link) -> Option<Path>;
}

/// A layout that is chosen at run time.
impl<L: Layout + ?Sized> Layout for Arc<L> {
    fn meaning(&self, location: &Path) -> Option<Meaning> {
        (**self).meaning(location)
    }

    fn blob_path(&self, digest: &Digest) -> Option<Path> {
        (**self).blob_path(digest)
    }

    fn is_blob_path(&self, digest: &Digest, path: &str) -> bool {
        (**self).is_blob_path(digest, path)
    }

    fn link_path(&self, link: &Link) -> Option<Path> {
        (**self).link_path(link)
    }
}

/// Returns the part of `location` after `root` and a `/`.
fn below<'a>(root: &Path, location: &'a Path) -> Option<&'a str> {
    let rest = location.as_ref().strip_prefix(root.as_ref())?;
    if root.as_ref().is_empty() {
        return Some(rest);
    }
    rest.strip_prefix('/')
}

/// Returns the path of `rest` below `root`.
fn above(root: &Path, rest: &str) -> Path {
    let path = match root.as_ref() {
        "" => rest.to_owned(),
        root => format!("{root}/{rest}"),
    };
    // `parse` only checks that nothing needs escaping, which is faster than escaping.
    Path::parse(&path).unwrap_or_else(|_| Path::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(super) fn any_digest() -> impl Strategy<Value = Digest> {
        prop_oneof![
            any::<[u8; 32]>().prop_map(Digest::Sha256),
            prop::collection::vec(any::<u8>(), 64).prop_map(|bytes| {
                let mut hash = [0; 64];
                hash.copy_from_slice(&bytes);
                Digest::Sha512(hash)
            }),
        ]
    }

    pub(super) fn any_link() -> impl Strategy<Value = Link> {
        (
            any::<bool>(),
            "[a-z0-9]{1,4}((\\.|_|__|-|/)[a-z0-9]{1,4}){0,3}",
            any_digest(),
        )
            .prop_map(|(manifest, name, digest)| {
                let name = name.parse().unwrap();
                if manifest {
                    Link::manifest(name, digest)
                } else {
                    Link::layer(name, digest)
                }
            })
    }

    fn layouts() -> Vec<Box<dyn Layout>> {
        vec![
            Box::new(Distribution::default()),
            Box::new(Distribution::new(Path::default())),
            Box::new(OciImages::default()),
            Box::new(OciImages::new(Path::from("zot/data"))),
            Box::new("oci-blobs/{digest}".parse::<Template>().unwrap()),
            Box::new(
                "{algorithm}/{shard}/x{hex}.bin"
                    .parse::<Template>()
                    .unwrap(),
            ),
        ]
    }

    proptest! {
        #[test]
        fn a_meaning_has_one_path_and_a_path_one_meaning(link in any_link(), other in any_digest()) {
            for layout in layouts() {
                if let Some(path) = layout.blob_path(&link.digest) {
                    prop_assert!(layout.is_blob_path(&link.digest, path.as_ref()));
                    prop_assert!(!layout.is_blob_path(&other, path.as_ref()) || other == link.digest);
                    for longer in [format!("{path}/"), format!("/{path}"), format!("{path}a")] {
                        let is_path = layout.is_blob_path(&link.digest, &longer);
                        prop_assert!(!is_path, "{longer}");
                    }
                    prop_assert_eq!(layout.meaning(&path), Some(Meaning::Blob(link.digest)));
                }
                if let Some(path) = layout.link_path(&link) {
                    match layout.meaning(&path) {
                        Some(Meaning::Link(l) | Meaning::RepositoryBlob(l)) => prop_assert_eq!(&l, &link),
                        other => prop_assert!(false, "{layout:?} {path}: {other:?}"),
                    }
                }
            }
        }

        /// A valid path with one character replaced or removed belongs to another object or to
        /// none.
        #[test]
        fn what_is_claimed_is_printed_back(
            link in any_link(), at in any::<prop::sample::Index>(), with in "[a-zA-Z0-9./_:\\-]{0,2}", raw in "[a-f0-9/._]{0,90}",
        ) {
            for layout in layouts() {
                let good = [layout.blob_path(&link.digest), layout.link_path(&link)];
                let mut bent: Vec<_> = good.into_iter().flatten().map(|path| {
                    let mut text = path.to_string();
                    let at = at.index(text.len());
                    text.replace_range(at..=at, &with);
                    text
                }).collect();
                bent.push(raw.clone());
                for text in bent {
                    let Ok(path) = Path::parse(&text) else { continue };
                    match layout.meaning(&path) {
                        None => {}
                        Some(Meaning::Blob(digest)) => prop_assert_eq!(layout.blob_path(&digest), Some(path)),
                        Some(Meaning::Link(link) | Meaning::RepositoryBlob(link)) =>
                            prop_assert_eq!(layout.link_path(&link), Some(path)),
                    }
                }
            }
        }
    }
}
