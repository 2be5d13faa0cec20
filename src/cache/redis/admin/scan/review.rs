//! Whether what a scan has seen is still there.

use super::Subject;
use crate::cache::redis::RedisCache;
use crate::cache::redis::net::connect_error::failed;
use crate::cache::redis::net::servers::{KeyedCommand, Reply};
use crate::cache::redis::tier::fields::{self, Broken, StoredPath};
use crate::types::link::{Key, KeyRef};
use crate::types::{Digest, Error, LayerMeta, LinkKind};
use ::redis::{Cmd, Value, cmd};

/// What the hash of a blob holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Held {
    /// Nothing that a node could use as metadata.
    Nothing,
    /// A value that neither a node nor a Go registry has written.
    Broken,
    Meta {
        meta: LayerMeta,
        /// The path in the hash, if there is one.
        path: Option<String>,
        /// The blob's SHA-256 digest, if a Go registry has written this hash under its SHA-512
        /// digest.
        alias_of: Option<Digest>,
    },
    /// Not a hash.
    OtherType,
}

/// How something that a scan has seen is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Now {
    /// It is as it was.
    Same,
    /// It is gone, or different.
    Changed,
    /// A change of it is under way.
    Fenced,
}

impl RedisCache {
    /// Reads what Redis holds about these blobs.
    pub(crate) async fn metas(&self, of: &[Key]) -> Result<Vec<Held>, Error> {
        let commands = of.iter().map(|key| self.fields_command(key));
        let replies = self.run_many("look-up", commands.collect()).await?;
        let held = of.iter().zip(replies);
        held.map(|(key, reply)| self.held(key.into(), reply))
            .collect()
    }

    fn fields_command(&self, key: &Key) -> KeyedCommand {
        on("HMGET", self.keys.subject(key.into()), &fields::READ)
    }

    fn held(&self, of: KeyRef<'_>, reply: Reply) -> Result<Held, Error> {
        let digest = of.digest();
        let mut values = match reply {
            Ok(Value::Array(values)) => values,
            Ok(_) => return Ok(Held::Broken),
            Err(failure) if failure.code() == Some("WRONGTYPE") => return Ok(Held::OtherType),
            Err(failure) => {
                return Err(failed("look-up", failure));
            }
        };
        let [first, .., last] = values.as_slice() else {
            return Ok(Held::Broken);
        };
        let (Ok(path), Ok(named)) = (fields::read_text(first), fields::read_text(last)) else {
            return Ok(Held::Broken);
        };
        let path = path.map(str::to_owned);
        // A Go registry also caches a blob under a digest of another algorithm.
        let named = named.and_then(|named| named.parse::<Digest>().ok());
        let alias_of = named.filter(|named| {
            named != digest && matches!((digest, named), (Digest::Sha512(_), Digest::Sha256(_)))
        });
        if let (Some(_), Some(last)) = (alias_of, values.last_mut()) {
            *last = Value::Nil;
        }
        let expected = match self.path_of(of, path.as_deref()) {
            StoredPath::Only(own) if path.as_ref().is_none_or(|path| *path == own) => {
                StoredPath::Only(own)
            }
            StoredPath::Stored => StoredPath::Stored,
            // Without a path, the repository of the hash is not known.
            _ if path.is_none() => return Ok(Held::Nothing),
            _ => StoredPath::Any,
        };
        Ok(match fields::read_whatever(digest, expected, &values) {
            Ok(Some(meta)) => Held::Meta {
                meta,
                path,
                alias_of,
            },
            Ok(None) => Held::Nothing,
            Err(Broken) => Held::Broken,
        })
    }

    /// Returns how these subjects are now. Costs a round trip for each few hundred.
    pub(crate) async fn review(&self, subjects: &[Subject]) -> Result<Vec<Now>, Error> {
        let mut commands = Vec::with_capacity(subjects.len() * 2);
        for subject in subjects {
            commands.extend(self.questions(subject));
        }
        let mut replies = self.run_many("look-up", commands).await?.into_iter();
        let mut nows = Vec::with_capacity(subjects.len());
        for subject in subjects {
            let mut next = || match replies.next() {
                Some(Err(failure)) if failure.code() != Some("WRONGTYPE") => {
                    Err(failed("look-up", failure))
                }
                Some(reply) => Ok(reply),
                None => Ok(Ok(Value::Nil)),
            };
            nows.push(self.now(subject, next()?, next()?)?);
        }
        Ok(nows)
    }

    /// Returns the two commands that ask how a subject is now.
    fn questions(&self, subject: &Subject) -> [KeyedCommand; 2] {
        let key = subject.key(&self.keys);
        let fence = |fact: &Key| {
            let [_, _, fence] = self.keys.of(fact);
            on("EXISTS", fence, &[] as &[&str])
        };
        let none: &[&str] = &[];
        match subject {
            Subject::Member(link) => [
                on("SISMEMBER", key, &[link.digest.to_string()]),
                fence(&Key::Link(link.clone())),
            ],
            Subject::Meta(of, _) => [self.fields_command(of), fence(of)],
            Subject::MediaType(repository, digest) => {
                let set = self.keys.set_of(LinkKind::Layer, repository);
                [
                    on("EXISTS", key, none),
                    on("SISMEMBER", set, &[digest.to_string()]),
                ]
            }
            Subject::OddMember(_, _, member) => [
                on("SISMEMBER", key.clone(), &[member.as_slice()]),
                on("EXISTS", key, none),
            ],
            Subject::OddType(key, _) | Subject::Forever(key) | Subject::Junk(key) => {
                [on("TYPE", key, none), on("PTTL", key, none)]
            }
        }
    }

    fn now(&self, subject: &Subject, first: Reply, second: Reply) -> Result<Now, Error> {
        let is = |reply: &Reply, number| matches!(reply, Ok(Value::Int(is)) if *is == number);
        let same = |is_same: bool| if is_same { Now::Same } else { Now::Changed };
        let fact = |is_same: bool| match is_same {
            true if is(&second, 1) => Now::Fenced,
            is_same => same(is_same),
        };
        let kind = match &first {
            Ok(Value::SimpleString(kind)) => kind.as_str(),
            _ => "none",
        };
        Ok(match subject {
            Subject::Member(_) => fact(is(&first, 1)),
            Subject::Meta(of, was) => fact(self.held(of.into(), first.clone())? == *was),
            Subject::MediaType(..) => same(is(&first, 1) && !is(&second, 1)),
            Subject::OddMember(..) => same(is(&first, 1)),
            Subject::OddType(_, expected) => same(kind != "none" && kind != *expected),
            Subject::Forever(_) => same(is(&second, -1)),
            Subject::Junk(_) => same(kind != "none"),
        })
    }
}

/// Returns a command whose first argument is a key.
pub(super) fn on(
    name: &str,
    key: impl AsRef<[u8]>,
    args: &[impl ::redis::ToRedisArgs],
) -> KeyedCommand {
    let mut command: Cmd = cmd(name);
    command.arg(key.as_ref());
    for arg in args {
        command.arg(arg);
    }
    KeyedCommand::on_first(command)
}
