//! How do `object_store`'s descriptions of an object and the cache's metadata convert into each
//! other?

use crate::types::LayerMeta;
use crate::types::error::BoxError;
use crate::types::layer_meta::Parts;
use crate::types::netstring;
use object_store::path::Path;
use object_store::{Attribute, Attributes, ObjectMeta};

/// Returns the metadata in a result of the store for the object at `location`. It is not full if it
/// has an attribute that could not be returned to a caller.
pub(super) fn describe(
    location: &Path,
    meta: &ObjectMeta,
    attributes: &Attributes,
) -> Result<LayerMeta, BoxError> {
    let attributes = write_attributes(attributes);
    let parts = Parts {
        last_modified: attributes.is_some().then(|| meta.last_modified.into()),
        attributes: attributes.as_deref().filter(|text| !text.is_empty()),
        ..parts(location, meta)
    };
    Ok(LayerMeta::from_parts(parts)?)
}

/// Returns the metadata in a list for the object at `location`. It is never full, because lists
/// have no attributes.
pub(super) fn describe_in_part(location: &Path, meta: &ObjectMeta) -> Result<LayerMeta, BoxError> {
    Ok(LayerMeta::from_parts(parts(location, meta))?)
}

/// Returns all fields but the time, because the time marks full metadata.
fn parts<'a>(location: &'a Path, meta: &'a ObjectMeta) -> Parts<'a> {
    let ObjectMeta {
        location: _,
        last_modified: _,
        size,
        e_tag,
        version,
    } = meta;
    Parts {
        path: location.as_ref(),
        length: *size,
        e_tag: e_tag.as_deref(),
        version: version.as_deref(),
        last_modified: None,
        attributes: None,
    }
}

/// Returns whether the two cannot describe the same object. A field that is missing in one of them
/// is no contradiction, unless both are full.
pub(super) fn contradict(known: &LayerMeta, meta: &LayerMeta) -> bool {
    let differ = |one: Option<&str>, other: Option<&str>| {
        one.zip(other).is_some_and(|(one, other)| one != other)
    };
    match known.is_full() && meta.is_full() {
        true => known != meta,
        false => {
            known.path() != meta.path()
                || known.length() != meta.length()
                || differ(known.e_tag(), meta.e_tag())
                || differ(known.version(), meta.version())
        }
    }
}

/// Returns the store's own description of the object at `location`, if `meta` belongs to that path
/// and is full.
pub(super) fn recite(location: &Path, meta: &LayerMeta) -> Option<(ObjectMeta, Attributes)> {
    let parts = meta.parts();
    if parts.path != location.as_ref() {
        return None;
    }
    let attributes = match parts.attributes {
        Some(text) => read_attributes(text)?,
        None => Attributes::new(),
    };
    let object = ObjectMeta {
        location: location.clone(),
        last_modified: parts.last_modified?.into(),
        size: parts.length,
        e_tag: parts.e_tag.map(str::to_owned),
        version: parts.version.map(str::to_owned),
    };
    Some((object, attributes))
}

/// Writes attributes as netstrings: each name, then its value, sorted by name. Returns `None` if
/// this version does not know an attribute, or if no HTTP header could carry it.
fn write_attributes(attributes: &Attributes) -> Option<String> {
    let mut pairs = Vec::with_capacity(attributes.len());
    for (attribute, value) in attributes {
        let name = match attribute {
            Attribute::ContentDisposition => "content-disposition".to_owned(),
            Attribute::ContentEncoding => "content-encoding".to_owned(),
            Attribute::ContentLanguage => "content-language".to_owned(),
            Attribute::ContentType => "content-type".to_owned(),
            Attribute::CacheControl => "cache-control".to_owned(),
            Attribute::StorageClass => "storage-class".to_owned(),
            Attribute::Metadata(name) => format!("{METADATA}{name}"),
            _ => return None,
        };
        pairs.push((name, value.as_ref()));
    }
    pairs.sort_unstable();
    let mut text = String::new();
    for (name, value) in &pairs {
        for part in [name.as_str(), value] {
            netstring::push(&mut text, part);
        }
    }
    netstring::is_pairs(&text).then_some(text)
}

fn read_attributes(mut text: &str) -> Option<Attributes> {
    let mut attributes = Attributes::new();
    while !text.is_empty() {
        let name = netstring::pop(&mut text)?;
        let value = netstring::pop(&mut text)?;
        let attribute = match name {
            "content-disposition" => Attribute::ContentDisposition,
            "content-encoding" => Attribute::ContentEncoding,
            "content-language" => Attribute::ContentLanguage,
            "content-type" => Attribute::ContentType,
            "cache-control" => Attribute::CacheControl,
            "storage-class" => Attribute::StorageClass,
            _ => Attribute::Metadata(name.strip_prefix(METADATA)?.to_owned().into()),
        };
        attributes.insert(attribute, value.to_owned().into());
    }
    Some(attributes)
}

const METADATA: &str = "metadata:";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn attribute() -> impl Strategy<Value = Attribute> {
        prop_oneof![
            Just(Attribute::ContentDisposition),
            Just(Attribute::ContentEncoding),
            Just(Attribute::ContentLanguage),
            Just(Attribute::ContentType),
            Just(Attribute::CacheControl),
            Just(Attribute::StorageClass),
            "\\PC*".prop_map(|name| Attribute::Metadata(name.into())),
        ]
    }

    proptest! {
        #[test]
        fn what_is_described_is_recited(
            size: u64, e_tag: Option<String>, version: Option<String>, nanos in 0..1u64 << 60,
            attributes in prop::collection::vec((attribute(), "\\PC*"), 0..4),
        ) {
            let location = Path::from("a/b");
            let meta = ObjectMeta {
                location: location.clone(),
                last_modified: (UNIX_EPOCH + Duration::from_nanos(nanos)).into(),
                size, e_tag, version,
            };
            let attributes: Attributes = attributes.into_iter().collect();
            let layer = describe(&location, &meta, &attributes).unwrap();
            prop_assert_eq!(recite(&location, &layer), Some((meta, attributes)));
            prop_assert_eq!(recite(&Path::from("a/c"), &layer), None);
        }

        #[test]
        fn foreign_attributes_never_panic(text: String, digits in "[0-9:a]{0,20}") {
            let _ = read_attributes(&text);
            let _ = read_attributes(&digits);
        }
    }

    #[test]
    fn attributes_that_would_end_a_line_are_left_to_the_store() {
        let location = Path::from("a/b");
        let meta = ObjectMeta {
            location: location.clone(),
            last_modified: UNIX_EPOCH.into(),
            size: 1,
            e_tag: None,
            version: None,
        };
        let value = (Attribute::ContentType, "text/plain\r\nX: y");
        let layer = describe(&location, &meta, &[value].into_iter().collect()).unwrap();
        assert!(!layer.is_full());
    }

    #[test]
    fn a_meta_that_is_not_full_is_not_recited() {
        let layer = LayerMeta::new("a/b", 1).unwrap();
        assert_eq!(recite(&Path::from("a/b"), &layer), None);
    }
}
