//! What Redis holds about one blob in one repository.

use crate::cache::redis::RedisCache;
use crate::cache::redis::net::connect_error::failed;
use crate::cache::redis::net::servers::{KeyedCommand, Reply};
use crate::cache::redis::tier::fields::{self, StoredPath};
use crate::types::link::Key;
use crate::types::{Digest, Error, LayerMeta, Link, RepositoryName};
use ::redis::{ErrorKind, RedisError, Value, cmd};
use std::time::Duration;

/// All that Redis holds about one blob in one repository.
///
/// ```
/// use layercache::admin::InRedis;
///
/// /// Prints the hash as `redis-cli HGETALL` would show it.
/// fn print(redis: &InRedis) {
///     println!("{}", redis.meta.key);
///     for (name, value) in &redis.fields {
///         println!("  {name} {value}");
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct InRedis {
    /// The blob's membership as a layer.
    pub layer: RedisEntry<()>,
    /// Its membership as a manifest.
    pub manifest: RedisEntry<()>,
    /// Its metadata, as a node would read it.
    pub meta: RedisEntry<LayerMeta>,
    /// The fields of its hash as they are stored, including those of a Go registry.
    pub fields: Vec<(&'static str, String)>,
    /// The media type that a Go registry notes for each repository, in a key of its own.
    pub media_type: RedisEntry<String>,
}

/// The value of a key, and the lease and the fence beside it.
///
/// ```
/// use layercache::LayerMeta;
/// use layercache::admin::{Life, RedisEntry};
///
/// fn print(meta: &RedisEntry<LayerMeta>) {
///     if let (Some(meta), Some(Life::For(rest))) = (meta.found(), meta.life) {
///         println!("{} bytes, for {} s more", meta.length(), rest.as_secs());
///     }
///     if let Some(fence) = meta.fence {
///         println!("{} changes are under way", fence.changes);
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedisEntry<T> {
    /// The key. A set belongs to the whole repository.
    pub key: String,
    /// What the key says about this blob.
    pub value: Held<T>,
    /// How much longer the key lives; `None` if there is no key.
    pub life: Option<Life>,
    /// How much longer a node may fill the key; `None` if no node has a lease.
    pub lease: Option<Life>,
    /// The changes that are under way; `None` if none are.
    pub fence: Option<Fence>,
}

/// What a key holds.
///
/// ```
/// use layercache::admin::Held;
///
/// fn word(membership: &Held<()>) -> &'static str {
///     match membership {
///         Held::Found(()) => "member",
///         Held::Absent => "not known",
///         Held::Broken => "unreadable",
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held<T> {
    /// Nothing. A look-up asks the storage.
    Absent,
    /// A value of another type, or one that makes no sense. Nodes treat it as absent.
    Broken,
    /// This value.
    Found(T),
}

/// How much longer a key lives.
///
/// ```
/// use layercache::admin::Life;
///
/// fn text(life: Option<Life>) -> String {
///     match life {
///         Some(Life::For(rest)) => format!("{} s", rest.as_secs()),
///         Some(Life::Forever) => "without end".to_owned(),
///         None => "-".to_owned(),
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// For this long.
    For(Duration),
    /// Until it is removed. A Go registry writes such keys; a node of this crate does not.
    Forever,
}

/// The fence around a key that is being changed. While it stands, no node fills the key.
///
/// ```
/// use layercache::admin::{Fence, Life};
///
/// /// Whether the node of the change may be gone: a change renews its fence.
/// fn is_left_behind(fence: &Fence) -> bool {
///     matches!(fence.life, Life::For(rest) if rest.as_secs() < 2)
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fence {
    /// How many changes hold the fence.
    pub changes: u64,
    /// How much longer the fence stands if no change renews it.
    pub life: Life,
}

impl<T> RedisEntry<T> {
    /// Returns the value, if there is one.
    pub const fn found(&self) -> Option<&T> {
        match &self.value {
            Held::Found(value) => Some(value),
            Held::Absent | Held::Broken => None,
        }
    }
}

/// Returns a command whose only argument is the key.
fn ask(command: &str, key: &str) -> KeyedCommand {
    let mut cmd = cmd(command);
    cmd.arg(key);
    KeyedCommand::on_first(cmd)
}

/// Adds the commands that ask for the TTL of a key, its lease and its fence.
fn ask_around(commands: &mut Vec<KeyedCommand>, [subject, lease, fence]: &[String; 3]) {
    commands.push(ask("PTTL", subject));
    commands.push(ask("PTTL", lease));
    commands.push(ask("SCARD", fence));
    commands.push(ask("PTTL", fence));
}

