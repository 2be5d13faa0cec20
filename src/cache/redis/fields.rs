//! The fields of a blob's hash: written as the seed does, read with suspicion.

use crate::cache::shared::is_plausible;
use crate::{Digest, LayerMeta};
use ::redis::Value;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What is read, in this order: our own fields, then those of today's Go registry.
pub(super) const READ: [&str; 8] = [
    "path",
    "length",
    "e_tag",
    "version",
    "last_modified",
    "attributes",
    "size",
    "digest",
];

/// The path that a hash may name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StoredPath {
    /// Any: there is no layout to compare it with.
    Any,
    /// This one, or none, which means this one.
    Only(String),
    /// None at all: the layout has no place for the blob.
    None,
}

/// Longer values than any backend writes are not believed.
const LONGEST: usize = 4096;

/// Reads the values of [`READ`]. `None` if anything is missing, broken, or of another blob.
pub(super) fn read(digest: &Digest, path: StoredPath, values: &[Value]) -> Option<LayerMeta> {
    let values: &[Value; READ.len()] = values.try_into().ok()?;
    let mut texts = [None; READ.len()];
    for (text, value) in texts.iter_mut().zip(values) {
        *text = read_text(value)?;
    }
    let [
        stored,
        length,
        e_tag,
        version,
        last_modified,
        attributes,
        size,
        named,
    ] = texts;

    if named.is_some_and(|named| named.parse() != Ok(*digest)) {
        return None;
    }
    let path = match (path, stored) {
        (StoredPath::Any, Some(stored)) => stored.to_owned(),
        (StoredPath::Only(path), None) => path,
        (StoredPath::Only(path), Some(stored)) if path == stored => path,
        _ => return None,
    };
    let length = match (length.map(read_length), size.map(read_length)) {
        (Some(length), None) | (None, Some(length)) => length?,
        (Some(length), Some(size)) if length == size => length?,
        _ => return None,
    };
    let mut meta = LayerMeta::new(path, length).ok()?;
    if let Some(e_tag) = e_tag {
        meta = meta.with_e_tag(e_tag);
    }
    if let Some(version) = version {
        meta = meta.with_version(version);
    }
    if let Some(attributes) = attributes {
        meta = meta.with_attributes(attributes);
    }
    if let Some(text) = last_modified {
        meta = meta.with_last_modified(read_time(text)?);
    }
    is_plausible(digest, &meta).then_some(meta)
}

/// `None` if it is no text, `Some(None)` if it is absent.
fn read_text(value: &Value) -> Option<Option<&str>> {
    match value {
        Value::Nil => Some(None),
        Value::BulkString(bytes) if bytes.len() <= LONGEST => {
            std::str::from_utf8(bytes).ok().map(Some)
        }
        _ => None,
    }
}

