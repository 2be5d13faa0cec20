//! [`Template`]: which blob is at a path of a flat store?

use super::{Layout, Meaning};
use crate::types::{Digest, Link};
use object_store::path::Path;
use std::str::FromStr;

/// A flat store: the path of a blob follows a template, and names no repository.
///
/// | in a template | stands for |
/// |---|---|
/// | `{digest}` | the digest, `sha256:abcd…` |
/// | `{algorithm}` | its algorithm, `sha256` |
/// | `{hex}` | its hash, `abcd…` |
/// | `{shard}` | the first two digits of its hash, `ab` |
///
/// A template must contain `{digest}` or `{hex}`. If it has no `{algorithm}`, the length of the
/// hash determines the algorithm.
///
/// ```
/// use layercache::layout::{Layout, Template};
///
/// let layout: Template = "oci-blobs/{digest}".parse()?;
/// let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".parse()?;
/// assert_eq!(layout.blob_path(&digest).unwrap().to_string(), format!("oci-blobs/{digest}"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<TemplatePart>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum TemplatePart {
    Text(String),
    Digest,
    Algorithm,
    Hex,
    Shard,
}

/// Why a text is not a [`Template`].
///
/// ```
/// use layercache::layout::{Template, TemplateError};
///
/// assert_eq!("blobs/{shard}".parse::<Template>(), Err(TemplateError::NoDigest));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// A name in braces is not a known placeholder.
    #[error(
        "invalid template: `{{{name}}}` is unknown, known are digest, algorithm, hex and shard"
    )]
    Unknown {
        /// The name in the braces.
        name: String,
    },
    /// A brace has no partner.
    #[error("invalid template: the brace at byte {at} has no partner")]
    Brace {
        /// Where the brace is.
        at: usize,
    },
    /// The template would give all blobs the same path.
    #[error("invalid template: it needs `{{digest}}` or `{{hex}}`, or all blobs have one path")]
    NoDigest,
    /// `object_store` would write the template's paths in another way.
    #[error("invalid template: its paths would be written as `{written}`")]
    NotAPath {
        /// A path of the template, as `object_store` would write it.
        written: String,
    },
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let template = Self {
            parts: parse(text)?,
        };
        let tells_blobs_apart =
            |part: &TemplatePart| matches!(part, TemplatePart::Digest | TemplatePart::Hex);
        if !template.parts.iter().any(tells_blobs_apart) {
            return Err(TemplateError::NoDigest);
        }
        let sample = template.print(&Digest::Sha256([0; 32]));
        let written = Path::from(sample.as_str()).to_string();
        if written != sample {
            return Err(TemplateError::NotAPath { written });
        }
        Ok(template)
    }
}

fn parse(text: &str) -> Result<Vec<TemplatePart>, TemplateError> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find(['{', '}']) {
        let at = text.len() - rest.len() + open;
        let Some(close) = rest[open..].find('}').filter(|close| *close > 0) else {
            return Err(TemplateError::Brace { at });
        };
        if open > 0 {
            parts.push(TemplatePart::Text(rest[..open].to_owned()));
        }
        parts.push(match &rest[open + 1..open + close] {
            "digest" => TemplatePart::Digest,
            "algorithm" => TemplatePart::Algorithm,
            "hex" => TemplatePart::Hex,
            "shard" => TemplatePart::Shard,
            name => return Err(TemplateError::Unknown { name: name.into() }),
        });
        rest = &rest[open + close + 1..];
    }
    if !rest.is_empty() {
        parts.push(TemplatePart::Text(rest.to_owned()));
    }
    Ok(parts)
}

impl Template {
    fn print(&self, digest: &Digest) -> String {
        let hex = digest.hex();
        let mut path = String::new();
        for part in &self.parts {
            match part {
                TemplatePart::Text(text) => path.push_str(text),
                TemplatePart::Digest => path.push_str(&digest.to_string()),
                TemplatePart::Algorithm => path.push_str(digest.algorithm()),
                TemplatePart::Hex => path.push_str(&hex),
                TemplatePart::Shard => path.push_str(&hex[..2]),
            }
        }
        path
    }

    /// Returns the digest in `path`, if it is one of `algorithm`. Does not compare the rest of the
    /// path.
    fn find(&self, path: &str, algorithm: &str, digits: usize) -> Option<Digest> {
        let mut at = 0;
        for part in &self.parts {
            at += match part {
                TemplatePart::Text(text) => text.len(),
                TemplatePart::Algorithm => algorithm.len(),
                TemplatePart::Shard => 2,
                TemplatePart::Digest => {
                    let text = path.get(at..at + algorithm.len() + 1 + digits)?;
                    return text.parse().ok();
                }
                TemplatePart::Hex => {
                    let hex = path.get(at..at + digits)?;
                    return Digest::from_parts(algorithm, hex).ok();
                }
            };
        }
        None
    }
}

impl Layout for Template {
    fn meaning(&self, location: &Path) -> Option<Meaning> {
        let path = location.as_ref();
        [("sha256", 64), ("sha512", 128)]
            .into_iter()
            .filter_map(|(algorithm, digits)| self.find(path, algorithm, digits))
            .find(|digest| self.print(digest) == path)
            .map(Meaning::Blob)
    }

    fn blob_path(&self, digest: &Digest) -> Option<Path> {
        Some(Path::from(self.print(digest)))
    }

    fn link_path(&self, _link: &Link) -> Option<Path> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_that_cannot_work_is_refused() {
        let error = |text: &str| text.parse::<Template>().unwrap_err();
        assert_eq!(error("blobs/x"), TemplateError::NoDigest);
        assert_eq!(error("blobs/{shard}"), TemplateError::NoDigest);
        assert_eq!(error("blobs/{hex"), TemplateError::Brace { at: 6 });
        assert_eq!(error("blobs}/{hex}"), TemplateError::Brace { at: 5 });
        assert_eq!(
            error("{size}/{hex}"),
            TemplateError::Unknown {
                name: "size".into()
            }
        );
        assert!(matches!(
            error("/blobs//{hex}"),
            TemplateError::NotAPath { .. }
        ));
        assert!(matches!(error("../{hex}"), TemplateError::NotAPath { .. }));
    }

    #[test]
    fn hostile_and_foreign_paths_mean_nothing() {
        let layout: Template = "a/{shard}/{hex}".parse().unwrap();
        let hex = "ab".repeat(32);
        for path in [
            format!("a/ac/{hex}"),
            format!("b/ab/{hex}"),
            format!("a/ab/{}", hex.to_uppercase()),
            format!("a/ab/{hex}0"),
            format!("a/ab/{}", &hex[1..]),
            format!("a/é/{hex}"),
            "a".to_owned(),
        ] {
            let path = Path::parse(path).unwrap();
            assert_eq!(layout.meaning(&path), None, "{path}");
        }
    }
}
