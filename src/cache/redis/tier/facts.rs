//! How each kind of fact is kept in Redis: what is written, what is asked, and what is believed.
//!
//! A membership is a member of a set. Metadata is a hash, whose [`fields`] are checked.

use crate::cache::redis::RedisCache;
use crate::cache::redis::net::servers::{KeyedCommand, Reply};
use crate::cache::redis::tier::call::Fields;
use crate::cache::redis::tier::fields::{self, StoredPath};
use crate::cache::shared::Value;
use crate::types::link::{KeyKind, KeyRef};
use crate::types::{LayerMeta, Link};
use ::redis::{Cmd, RedisWrite};

impl RedisCache {
    /// Returns the fields of the hash that stores this value: those to set, and the names of those to
    /// remove. A member of a set has none.
    pub(crate) fn fields(&self, value: &Value) -> Fields {
        match value {
            Value::Member { .. } => Fields::default(),
            Value::Meta(meta) => fields::write(meta, !self.omit_path || self.layout.is_none()),
        }
    }

    /// Returns a command that asks whether these links, all of one set, are its members. For one
    /// link it is `SISMEMBER`, as in docker/distribution.
    pub(super) fn membership_of(&self, links: &[&Link]) -> Option<KeyedCommand> {
        let (first, name) = match links {
            [] => return None,
            [one] => (one, "SISMEMBER"),
            [first, ..] => (first, "SMISMEMBER"),
        };
        let set = self.keys.set_of(first.kind, &first.repository);
        let texts = links.iter().map(|link| link.digest.text_len());
        let size = name.len() + set.len() + texts.sum::<usize>();
        let mut command = Cmd::with_capacity(links.len() + 2, size);
        command.arg(name).arg(set);
        for link in links {
            command.write_arg_fmt(link.digest);
        }
        Some(KeyedCommand::on_first(command))
    }

    /// Returns a command that asks for the fields of a hash.
    pub(super) fn fields_of(&self, key: KeyRef<'_>) -> KeyedCommand {
        let mut command = Cmd::with_capacity(fields::READ.len() + 2, 192);
        command.arg("HMGET");
        self.keys.write_subject(key, &mut command);
        command.arg(&fields::READ);
        KeyedCommand::on_first(command)
    }

    /// Reads the reply to that command. A broken value counts as missing.
    pub(super) fn read_meta(&self, key: KeyRef<'_>, reply: Option<Reply>) -> Option<LayerMeta> {
        let path = self.path_of(key, fields::stored_path(reply.as_ref()));
        fields::read_hash(key.digest(), path, reply).unwrap_or_else(|fields::Broken| {
            self.count_broken(KeyKind::Meta, 1);
            None
        })
    }

    /// Counts values of this kind that no node can have written.
    pub(super) fn count_broken(&self, kind: KeyKind, values: usize) {
        self.broken[kind as usize].increment(values as u64);
    }

    /// Returns which path a hash may name, as the layout says. `stored` is the path in the hash, if
    /// any.
    pub(crate) fn path_of(&self, key: KeyRef<'_>, stored: Option<&str>) -> StoredPath {
        let Some(layout) = &self.layout else {
            return StoredPath::Any;
        };
        let path = match key {
            KeyRef::Meta(digest) => {
                if stored.is_some_and(|stored| layout.is_blob_path(digest, stored)) {
                    return StoredPath::Stored;
                }
                layout.blob_path(digest)
            }
            KeyRef::Own(link) | KeyRef::Link(link) => layout.link_path(&link.to_owned()),
        };
        match path {
            Some(path) => StoredPath::Only(path.into()),
            None => StoredPath::None,
        }
    }
}
