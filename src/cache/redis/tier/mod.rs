//! How facts are kept in Redis: the keys and fields, the look-ups, and the scripts that fill and
//! change entries.

pub(crate) mod call;
mod facts;
pub(crate) mod fetch;
pub(crate) mod fields;
pub(crate) mod keys;
mod many;
mod plain;
pub(crate) mod scripts;
mod shared_tier;
