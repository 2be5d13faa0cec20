//! Which layout may a path belong to?

use layercache::Digest;
use layercache::layout::{Distribution, Layout, OciImages, Template};
use object_store::path::Path;
use std::fmt;

/// A layout that would give a path a meaning.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Guess {
    /// The Go registry's layout, below this root.
    Distribution(String),
    /// An OCI image layout per repository.
    Oci,
    /// A flat store with this template.
    Template(String),
}

impl fmt::Display for Guess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Distribution(root) => write!(f, "--layout distribution --root '{root}'"),
            Self::Oci => f.write_str("--layout oci"),
            Self::Template(template) => write!(f, "--layout '{template}'"),
        }
    }
}

/// Returns the layout of a path, if the path looks like a blob's or a link's.
pub(super) fn guess(path: &Path) -> Option<Guess> {
    distribution(path)
        .or_else(|| OciImages::default().meaning(path).map(|_| Guess::Oci))
        .or_else(|| template(path))
}

fn distribution(path: &Path) -> Option<Guess> {
    let text = format!("/{path}");
    ["/blobs/", "/repositories/"].iter().find_map(|mark| {
        let at = text.find(mark)?;
        let root = text[..at].trim_start_matches('/');
        let layout = Distribution::new(Path::parse(root).ok()?);
        layout.meaning(path)?;
        Some(Guess::Distribution(root.to_owned()))
    })
}

/// Returns the path as a template, with placeholders for the parts of its digest.
fn template(path: &Path) -> Option<Guess> {
    let is_hex = |c: char| matches!(c, '0'..='9' | 'a'..='f');
    let text = path.as_ref();
    let hex = text
        .split(|c| !is_hex(c))
        .find(|run| matches!(run.len(), 64 | 128))?;
    let algorithm = if hex.len() == 64 { "sha256" } else { "sha512" };
    let digest: Digest = format!("{algorithm}:{hex}").parse().ok()?;
    let with_digest = text.replace(&digest.to_string(), "{digest}");
    let pattern = with_digest.replace(hex, "{hex}");
    let parts = pattern.split('/').map(|part| match part {
        part if part == algorithm => "{algorithm}",
        part if hex.get(..2) == Some(part) => "{shard}",
        part => part,
    });
    let pattern = parts.collect::<Vec<_>>().join("/");
    let layout: Template = pattern.parse().ok()?;
    layout.meaning(path)?;
    Some(Guess::Template(pattern))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn layouts_are_recognised() {
        let hex = format!("ab{}", "0".repeat(62));
        for (path, found) in [
            (
                format!("docker/registry/v2/blobs/sha256/ab/{hex}/data"),
                "--layout distribution --root 'docker/registry/v2'",
            ),
            (
                format!("blobs/sha256/ab/{hex}/data"),
                "--layout distribution --root ''",
            ),
            (
                format!("eu/repositories/a/b/_layers/sha256/{hex}/link"),
                "--layout distribution --root 'eu'",
            ),
            (format!("a/b/blobs/sha256/{hex}"), "--layout oci"),
            (format!("flat/sha256:{hex}"), "--layout 'flat/{digest}'"),
            (
                format!("x/sha256/ab/{hex}.bin"),
                "--layout 'x/{algorithm}/{shard}/{hex}.bin'",
            ),
        ] {
            let guess = guess(&Path::parse(&path).unwrap());
            assert_eq!(guess.map(|guess| guess.to_string()).as_deref(), Some(found));
        }
        for path in [
            "",
            "readme.txt",
            "docker/registry/v2/repositories/a/_uploads/x/data",
        ] {
            assert_eq!(guess(&Path::parse(path).unwrap()), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_panics(text in "[a-f0-9/._{}:é]{0,160}") {
            if let Ok(path) = Path::parse(&text) {
                let _ = guess(&path);
            }
        }
    }
}
