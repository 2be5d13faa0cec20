//! What does Redis hold about one blob in one repository?

use crate::admin::scan::{NONE, number, on, unexpected};
use layercache::internals::{AdminClient, FIELDS, Key};
use layercache::layout::Layout;
use layercache::{Digest, Error, LayerMeta, Link, RepositoryName};
use redis::{Cmd, Value};
use std::time::Duration;

/// All that Redis holds about one blob in one repository.
#[derive(Debug, Clone, PartialEq, Eq)]
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisEntry<T> {
    /// The key. A set belongs to the whole repository.
    pub key: String,
    /// The value that the key holds for this blob.
    pub value: StoredValue<T>,
    /// How much longer the key lives; `None` if there is no key.
    pub life: Option<Life>,
    /// How much longer a node may fill the key; `None` if no node has a lease.
    pub lease: Option<Life>,
    /// The changes that are under way; `None` if none are.
    pub fence: Option<Fence>,
}

/// The contents of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredValue<T> {
    /// Nothing. A look-up asks the storage.
    Absent,
    /// A value of another type, or one that makes no sense. Nodes treat it as absent.
    Broken,
    /// This value.
    Found(T),
}

/// How much longer a key lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// For this long.
    For(Duration),
    /// Until it is removed. A Go registry writes such keys; a node of this crate does not.
    Forever,
}

/// The fence around a key that is being changed. While it stands, no node fills the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
            StoredValue::Found(value) => Some(value),
            StoredValue::Absent | StoredValue::Broken => None,
        }
    }
}

/// Reads all about a blob in a repository, in one round trip. Writes nothing.
pub(super) async fn in_redis(
    client: &AdminClient,
    layout: &dyn Layout,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<InRedis, Error> {
    let links = [Link::layer, Link::manifest].map(|link| link(repository.clone(), *digest));
    let of = &subject(layout, &links);
    let hash = client.keys_of(of);
    let media_type = client.media_type_key(repository, digest);
    let sets = links.map(|link| client.keys_of(&Key::Link(link)));

    let mut commands = Vec::with_capacity(17);
    for keys in &sets {
        commands.push(on("SISMEMBER", &keys[0], &[digest.to_string()]));
        ask_around(&mut commands, keys);
    }
    let mut fields = on("HMGET", &hash[0], &FIELDS);
    fields.arg("mediatype");
    commands.push(fields);
    ask_around(&mut commands, &hash);
    commands.push(on("HMGET", &media_type, &["mediatype"]));
    commands.push(on("PTTL", &media_type, NONE));

    let mut replies = ReplyReader(client.run("inspect", commands).await?.into_iter());
    let [layer, manifest] = sets;
    let layer = replies.member(layer)?;
    let manifest = replies.member(manifest)?;
    let (value, fields) = read_fields(client, of, replies.next()?);
    let meta = replies.entry(hash, value)?;
    let value = match replies.next()? {
        Some(Value::Array(values)) => match values.first().map(text) {
            Some(Some(text)) => StoredValue::Found(text),
            Some(None) => StoredValue::Absent,
            None => StoredValue::Broken,
        },
        _ => StoredValue::Broken,
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

/// Adds the commands that ask for the TTL of a key, its lease and its fence.
fn ask_around(commands: &mut Vec<Cmd>, [subject, lease, fence]: &[String; 3]) {
    commands.push(on("PTTL", subject, NONE));
    commands.push(on("PTTL", lease, NONE));
    commands.push(on("SCARD", fence, NONE));
    commands.push(on("PTTL", fence, NONE));
}

/// Returns whose metadata to read: that of the blob if repositories share blobs, else that of the
/// repository's own object. Its path is the layer's, if the layout has a path for layers.
fn subject(layout: &dyn Layout, [layer, manifest]: &[Link; 2]) -> Key {
    let has = |link| layout.link_path(link).is_some();
    let own = match !has(layer) && has(manifest) {
        true => manifest,
        false => layer,
    };
    match layout.blob_path(&own.digest) {
        Some(_) => Key::Meta(own.digest),
        None => Key::Own(own.clone()),
    }
}

/// Returns a hash as a node would read it, and its fields as they are stored.
fn read_fields(
    client: &AdminClient,
    of: &Key,
    reply: Option<Value>,
) -> (StoredValue<LayerMeta>, Vec<(&'static str, String)>) {
    let Some(Value::Array(mut values)) = reply else {
        return (StoredValue::Broken, Vec::new());
    };
    let names = FIELDS.into_iter().chain(["mediatype"]);
    let named = names.zip(&values);
    let fields = named
        .filter_map(|(name, value)| Some((name, text(value)?)))
        .collect();
    values.truncate(FIELDS.len());
    let value = match client.read_as_node(of, values) {
        Ok(Some(meta)) => StoredValue::Found(meta),
        Ok(None) => StoredValue::Absent,
        Err(_) => StoredValue::Broken,
    };
    (value, fields)
}

/// The replies, in the order of the commands.
struct ReplyReader(std::vec::IntoIter<Option<Value>>);

impl ReplyReader {
    /// Returns the next reply; `None` if the key has another type.
    fn next(&mut self) -> Result<Option<Value>, Error> {
        self.0.next().ok_or_else(|| unexpected("inspect"))
    }

    fn life(&mut self) -> Result<Option<Life>, Error> {
        match self.next()? {
            Some(Value::Int(-2)) => Ok(None),
            Some(Value::Int(-1)) => Ok(Some(Life::Forever)),
            reply => {
                let millis = reply.as_ref().and_then(number);
                let millis = millis.ok_or_else(|| unexpected("inspect"))?;
                Ok(Some(Life::For(Duration::from_millis(millis))))
            }
        }
    }

    fn member(&mut self, keys: [String; 3]) -> Result<RedisEntry<()>, Error> {
        let value = match self.next()? {
            Some(Value::Int(1)) => StoredValue::Found(()),
            Some(_) => StoredValue::Absent,
            None => StoredValue::Broken,
        };
        self.entry(keys, value)
    }

    fn entry<T>(
        &mut self,
        keys: [String; 3],
        value: StoredValue<T>,
    ) -> Result<RedisEntry<T>, Error> {
        let [key, ..] = keys;
        let life = self.life()?;
        let lease = self.life()?;
        // A value that is not a set is not a fence.
        let changes = self.next()?.as_ref().and_then(number).unwrap_or(0);
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

fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        _ => None,
    }
}
