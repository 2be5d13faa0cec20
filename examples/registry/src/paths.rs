//! Where the objects are in the storage: blobs and links, and the objects that the cache does not
//! know (tags, referrers, uploads).

use crate::route::Tag;
use layercache::layout::{Distribution, Layout};
use layercache::{Digest, Link, RepositoryName};
use object_store::path::Path;
use uuid::Uuid;

#[derive(Debug, Default)]
pub struct Paths {
    layout: Distribution,
}

impl Paths {
    pub fn blob(&self, digest: &Digest) -> Path {
        let path = self.layout.blob_path(digest);
        path.expect("this layout has a path for every digest")
    }

    pub fn link(&self, link: &Link) -> Path {
        let path = self.layout.link_path(link);
        path.expect("this layout has a path for every link")
    }

    pub fn repository(&self, name: &RepositoryName) -> Path {
        self.layout.repository_path(name)
    }

    pub fn upload(&self, name: &RepositoryName, id: Uuid) -> Path {
        self.below(name, &format!("_uploads/{id}/data"))
    }

    pub fn tags(&self, name: &RepositoryName) -> Path {
        self.below(name, "_manifests/tags")
    }

    /// Returns the folder of a tag.
    pub fn tag(&self, name: &RepositoryName, tag: &Tag) -> Path {
        self.below(name, &format!("_manifests/tags/{tag}"))
    }

    /// Returns the path of the link to the manifest that a tag points at.
    pub fn tag_current(&self, name: &RepositoryName, tag: &Tag) -> Path {
        self.below(name, &format!("_manifests/tags/{tag}/current/link"))
    }

    /// Returns the path of the entry of a manifest in a tag's index. The index has all manifests
    /// that the tag has pointed at.
    pub fn tag_index(&self, name: &RepositoryName, tag: &Tag, digest: &Digest) -> Path {
        let digest = parts(digest);
        self.below(name, &format!("_manifests/tags/{tag}/index/{digest}/link"))
    }

    /// Returns the folder with one entry for each manifest that names a subject. The Go registry
    /// does not know this folder.
    pub fn referrers(&self, name: &RepositoryName, subject: &Digest) -> Path {
        self.below(name, &format!("_manifests/referrers/{}", parts(subject)))
    }

    pub fn referrer(&self, name: &RepositoryName, subject: &Digest, manifest: &Digest) -> Path {
        let (subject, manifest) = (parts(subject), parts(manifest));
        self.below(
            name,
            &format!("_manifests/referrers/{subject}/{manifest}/link"),
        )
    }

    fn below(&self, name: &RepositoryName, rest: &str) -> Path {
        Path::from(format!("{}/{rest}", self.repository(name)))
    }
}

fn parts(digest: &Digest) -> String {
    format!("{}/{}", digest.algorithm(), digest.hex())
}

/// Returns the digest that a path ends with: `…/<algorithm>/<hex>/link`.
pub(crate) fn digest_of_link(path: &Path) -> Option<Digest> {
    let mut parts = path.as_ref().rsplit('/');
    let (link, hex, algorithm) = (parts.next()?, parts.next()?, parts.next()?);
    if link != "link" {
        return None;
    }
    format!("{algorithm}:{hex}").parse().ok()
}
