//! How the fields of a blob's hash are written, and how they are checked when they are read.

use crate::cache::redis::net::servers::Reply;
use crate::cache::shared::is_plausible;
use crate::types::layer_meta::Parts;
use crate::types::netstring::{is_line, is_pairs};
use crate::types::{Digest, LayerMeta};
use ::redis::Value;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The fields that are read, in this order: this crate's own, then those of today's Go registry.
pub(crate) const READ: [&str; 8] = [
    "path",
    "length",
    "e_tag",
    "version",
    "last_modified",
    "attributes",
    "size",
    "digest",
];

/// Which path a hash may name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum StoredPath {
    /// Any path: there is no layout to compare it with.
    Any,
    /// The path in the hash: the layout agrees with it.
    Stored,
    /// This path. A hash without a path means this path, too.
    Only(String),
    /// No path: the layout has no place for the blob.
    None,
}

/// The error for a value that neither a node nor a Go registry has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

/// The longest text that is accepted. It is longer than any that a backend writes.
const LONGEST: usize = 4096;

/// The last second that an HTTP date can express, in the year 9999.
const LAST: u64 = 253_402_300_799;

/// Reads the reply to `SISMEMBER`, or to `SMISMEMBER` of `count` members.
pub(crate) fn read_members(
    count: usize,
    reply: Option<Reply>,
) -> Result<impl Iterator<Item = bool>, Broken> {
    let values = match reply {
        Some(Err(failure)) if failure.code() == Some("WRONGTYPE") => return Err(Broken),
        Some(Ok(Value::Array(values))) if values.len() == count => values,
        Some(Ok(value)) if count == 1 => vec![value],
        _ => Vec::new(),
    };
    let is_member = |value: Value| value == Value::Int(1);
    Ok(values.into_iter().map(is_member))
}

/// Reads the reply to `HMGET` of [`READ`].
pub(crate) fn read_hash(
    digest: &Digest,
    path: StoredPath,
    reply: Option<Reply>,
) -> Result<Option<LayerMeta>, Broken> {
    match reply {
        Some(Err(failure)) if failure.code() == Some("WRONGTYPE") => Err(Broken),
        Some(Ok(Value::Array(values))) => read(digest, path, &values),
        _ => Ok(None),
    }
}

/// Returns the path that a reply to `HMGET` of [`READ`] contains.
pub(crate) fn stored_path(reply: Option<&Reply>) -> Option<&str> {
    match reply {
        Some(Ok(Value::Array(values))) => read_text(values.first()?).ok()?,
        _ => None,
    }
}

/// Reads the values of [`READ`]. Returns `None` if there are none, or if `path` allows no path for
/// them. A length that the blob cannot have is an error.
pub(crate) fn read(
    digest: &Digest,
    path: StoredPath,
    values: &[Value],
) -> Result<Option<LayerMeta>, Broken> {
    match read_whatever(digest, path, values)? {
        Some(meta) if !is_plausible(digest, &meta) => Err(Broken),
        meta => Ok(meta),
    }
}

/// Reads the values as [`read`] does, but accepts any length.
pub(crate) fn read_whatever(
    digest: &Digest,
    path: StoredPath,
    values: &[Value],
) -> Result<Option<LayerMeta>, Broken> {
    if values.iter().all(|value| *value == Value::Nil) {
        return Ok(None);
    }
    let values: &[Value; READ.len()] = values.try_into().map_err(|_| Broken)?;
    let mut texts = [None; READ.len()];
    for (text, value) in texts.iter_mut().zip(values) {
        *text = read_text(value)?;
    }
    let [
        stored,
        length,
        e_tag,
        version,
        modified,
        attributes,
        size,
        named,
    ] = texts;

    if named.is_some_and(|named| named.parse() != Ok(*digest)) {
        return Err(Broken);
    }
    let length = match (length.map(read_number), size.map(read_number)) {
        (Some(length), None) | (None, Some(length)) => length?,
        (Some(length), Some(size)) if length == size => length?,
        _ => return Err(Broken),
    };
    // With a layout, the attributes are those of a store, which are written as pairs.
    let is_whole: fn(&str) -> bool = match path {
        StoredPath::Any => |_| true,
        _ => is_pairs,
    };
    let path = match (&path, stored) {
        (StoredPath::Any | StoredPath::Stored, Some(stored)) => stored,
        (StoredPath::Only(path), None) => path,
        (StoredPath::Only(path), Some(stored)) if path == stored => path,
        (StoredPath::Only(_), Some(_)) => return Err(Broken),
        (StoredPath::Any | StoredPath::Stored, None) | (StoredPath::None, _) => return Ok(None),
    };
    let parts = Parts {
        path,
        length,
        e_tag: believe(e_tag, is_line)?,
        version: believe(version, is_line)?,
        last_modified: modified.map(read_time).transpose()?,
        attributes: believe(attributes, is_whole)?,
    };
    LayerMeta::from_parts(parts).map(Some).map_err(|_| Broken)
}

