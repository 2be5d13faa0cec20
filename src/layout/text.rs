//! [`parse`]: which layout does a text of the configuration name?

use super::{Distribution, Layout, OciImages, Template, TemplateError};
use object_store::path::Path;
use std::sync::Arc;

/// Makes the layout that a text names, for applications that let their operators choose one.
///
/// | text | layout | default root |
/// |---|---|---|
/// | `distribution` | [`Distribution`] | `docker/registry/v2` |
/// | `oci` | [`OciImages`] | the top of the store |
/// | any other text, such as `oci-blobs/{digest}` | [`Template`] | none: a template contains its root |
///
/// ```
/// use layercache::CachedStore;
/// use layercache::layout::{self, LayoutError};
/// use object_store::memory::InMemory;
///
/// let layout = layout::parse("distribution", Some("my/registry"))?;
/// let store = CachedStore::builder(InMemory::new()).layout(layout).build();
/// # assert!(store.is_ok());
///
/// let error = layout::parse("zot", None).unwrap_err();
/// assert!(matches!(error, LayoutError::Unknown { .. }));
/// assert!(error.to_string().contains("`distribution`, `oci`, or a template"));
/// # Ok::<(), LayoutError>(())
/// ```
///
/// # Errors
/// Returns a [`LayoutError`] if the text names no layout, if the root is no path, or if a template is
/// given a root.
pub fn parse(text: &str, root: Option<&str>) -> Result<Arc<dyn Layout>, LayoutError> {
    let root_path = root.map(|root| {
        Path::parse(root).map_err(|source| LayoutError::Root {
            root: root.to_owned(),
            source,
        })
    });
    Ok(match (text, root_path.transpose()?) {
        ("distribution", None) => Arc::new(Distribution::default()),
        ("distribution", Some(root)) => Arc::new(Distribution::new(root)),
        ("oci", root) => Arc::new(OciImages::new(root.unwrap_or_default())),
        (template, root) => {
            let layout: Template = template.parse().map_err(|source| LayoutError::Unknown {
                text: template.to_owned(),
                source,
            })?;
            if let Some(root) = root {
                return Err(LayoutError::RootOfTemplate {
                    written: format!("{root}/{template}"),
                });
            }
            Arc::new(layout)
        }
    })
}

/// Why [`parse`] makes no layout.
///
/// ```
/// use layercache::layout::{self, LayoutError};
///
/// let error = layout::parse("blobs/{digest}", Some("a")).unwrap_err();
/// assert!(matches!(error, LayoutError::RootOfTemplate { written } if written == "a/blobs/{digest}"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// The text names no layout, and is no template.
    #[error(
        "`{text}` is not a layout: write `distribution`, `oci`, or a template such as `oci-blobs/{{digest}}` ({source})"
    )]
    Unknown {
        /// The text.
        text: String,
        /// Why the text is no template.
        source: TemplateError,
    },
    /// The root is no path of an `object_store`.
    #[error("`{root}` is not a valid path: {source}")]
    Root {
        /// The root.
        root: String,
        /// Why it is no path.
        source: object_store::path::Error,
    },
    /// A template was given a root.
    #[error("a template contains its root: write `{written}` as the layout, and no root")]
    RootOfTemplate {
        /// The template with the root in it.
        written: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_names_its_layout() {
        let printed = |text, root| format!("{:?}", parse(text, root).unwrap());
        let debug = |layout: &dyn Layout| format!("{layout:?}");
        let root = || Path::from("a/b");
        for (text, given, layout) in [
            ("distribution", None, debug(&Distribution::default())),
            (
                "distribution",
                Some("a/b"),
                debug(&Distribution::new(root())),
            ),
            ("oci", None, debug(&OciImages::default())),
            ("oci", Some("a/b"), debug(&OciImages::new(root()))),
            (
                "x/{hex}",
                None,
                debug(&"x/{hex}".parse::<Template>().unwrap()),
            ),
        ] {
            assert_eq!(printed(text, given), layout);
        }
    }

    #[test]
    fn an_error_says_what_is_accepted() {
        let error = |text, root| parse(text, root).unwrap_err().to_string();
        for text in ["", "zot", "Oci", "oci-blobs/{digst}"] {
            let said = error(text, None);
            for part in ["`distribution`", "`oci`", "`oci-blobs/{digest}`", text] {
                assert!(said.contains(part), "{said}");
            }
        }
        assert!(error("oci", Some("//")).contains("`//`"));
        assert!(error("x/{digest}", Some("a")).contains("`a/x/{digest}`"));
    }
}
