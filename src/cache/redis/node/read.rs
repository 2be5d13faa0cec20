//! How values in the replies of the channel's scripts are read.

use ::redis::Value;

pub(crate) fn number(value: &Value) -> Option<u64> {
    text(value)?.parse().ok()
}

pub(crate) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(text) => std::str::from_utf8(text).ok(),
        _ => None,
    }
}