/// Returns a text, or `None` if it is absent.
pub(crate) fn read_text(value: &Value) -> Result<Option<&str>, Broken> {
    match value {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) if bytes.len() <= LONGEST => {
            std::str::from_utf8(bytes).map(Some).map_err(|_| Broken)
        }
        _ => Err(Broken),
    }
}

fn believe(text: Option<&str>, is_good: fn(&str) -> bool) -> Result<Option<&str>, Broken> {
    match text {
        Some(text) if !is_good(text) => Err(Broken),
        text => Ok(text),
    }
}

/// Reads a number of digits only; `parse` would also take a sign. A number that a Go registry could
/// not write, above `i64::MAX`, is an error.
fn read_number(text: &str) -> Result<u64, Broken> {
    let number = match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse().map_err(|_| Broken)?,
        false => return Err(Broken),
    };
    (number <= i64::MAX as u64).then_some(number).ok_or(Broken)
}

fn read_time(text: &str) -> Result<SystemTime, Broken> {
    let (seconds, nanos) = text.split_once('.').ok_or(Broken)?;
    let (seconds, nanos) = match (read_number(seconds)?, nanos.len()) {
        (seconds, 9) if seconds <= LAST => (seconds, read_number(nanos)?),
        _ => return Err(Broken),
    };
    let since = Duration::from_secs(seconds) + Duration::from_nanos(nanos);
    UNIX_EPOCH.checked_add(since).ok_or(Broken)
}

fn write_time(time: SystemTime) -> Option<String> {
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    let text = format!("{}.{:09}", since.as_secs(), since.subsec_nanos());
    (since.as_secs() <= LAST).then_some(text)
}

