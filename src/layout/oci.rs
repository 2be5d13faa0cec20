//! [`OciImages`]: which blob is at a path of a store with one OCI image layout per repository?

use super::{Layout, Meaning, above, below};
use crate::types::{Digest, Link, LinkKind};
use object_store::path::Path;

/// One [OCI image layout] per repository, as zot keeps them. Each repository has its own content,
/// and the presence of a blob there is the membership.
///
/// ```text
/// <name>/blobs/sha256/<hex>
/// ```
///
/// A path does not tell whether a blob is a manifest or a layer, so all memberships are of kind
/// [`LinkKind::Layer`]. The cache keeps the metadata of a blob separately for each repository that
/// has it.
///
/// [OCI image layout]: https://github.com/opencontainers/image-spec/blob/main/image-layout.md
///
/// ```
/// use layercache::layout::{Layout, OciImages};
/// use layercache::{Digest, Link};
/// use object_store::path::Path;
///
/// let layout = OciImages::new(Path::from("zot"));
/// let link = Link::layer("library/alpine".parse()?, Digest::Sha256([0xab; 32]));
/// let path = layout.link_path(&link).unwrap();
/// assert!(path.as_ref().starts_with("zot/library/alpine/blobs/sha256/abab"));
/// # Ok::<(), layercache::RepositoryNameError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OciImages {
    root: Path,
}

impl OciImages {
    /// Creates the layout below a root. The default root is empty.
    pub const fn new(root: Path) -> Self {
        Self { root }
    }
}

impl Layout for OciImages {
    fn meaning(&self, location: &Path) -> Option<Meaning> {
        let rest = below(&self.root, location)?;
        let mut parts = rest.rsplitn(4, '/');
        let (hex, algorithm, blobs, name) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if blobs != "blobs" {
            return None;
        }
        let digest = Digest::from_parts(algorithm, hex).ok()?;
        let link = Link::layer(name.parse().ok()?, digest);
        Some(Meaning::RepositoryBlob(link))
    }

    fn blob_path(&self, _digest: &Digest) -> Option<Path> {
        None
    }

    fn link_path(&self, link: &Link) -> Option<Path> {
        if link.kind != LinkKind::Layer {
            return None;
        }
        let (algorithm, hex) = (link.digest.algorithm(), link.digest.hex());
        let rest = format!("{}/blobs/{algorithm}/{hex}", link.repository);
        Some(above(&self.root, &rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_and_foreign_paths_mean_nothing() {
        let hex = "ab".repeat(32);
        for path in [
            format!("blobs/sha256/{hex}"),
            format!("A/blobs/sha256/{hex}"),
            format!("a/blob/sha256/{hex}"),
            format!("a/blobs/sha256/{}", hex.to_uppercase()),
            format!("a/blobs/sha512/{hex}"),
            format!("a/blobs/sha256/{hex}/data"),
            format!("%2E%2E/blobs/sha256/{hex}"),
            "a/index.json".to_owned(),
            "a/oci-layout".to_owned(),
        ] {
            let path = Path::parse(path).unwrap();
            assert_eq!(OciImages::default().meaning(&path), None, "{path}");
        }
    }
}
