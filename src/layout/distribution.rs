//! [`Distribution`]: which blob or link is at a path of docker/distribution's storage?

use super::{Layout, Meaning, above, below};
use crate::types::{Digest, Link, LinkKind, RepositoryName};
use object_store::path::Path;

/// The layout of docker/distribution, the Go registry. All repositories share the content of blobs,
/// and each membership is a small link object.
///
/// ```text
/// docker/registry/v2/blobs/sha256/ab/abcd…/data
/// docker/registry/v2/repositories/<name>/_layers/sha256/<hex>/link
/// docker/registry/v2/repositories/<name>/_manifests/revisions/sha256/<hex>/link
/// ```
///
/// The paths are those of [`registry/storage/paths.go`]. Tags, uploads and all other paths have no
/// meaning in this layout. A link whose content is another digest than that of its path is not a
/// membership for this crate. The Go registry writes such a link when a client names a blob by an
/// algorithm other than SHA-256.
///
/// [`registry/storage/paths.go`]: https://github.com/distribution/distribution/blob/main/registry/storage/paths.go
///
/// ```
/// use layercache::layout::{Distribution, Layout, Meaning};
/// use layercache::{Digest, Link};
/// use object_store::path::Path;
///
/// let digest: Digest = format!("sha256:{}", "ab".repeat(32)).parse()?;
/// let layout = Distribution::default();
/// let path = layout.blob_path(&digest).unwrap();
/// assert!(path.as_ref().starts_with("docker/registry/v2/blobs/sha256/ab/abab"));
/// assert_eq!(layout.meaning(&path), Some(Meaning::Blob(digest)));
///
/// // Below another root.
/// let layout = Distribution::new(Path::from("registry"));
/// let name = "library/alpine".parse()?;
/// assert_eq!(layout.repositories_path().as_ref(), "registry/repositories");
/// assert_eq!(layout.repository_path(&name).as_ref(), "registry/repositories/library/alpine");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution {
    root: Path,
}

impl Default for Distribution {
    /// Returns the layout below the Go registry's own root, `docker/registry/v2`.
    fn default() -> Self {
        Self::new(Path::from("docker/registry/v2"))
    }
}

impl Distribution {
    /// Creates the layout below another root. The root may be empty.
    pub const fn new(root: Path) -> Self {
        Self { root }
    }

    /// Returns the path below which all links, tags and uploads of a repository are.
    pub fn repository_path(&self, name: &RepositoryName) -> Path {
        above(&self.root, &format!("repositories/{name}"))
    }

    /// Returns the path below which all repositories are.
    pub fn repositories_path(&self) -> Path {
        above(&self.root, "repositories")
    }
}

/// Parses the path of a blob. Every `head` runs this, so it checks fixed positions and searches
/// nothing.
fn blob(rest: &str) -> Option<Meaning> {
    let (algorithm, rest) = rest.split_at_checked("sha256".len())?;
    let (shard, rest) = rest.strip_prefix('/')?.split_at_checked(2)?;
    let hex = rest.strip_prefix('/')?.strip_suffix("/data")?;
    if hex.get(..2) != Some(shard) {
        return None;
    }
    Digest::from_parts(algorithm, hex).ok().map(Meaning::Blob)
}

fn link(rest: &str) -> Option<Meaning> {
    // No component of a name starts with `_`, so the first component that does ends the name.
    let (name, rest) = rest.split_once("/_")?;
    let (kind, rest) = match rest.split_once('/')? {
        ("layers", rest) => (LinkKind::Layer, rest),
        ("manifests", rest) => (LinkKind::Manifest, rest.strip_prefix("revisions/")?),
        _ => return None,
    };
    let mut parts = rest.split('/');
    let (algorithm, hex) = (parts.next()?, parts.next()?);
    if parts.next() != Some("link") || parts.next().is_some() {
        return None;
    }
    Some(Meaning::Link(Link {
        kind,
        digest: Digest::from_parts(algorithm, hex).ok()?,
        repository: name.parse().ok()?,
    }))
}

impl Layout for Distribution {
    fn meaning(&self, location: &Path) -> Option<Meaning> {
        let rest = below(&self.root, location)?;
        match rest.strip_prefix("blobs/") {
            Some(rest) => blob(rest),
            None => link(rest.strip_prefix("repositories/")?),
        }
    }