impl RedisCache {
    /// Reads all about a blob in a repository, in one round trip. Writes nothing.
    pub(crate) async fn inspect(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<InRedis, Error> {
        let layer = Link::layer(repository.clone(), *digest);
        let manifest = Link::manifest(repository.clone(), *digest);
        let kept = self.kept(&layer, &manifest);
        let of = self.meta_of(kept);
        let hash = self.keys.of(&of);
        let sets = [layer, manifest].map(|link| self.keys.of(&Key::Link(link)));
        let media_type = format!("{}::{digest}", sets[0][0]);

        let mut commands = Vec::with_capacity(17);
        for keys in &sets {
            let mut cmd = cmd("SISMEMBER");
            cmd.arg(&keys[0]).arg(digest.to_string());
            commands.push(KeyedCommand::on_first(cmd));
            ask_around(&mut commands, keys);
        }
        let mut cmd = cmd("HMGET");
        cmd.arg(&hash[0]).arg(&fields::READ).arg("mediatype");
        commands.push(KeyedCommand::on_first(cmd));
        ask_around(&mut commands, &hash);
        let mut cmd = ::redis::cmd("HMGET");
        cmd.arg(&media_type).arg("mediatype");
        commands.push(KeyedCommand::on_first(cmd));
        commands.push(ask("PTTL", &media_type));

        let replies = self.servers.run("inspect", commands, self.read_deadline());
        let mut replies = Replies(replies.await?.each.into_iter());
        let [layer, manifest] = sets;
        let layer = replies.member(layer)?;
        let manifest = replies.member(manifest)?;
        let (value, fields) = self.read_fields(&of, replies.next()?);
        let meta = replies.entry(hash, value)?;
        let value = match replies.next()? {
            Some(Value::Array(values)) => match values.first().map(bytes) {
                Some(Some(text)) => Held::Found(text),
                Some(None) => Held::Absent,
                None => Held::Broken,
            },
            _ => Held::Broken,
        };
        let media_type = RedisEntry {
            key: media_type,
            value,
            life: replies.life()?,
            lease: None,
            fence: None,
        };
        Ok(InRedis {
            layer,
            manifest,
            meta,
            fields,
            media_type,
        })
    }

    /// Returns the membership for which the layout has a path; the layer's, if it has both.
    fn kept<'a>(&self, layer: &'a Link, manifest: &'a Link) -> &'a Link {
        let has = |link: &Link| {
            let layout = self.layout.as_ref();
            layout.is_none_or(|layout| layout.link_path(link).is_some())
        };
        match !has(layer) && has(manifest) {
            true => manifest,
            false => layer,
        }
    }

    /// Returns a hash as a node would read it, and its fields as they are stored.
    fn read_fields(
        &self,
        of: &Key,
        reply: Option<Value>,
    ) -> (Held<LayerMeta>, Vec<(&'static str, String)>) {
        let Some(Value::Array(values)) = reply else {
            return (Held::Broken, Vec::new());
        };
        let names = fields::READ.iter().copied().chain(["mediatype"]);
        let named = names.zip(&values);
        let fields: Vec<_> = named
            .filter_map(|(name, value)| Some((name, bytes(value)?)))
            .collect();
        let ours = values.get(..fields::READ.len()).unwrap_or_default();
        let reply = Ok(Value::Array(ours.to_vec()));
        let path: StoredPath = self.path_of(of.into(), fields::stored_path(Some(&reply)));
        let value = match fields::read_hash(of.digest(), path, Some(reply)) {
            Ok(Some(meta)) => Held::Found(meta),
            Ok(None) => Held::Absent,
            Err(fields::Broken) => Held::Broken,
        };
        (value, fields)
    }
}

/// The replies, in the order of the questions.
struct Replies(std::vec::IntoIter<Reply>);

impl Replies {
    /// Returns the next reply; `None` if the key is of another type.
    fn next(&mut self) -> Result<Option<Value>, Error> {
        match self.0.next() {
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err(failure)) if failure.code() == Some("WRONGTYPE") => Ok(None),
            Some(Err(failure)) => Err(failed("inspect", failure)),
            None => Err(failed("inspect", odd())),
        }
    }

    fn life(&mut self) -> Result<Option<Life>, Error> {
        match self.next()? {
            Some(Value::Int(-2)) => Ok(None),
            Some(Value::Int(-1)) => Ok(Some(Life::Forever)),
            Some(Value::Int(millis)) => {
                let millis = u64::try_from(millis).unwrap_or(0);
                Ok(Some(Life::For(Duration::from_millis(millis))))
            }
            _ => Err(failed("inspect", odd())),
        }
    }

    fn member(&mut self, keys: [String; 3]) -> Result<RedisEntry<()>, Error> {
        let value = match self.next()? {
            Some(Value::Int(1)) => Held::Found(()),
            Some(_) => Held::Absent,
            None => Held::Broken,
        };
        self.entry(keys, value)
    }

    fn entry<T>(&mut self, keys: [String; 3], value: Held<T>) -> Result<RedisEntry<T>, Error> {
        let [key, ..] = keys;
        let life = self.life()?;
        let lease = self.life()?;
        // A value that is not a set is not a fence.
        let changes = match self.next()? {
            Some(Value::Int(changes)) => u64::try_from(changes).unwrap_or(0),
            _ => 0,
        };
        let fence = self.life()?.filter(|_| changes > 0);
        Ok(RedisEntry {
            key,
            value,
            life,
            lease,
            fence: fence.map(|life| Fence { changes, life }),
        })
    }
}

fn odd() -> RedisError {
    RedisError::from((ErrorKind::UnexpectedReturnType, "an answer makes no sense"))
}

fn bytes(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        _ => None,
    }
}
