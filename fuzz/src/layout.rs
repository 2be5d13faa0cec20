//! Whether layouts are consistent: path → meaning → path, and meaning → path → meaning.

use crate::text;
use layercache::layout::{Distribution, Layout, Meaning, OciImages, Template};
use layercache::{Digest, Link};
use object_store::path::Path;
use std::sync::LazyLock;

/// A layout and its root. All paths of the layout must be below the root.
type Rooted = (&'static str, Box<dyn Layout>);

static LAYOUTS: LazyLock<[Rooted; 7]> = LazyLock::new(|| {
    let template = |text: &str| Box::new(text.parse::<Template>().expect("a template"));
    [
        ("docker/registry/v2", Box::new(Distribution::default())),
        ("", Box::new(Distribution::new(Path::default()))),
        ("", Box::new(OciImages::default())),
        ("zot/data", Box::new(OciImages::new(Path::from("zot/data")))),
        ("oci-blobs", template("oci-blobs/{digest}")),
        ("", template("{algorithm}/{shard}/x{hex}.bin")),
        ("x", template("x/{hex}/{hex}")),
    ]
});

/// Tests all layouts. The first line of the input is a path, the second one is a name or a
/// template, and the rest is a hash.
pub fn layout(bytes: &[u8]) {
    let mut lines = bytes.splitn(3, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (path, name, hash) = (line(), line(), line());
    let path = text(path).and_then(|path| Path::parse(path).ok());
    let (short, long) = (Digest::Sha256(filled(hash)), Digest::Sha512(filled(hash)));
    let mut links = Vec::new();
    if let Some(name) = text(name).and_then(|name| name.parse::<layercache::RepositoryName>().ok())
    {
        for digest in [short, long] {
            links.push(Link::layer(name.clone(), digest));
            links.push(Link::manifest(name.clone(), digest));
        }
    }
    for (root, layout) in LAYOUTS.iter() {
        if let Some(path) = &path {
            reads(layout.as_ref(), root, path);
        }
        for digest in [short, long] {
            if let Some(path) = layout.blob_path(&digest) {
                assert_eq!(layout.meaning(&path), Some(Meaning::Blob(digest)), "{path}");
                reads(layout.as_ref(), root, &path);
            }
        }
        for link in &links {
            if let Some(path) = layout.link_path(link) {
                let (Some(Meaning::Link(meant)) | Some(Meaning::RepositoryBlob(meant))) =
                    layout.meaning(&path)
                else {
                    panic!("{path} is no link");
                };
                assert_eq!(meant, *link);
                reads(layout.as_ref(), root, &path);
            }
        }
    }
    // A template may be any text: it is refused or it works.
    if let Some(template) = text(name).and_then(|name| name.parse::<Template>().ok()) {
        for digest in [short, long] {
            let path = template.blob_path(&digest).expect("a path of every blob");
            assert_eq!(
                template.meaning(&path),
                Some(Meaning::Blob(digest)),
                "{template:?} {path}"
            );
        }
        if let Some(path) = &path {
            reads(&template, "", path);
        }
    }
}

/// Checks that a path with a meaning is the path of that meaning, is below the root, and has no
/// part that leads elsewhere.
fn reads(layout: &dyn Layout, root: &str, path: &Path) {
    let again = match layout.meaning(path) {
        None => return,
        Some(Meaning::Blob(digest)) => layout.blob_path(&digest),
        Some(Meaning::Link(link) | Meaning::RepositoryBlob(link)) => layout.link_path(&link),
        Some(other) => panic!("this target does not know the meaning {other:?}"),
    };
    assert_eq!(again.as_ref(), Some(path), "{layout:?}");
    assert!(
        path.prefix_matches(&Path::from(root)),
        "{path} leaves {root}"
    );
    assert!(
        path.parts()
            .all(|part| !matches!(part.as_ref(), "" | "." | "..")),
        "{path}"
    );
}

/// Returns a hash of these bytes, with zeros after them.
fn filled<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut hash = [0; N];
    let length = bytes.len().min(N);
    hash[..length].copy_from_slice(&bytes[..length]);
    hash
}