    fn blob_path(&self, digest: &Digest) -> Option<Path> {
        let (algorithm, hex) = (digest.algorithm(), digest.hex());
        let rest = format!("blobs/{algorithm}/{}/{hex}/data", &hex[..2]);
        Some(above(&self.root, &rest))
    }

    fn is_blob_path(&self, digest: &Digest, path: &str) -> bool {
        let is = || {
            let rest = match self.root.as_ref() {
                "" => path,
                root => path.strip_prefix(root)?.strip_prefix('/')?,
            };
            let rest = rest.strip_prefix("blobs/")?;
            let rest = rest.strip_prefix(digest.algorithm())?;
            let (first, rest) = rest.strip_prefix('/')?.split_at_checked(2)?;
            let hex = rest.strip_prefix('/')?.strip_suffix("/data")?;
            (hex.starts_with(first) && digest.is_hex(hex)).then_some(())
        };
        is().is_some()
    }

    fn link_path(&self, link: &Link) -> Option<Path> {
        let kind = match link.kind {
            LinkKind::Layer => "_layers",
            LinkKind::Manifest => "_manifests/revisions",
        };
        let (name, digest) = (&link.repository, &link.digest);
        let (algorithm, hex) = (digest.algorithm(), digest.hex());
        let rest = format!("repositories/{name}/{kind}/{algorithm}/{hex}/link");
        Some(above(&self.root, &rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_go_registry() {
        let hex = "ab".repeat(32);
        let digest: Digest = format!("sha256:{hex}").parse().unwrap();
        let layout = Distribution::default();
        let name: RepositoryName = "library/alpine".parse().unwrap();
        let path = |path: Option<Path>| path.unwrap().to_string();
        assert_eq!(
            path(layout.blob_path(&digest)),
            format!("docker/registry/v2/blobs/sha256/ab/{hex}/data")
        );
        assert_eq!(
            path(layout.link_path(&Link::layer(name.clone(), digest))),
            format!("docker/registry/v2/repositories/library/alpine/_layers/sha256/{hex}/link")
        );
        assert_eq!(
            path(layout.link_path(&Link::manifest(name, digest))),
            format!(
                "docker/registry/v2/repositories/library/alpine/_manifests/revisions/sha256/{hex}/link"
            )
        );
    }

    #[test]
    fn hostile_and_foreign_paths_mean_nothing() {
        let hex = "ab".repeat(32);
        let root = "docker/registry/v2";
        for path in [
            format!("{root}/blobs/sha256/ac/{hex}/data"),
            format!("{root}/blobs/sha256/AB/{}/data", hex.to_uppercase()),
            format!("{root}/blobs/sha384/ab/{hex}/data"),
            format!("{root}/blobs/sha512/ab/{hex}/data"),
            format!("{root}/blobs/sha256/ab/{hex}"),
            format!("{root}/blobs/sha256/ab/{hex}/data/x"),
            format!("{root}/blobs/sha256/a/{hex}/data"),
            format!("{root}x/blobs/sha256/ab/{hex}/data"),
            format!("blobs/sha256/ab/{hex}/data"),
            format!("{root}/repositories/_layers/sha256/{hex}/link"),
            format!("{root}/repositories/A/_layers/sha256/{hex}/link"),
            format!("{root}/repositories/a/%2E%2E/_layers/sha256/{hex}/link"),
            format!("{root}/repositories/a/_layers/sha256/{hex}/link/x"),
            format!("{root}/repositories/a/_manifests/sha256/{hex}/link"),
            format!("{root}/repositories/a/_manifests/tags/latest/current/link"),
            format!("{root}/repositories/a/_manifests/tags/latest/index/sha256/{hex}/link"),
            format!("{root}/repositories/a/_uploads/{hex}/data"),
            format!("{root}/repositories/a/_layers/_layers/sha256/{hex}/link"),
            root.to_owned(),
            String::new(),
        ] {
            let path = Path::parse(path).unwrap();
            assert_eq!(Distribution::default().meaning(&path), None, "{path}");
        }
    }
}