/// Digits only: neither a sign nor anything else that `parse` would take.
fn read_length(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

fn read_time(text: &str) -> Option<SystemTime> {
    let (seconds, nanos) = text.split_once('.')?;
    if nanos.len() != 9 {
        return None;
    }
    let seconds = Duration::from_secs(read_length(seconds)?);
    let nanos = Duration::from_nanos(read_length(nanos)?);
    UNIX_EPOCH.checked_add(seconds)?.checked_add(nanos)
}

fn write_time(time: SystemTime) -> Option<String> {
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    Some(format!("{}.{:09}", since.as_secs(), since.subsec_nanos()))
}

/// The fields to set, and the names of those to remove.
pub(super) fn write(
    meta: &LayerMeta,
    path: bool,
) -> (Vec<(&'static str, String)>, Vec<&'static str>) {
    let last_modified = meta.last_modified().and_then(write_time);
    let fields = [
        ("path", path.then(|| meta.path().to_owned())),
        ("length", Some(meta.length().to_string())),
        ("e_tag", meta.e_tag().map(str::to_owned)),
        ("version", meta.version().map(str::to_owned)),
        ("last_modified", last_modified),
        ("attributes", meta.attributes().map(str::to_owned)),
        // A Go registry's length and name for the blob: ours replace them.
        ("size", None),
        ("digest", None),
    ];
    let mut present = Vec::with_capacity(fields.len());
    let mut absent = Vec::with_capacity(fields.len());
    for (name, value) in fields {
        match value {
            Some(value) => present.push((name, value)),
            None => absent.push(name),
        }
    }
    (present, absent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DIGEST: Digest = Digest::Sha256([7; 32]);

    fn stored(meta: &LayerMeta, path: bool) -> Vec<Value> {
        let (present, _) = write(meta, path);
        READ.iter()
            .map(|name| {
                let field = present.iter().find(|(present, _)| present == name);
                field.map_or(Value::Nil, |(_, value)| text(value))
            })
            .collect()
    }

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn only() -> StoredPath {
        StoredPath::Only("a/data".into())
    }

    /// The fields of a good hash, with one of them replaced.
    fn with(name: &str, value: Value) -> Vec<Value> {
        let meta = LayerMeta::new("a/data", 5)
            .unwrap()
            .with_last_modified(UNIX_EPOCH);
        let mut values = stored(&meta, true);
        values[READ.iter().position(|read| *read == name).unwrap()] = value;
        values
    }

    #[test]
    fn what_a_go_registry_wrote_is_read() {
        let mut values = vec![Value::Nil; READ.len()];
        values[6] = text("800");
        values[7] = text(&DIGEST.to_string());
        let meta = read(&DIGEST, only(), &values).unwrap();
        assert_eq!((meta.path(), meta.length()), ("a/data", 800));
        assert!(!meta.is_full());
        assert_eq!(read(&DIGEST, StoredPath::Any, &values), None, "no path");
    }

    #[test]
    fn what_is_broken_or_of_another_blob_is_a_miss() {
        let other = Digest::Sha256([8; 32]).to_string();
        for (name, value) in [
            ("path", text("b/data")),
            ("path", text("")),
            ("path", Value::Int(1)),
            ("length", Value::Nil),
            ("length", text("")),
            ("length", text("-5")),
            ("length", text("+5")),
            ("length", text("5 ")),
            ("length", text("0")),
            ("length", text("18446744073709551616")),
            ("length", Value::BulkString(vec![0xff])),
            ("e_tag", Value::BulkString(vec![0xff])),
            ("e_tag", text(&"x".repeat(LONGEST + 1))),
            ("last_modified", text("1")),
            ("last_modified", text("1.5")),
            ("last_modified", text("-1.000000000")),
            ("last_modified", text("99999999999999999999.000000000")),
            ("size", text("6")),
            ("size", text("x")),
            ("digest", text(&other)),
            ("digest", text("sha256:")),
        ] {
            let values = with(name, value.clone());
            assert_eq!(read(&DIGEST, only(), &values), None, "{name} {value:?}");
        }
        assert_eq!(read(&DIGEST, only(), &[]), None);
        assert!(read(&DIGEST, only(), &with("size", text("5"))).is_some());
        assert_eq!(
            read(&DIGEST, StoredPath::None, &with("size", Value::Nil)),
            None
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            length in 1..u64::MAX, e_tag: Option<String>, version: Option<String>, attributes: Option<String>,
            modified in prop::option::of((0..1u64 << 40, 0..1_000_000_000u32)), path: bool,
        ) {
            let mut meta = LayerMeta::new("a/data", length).unwrap();
            if let Some(text) = e_tag { meta = meta.with_e_tag(text) }
            if let Some(text) = version { meta = meta.with_version(text) }
            if let Some(text) = attributes { meta = meta.with_attributes(text) }
            if let Some((seconds, nanos)) = modified {
                meta = meta.with_last_modified(UNIX_EPOCH + Duration::new(seconds, nanos));
            }
            prop_assert_eq!(read(&DIGEST, only(), &stored(&meta, path)), Some(meta));
        }

        #[test]
        fn foreign_bytes_never_panic(values in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..40)), 0..10)) {
            let values: Vec<_> = values.into_iter().map(|value| value.map_or(Value::Nil, Value::BulkString)).collect();
            let _ = read(&DIGEST, StoredPath::Any, &values);
        }
    }
}