/// Returns the fields to set, and the names of those to remove. A value that a reader would reject
/// is left out. The time is then left out, too, so that the metadata does not count as full.
pub(crate) fn write(
    meta: &LayerMeta,
    path: bool,
) -> (Vec<(&'static str, String)>, Vec<&'static str>) {
    let good = |text: Option<&str>, is_good: fn(&str) -> bool| match text {
        Some(text) if text.len() > LONGEST || !is_good(text) => (None, false),
        text => (text.map(str::to_owned), true),
    };
    let (e_tag, is_tag) = good(meta.e_tag(), is_line);
    let (version, is_version) = good(meta.version(), is_line);
    let (attributes, are_attributes) = good(meta.attributes(), |_| true);
    let modified = meta.last_modified().and_then(write_time);
    let fields = [
        ("path", path.then(|| meta.path().to_owned())),
        ("length", Some(meta.length().to_string())),
        ("e_tag", e_tag),
        ("version", version),
        (
            "last_modified",
            modified.filter(|_| is_tag && is_version && are_attributes),
        ),
        ("attributes", attributes),
        // The length and the digest that a Go registry has written: ours replace them.
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

    /// Returns the fields of a valid hash, with one of them replaced.
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
        let meta = read(&DIGEST, only(), &values).unwrap().unwrap();
        assert_eq!((meta.path(), meta.length()), ("a/data", 800));
        assert!(!meta.is_full());
        for path in [StoredPath::Any, StoredPath::None] {
            assert_eq!(read(&DIGEST, path, &values), Ok(None), "no path");
        }
    }

    #[test]
    fn what_is_broken_or_of_another_blob_is_not_believed() {
        let other = Digest::Sha256([8; 32]).to_string();
        let long = "x".repeat(LONGEST + 1);
        for (name, value) in [
            ("path", text("b/data")),
            ("path", text("a/data/")),
            ("path", text("../a/data")),
            ("path", text("/etc/passwd")),
            ("path", text(&long)),
            ("path", text("")),
            ("path", Value::Int(1)),
            ("length", Value::Nil),
            ("length", text("")),
            ("length", text("-5")),
            ("length", text("+5")),
            ("length", text("5 ")),
            ("length", text(" 5")),
            ("length", text("1e3")),
            ("length", text("0x5")),
            ("length", text("5.0")),
            ("length", text("NaN")),
            ("length", text("٥")),
            ("length", text("9223372036854775808")),
            ("length", text("0")),
            ("length", text("18446744073709551616")),
            ("length", Value::BulkString(vec![0xff])),
            ("e_tag", Value::BulkString(vec![0xff])),
            ("e_tag", text(&long)),
            ("e_tag", text("\"x\"\r\nSet-Cookie: y")),
            ("e_tag", text("\0")),
            ("version", text("\n")),
            ("version", text("\u{85}")),
            ("attributes", text("12:content-type10:text/plai")),
            ("attributes", text("12:content-type")),
            ("attributes", text("12:content-type6:a\r\nb: ")),
            ("attributes", text(&long)),
            ("last_modified", text("1")),
            ("last_modified", text("1.5")),
            ("last_modified", text("-1.000000000")),
            ("last_modified", text("99999999999999999999.000000000")),
            ("last_modified", text("9223372036854775807.000000000")),
            ("last_modified", text("253402300800.000000000")),
            ("last_modified", text("1.+00000000")),
            ("size", text("6")),
            ("size", text("x")),
            ("digest", text(&other)),
            ("digest", text("sha256:")),
        ] {
            let values = with(name, value.clone());
            assert_eq!(
                read(&DIGEST, only(), &values),
                Err(Broken),
                "{name} {value:?}"
            );
        }
        assert_eq!(read(&DIGEST, only(), &[Value::Int(1)]), Err(Broken));
        assert!(
            read(&DIGEST, only(), &with("size", text("5")))
                .unwrap()
                .is_some()
        );
    }

    #[test]
    fn what_is_absent_or_has_no_place_is_not_broken() {
        let nothing = vec![Value::Nil; READ.len()];
        let good = with("size", Value::Nil);
        for (path, values) in [
            (only(), &nothing[..]),
            (StoredPath::Any, &[][..]),
            (StoredPath::None, &good),
        ] {
            assert_eq!(read(&DIGEST, path, values), Ok(None));
        }
    }

    #[test]
    fn what_would_not_be_believed_is_not_written() {
        let meta = LayerMeta::new("a/data", 5)
            .unwrap()
            .with_last_modified(UNIX_EPOCH);
        let late = UNIX_EPOCH + Duration::from_secs(LAST + 1);
        for odd in [
            meta.clone().with_e_tag("\n"),
            meta.clone().with_version("\r"),
            meta.clone().with_attributes("x".repeat(LONGEST + 1)),
            meta.clone().with_last_modified(late),
        ] {
            let bare = LayerMeta::new("a/data", 5).unwrap();
            assert_eq!(read(&DIGEST, only(), &stored(&odd, true)), Ok(Some(bare)));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            length in 1..i64::MAX as u64, e_tag in prop::option::of("\\PC*"), version in prop::option::of("\\PC*"),
            attributes: Option<String>, modified in prop::option::of((0..LAST, 0..1_000_000_000u32)),
        ) {
            let mut meta = LayerMeta::new("a/data", length).unwrap();
            if let Some(text) = e_tag { meta = meta.with_e_tag(text) }
            if let Some(text) = version { meta = meta.with_version(text) }
            if let Some(text) = attributes { meta = meta.with_attributes(text) }
            if let Some((seconds, nanos)) = modified {
                meta = meta.with_last_modified(UNIX_EPOCH + Duration::new(seconds, nanos));
            }
            prop_assert_eq!(read(&DIGEST, StoredPath::Any, &stored(&meta, true)), Ok(Some(meta)));
        }

        #[test]
        fn foreign_bytes_never_panic(values in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..40)), 0..10)) {
            let values: Vec<_> = values.into_iter().map(|value| value.map_or(Value::Nil, Value::BulkString)).collect();
            let _ = read(&DIGEST, StoredPath::Any, &values);
        }
    }
}
