//! The parts of a manifest that a registry reads.

use crate::error::Error;
use layercache::Digest;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// An image or an index, of OCI or Docker. It has the fields of both.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", expecting = "an object")]
pub(crate) struct Manifest {
    schema_version: u64,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    pub(crate) subject: Option<Descriptor>,
    pub(crate) annotations: Option<BTreeMap<String, String>>,
    /// Makes serde refuse an array. Without a flattened field it accepts one, and reads it by
    /// position.
    #[serde(flatten)]
    _others: IgnoredAny,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", expecting = "an object")]
pub(crate) struct Descriptor {
    media_type: Option<String>,
    #[serde(deserialize_with = "parse_digest")]
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    urls: Option<Vec<String>>,
    #[serde(flatten)]
    _others: IgnoredAny,
}

fn parse_digest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

impl Descriptor {
    /// Returns whether the content may be stored elsewhere, so that this registry does not need it.
    pub(crate) fn is_foreign(&self) -> bool {
        self.urls.as_ref().is_some_and(|urls| !urls.is_empty())
    }
}

impl Manifest {
    /// Parses the manifest that a client sends as `content_type`. Refuses an unknown media type,
    /// and one that does not match the fields or `content_type`.
    pub(crate) fn parse(content: &[u8], content_type: Option<&str>) -> Result<Self, Error> {
        let invalid = |why: &str| Err(Error::ManifestInvalid(why.to_owned()));
        let manifest: Self = serde_json::from_slice(content)
            .map_err(|error| Error::ManifestInvalid(error.to_string()))?;
        if manifest.schema_version != 2 {
            return invalid("only schema version 2 is supported");
        }
        // A manifest must not be both an image and an index: two clients could then read different
        // contents under one digest (CVE-2021-41190).
        let is_image = manifest.config.is_some() && manifest.manifests.is_none();
        let is_index =
            manifest.manifests.is_some() && manifest.config.is_none() && manifest.layers.is_none();
        match manifest.media_type() {
            OCI_MANIFEST | DOCKER_MANIFEST if is_image => {}
            OCI_INDEX | DOCKER_LIST if is_index => {}
            OCI_MANIFEST | DOCKER_MANIFEST | OCI_INDEX | DOCKER_LIST => {
                return invalid("its fields do not match its media type");
            }
            _ => return invalid("unknown media type"),
        }
        let essence = content_type
            .and_then(|text| text.split(';').next())
            .map(str::trim);
        if essence.is_some_and(|essence| !essence.eq_ignore_ascii_case(manifest.media_type())) {
            return invalid("its media type differs from the Content-Type");
        }
        Ok(manifest)
    }

    /// Returns the media type that the manifest names. If it names none, the fields decide between
    /// the media types of OCI, because Docker's manifests always name theirs.
    pub(crate) fn media_type(&self) -> &str {
        let by_shape = match &self.manifests {
            Some(_) => OCI_INDEX,
            None => OCI_MANIFEST,
        };
        self.media_type.as_deref().unwrap_or(by_shape)
    }

    /// Returns the type of artifact that the manifest describes. An image without a type of its own
    /// has the media type of its config.
    pub(crate) fn artifact_type(&self) -> Option<&str> {
        let config = self.config.as_ref();
        let of_config = || config.and_then(|config| config.media_type.as_deref());
        self.artifact_type.as_deref().or_else(of_config)
    }

    /// Returns the blobs that the manifest consists of.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.config.iter().chain(self.layers.iter().flatten())
    }

    /// Returns the manifests that the manifest lists, if it is an index.
    pub(crate) fn children(&self) -> impl Iterator<Item = &Descriptor> {
        self.manifests.iter().flatten()
    }
}

/// Returns the media type of a stored manifest, for the `Content-Type`. The manifest may come from
/// another registry that accepts more kinds of manifests.
pub(crate) fn media_type_of(content: &[u8]) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape {
        media_type: Option<String>,
        config: Option<IgnoredAny>,
        manifests: Option<IgnoredAny>,
    }
    let media_type = match serde_json::from_slice(content) {
        Ok(Shape {
            media_type: Some(media_type),
            ..
        }) => media_type,
        Ok(Shape {
            manifests: Some(_), ..
        }) => OCI_INDEX.to_owned(),
        Ok(Shape {
            config: Some(_), ..
        }) => OCI_MANIFEST.to_owned(),
        _ => String::new(),
    };
    if media_type.is_empty() || !media_type.bytes().all(|byte| byte.is_ascii_graphic()) {
        return "application/octet-stream".to_owned();
    }
    media_type
}
