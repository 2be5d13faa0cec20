//! [`AdminClient`]: a client of Redis that is not a node.

use crate::cache::redis::net::address::HostPort;
use crate::cache::redis::net::cluster::is_moving;
use crate::cache::redis::net::connect_error::failed;
use crate::cache::redis::net::connection::Connection;
use crate::cache::redis::net::purge::escaped;
use crate::cache::redis::net::server_info::About;
use crate::cache::redis::net::servers::{KeyedCommand, Servers};
use crate::cache::redis::node::announce::read_peer_set;
use crate::cache::redis::node::channel::nodes_key;
use crate::cache::redis::node::scripts::ANNOUNCE;
use crate::cache::redis::tier::fields::{self, Broken, StoredPath};
use crate::cache::redis::{RedisCache, RedisConfig};
use crate::cache::shared::SharedTier;
use crate::coherence::message::{MOST_NAMES, Message};
use crate::coherence::peers::term::MOST_TRUST;
use crate::layout::Layout;
use crate::types::link::{Key, WireName};
use crate::types::{Digest, Error, LayerMeta, LinkKind, RepositoryName};
use ::redis::{Arg, Cmd, ErrorKind, Pipeline, RedisError, RedisResult, Value, cmd};
use std::sync::Arc;
use std::time::Duration;

/// The fields of a blob's hash that a node reads, in this order.
pub const FIELDS: [&str; 8] = fields::READ;

/// The most commands in a round trip.
const MOST_COMMANDS: usize = 512;

/// A client of Redis that is not a node.
///
/// It is not in the peer set, so no change waits for it. It leaves no key of its own in Redis, so a
/// Redis that only Go registries use gets no foreign keys. It receives no messages of the nodes.
#[derive(Debug)]
pub struct AdminClient {
    redis: RedisCache,
}

/// All servers that have keys, in an order that a failover does not change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shards {
    /// The servers.
    pub list: Vec<Shard>,
    /// A checksum of how the keys are shared out among the servers.
    pub share: u32,
}

/// One server that has keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// The address of the server in a cluster; `None` for a single server.
    place: Option<HostPort>,
}

/// A page of a server's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPage {
    /// The identity of the server. A cursor means nothing to a server with another identity, such
    /// as the same server after a restart.
    pub identity: String,
    /// Where the next page begins; 0 if there is none.
    pub next: u64,
    /// The names of the keys.
    pub keys: Vec<Vec<u8>>,
}

/// The metadata that a hash holds, and how the hash names its blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMeta {
    /// The metadata.
    pub meta: LayerMeta,
    /// The path in the hash, if there is one.
    pub path: Option<String>,
    /// The blob's SHA-256 digest, if a Go registry has written this hash under its SHA-512 digest.
    pub alias_of: Option<Digest>,
}

impl AdminClient {
    /// Creates a client of the Redis that `config` names, for a store with this layout. Does not
    /// connect yet.
    ///
    /// # Errors
    /// Returns an error if a setting is not valid.
    pub fn new(config: RedisConfig, layout: Arc<dyn Layout>) -> Result<Self, Error> {
        let redis = RedisCache::new(config)?.with_layout(layout);
        Ok(Self { redis })
    }

    /// Returns what the keys of all facts begin with.
    pub fn prefix(&self) -> &str {
        self.redis.keys.prefix()
    }

    /// Returns the key of a repository's set.
    pub fn set_key(&self, kind: LinkKind, repository: &RepositoryName) -> String {
        self.redis.keys.set_of(kind, repository)
    }

    /// Returns the key in which a Go registry notes the media type that a blob has in a repository.
    pub fn media_type_key(&self, repository: &RepositoryName, digest: &Digest) -> String {
        self.redis.keys.media_type(repository, digest)
    }

    /// Returns the key that holds a fact, the key of its lease, and the key of its fence.
    pub fn keys_of(&self, fact: &Key) -> [String; 3] {
        self.redis.keys.of(fact)
    }

    /// Reads the values of [`FIELDS`] in a hash as a node does.
    ///
    /// # Errors
    /// Returns an error for a value that neither a node nor a Go registry writes.
    pub fn read_as_node(&self, of: &Key, values: Vec<Value>) -> Result<Option<LayerMeta>, Broken> {
        let reply = Ok(Value::Array(values));
        let path = self
            .redis
            .path_of(of.into(), fields::stored_path(Some(&reply)));
        fields::read_hash(of.digest(), path, Some(reply))
    }

    /// Reads the values of [`FIELDS`] in a hash as they are stored: with any length and any path,
    /// so that a caller can compare them with the storage. Returns `None` if a node could not use
    /// them as metadata.
    ///
    /// # Errors
    /// Returns an error for a value that neither a node nor a Go registry writes.
    pub fn read_as_stored(
        &self,
        of: &Key,
        mut values: Vec<Value>,
    ) -> Result<Option<StoredMeta>, Broken> {
        let digest = of.digest();
        let [first, .., last] = values.as_slice() else {
            return Err(Broken);
        };
        let path = fields::read_text(first)?.map(str::to_owned);
        // A Go registry also caches a blob under a digest of another algorithm.
        let named = fields::read_text(last)?.and_then(|named| named.parse::<Digest>().ok());
        let alias_of = named.filter(|named| {
            named != digest && matches!((digest, named), (Digest::Sha512(_), Digest::Sha256(_)))
        });
        if let (Some(_), Some(last)) = (alias_of, values.last_mut()) {
            *last = Value::Nil;
        }
        let expected = match self.redis.path_of(of.into(), path.as_deref()) {
            StoredPath::Only(own) if path.as_ref().is_none_or(|path| *path == own) => {
                StoredPath::Only(own)
            }
            StoredPath::Stored => StoredPath::Stored,
            // Without a path, the repository of the hash is not known.
            _ if path.is_none() => return Ok(None),
            _ => StoredPath::Any,
        };
        let meta = fields::read_whatever(digest, expected, &values)?;
        Ok(meta.map(|meta| StoredMeta {
            meta,
            path,
            alias_of,
        }))
    }

    /// Runs commands, some hundreds in a round trip. The key is the first argument of a command,
    /// and the third of an `EVAL`. Returns `None` for a command whose key has another type.
    ///
    /// # Errors
    /// Returns an error if Redis does not answer, or if it refuses a command for another reason.
    pub async fn run(
        &self,
        operation: &'static str,
        commands: Vec<Cmd>,
    ) -> Result<Vec<Option<Value>>, Error> {
        let mut replies = Vec::with_capacity(commands.len());
        let mut commands = commands.into_iter().map(keyed).peekable();
        while commands.peek().is_some() {
            let some: Vec<_> = commands.by_ref().take(MOST_COMMANDS).collect();
            let deadline = self.redis.read_deadline();
            let some = self.redis.servers.run(operation, some, deadline).await?;
            for reply in some.each {
                replies.push(match reply {
                    Ok(value) => Some(value),
                    Err(failure) if failure.code() == Some("WRONGTYPE") => None,
                    Err(failure) => return Err(failed(operation, failure)),
                });
            }
        }
        Ok(replies)
    }

    /// Returns the servers that have keys now.
    ///
    /// # Errors
    /// Returns an error if no server of a cluster answers.
    pub async fn shards(&self) -> Result<Shards, Error> {
        let Servers::Cluster(cluster) = &self.redis.servers else {
            return Ok(Shards {
                list: vec![Shard { place: None }],
                share: 0,
            });
        };
        let shares = cluster.shares().await;
        let (places, share) = shares.map_err(|trouble| failed("look around", trouble))?;
        let list = places.into_iter().map(|place| Shard { place: Some(place) });
        Ok(Shards {
            list: list.collect(),
            share,
        })
    }

    /// Returns whether keys are moving from one server of a cluster to another.
    ///
    /// # Errors
    /// Returns an error if a server does not answer.
    pub async fn is_moving(&self, shards: &Shards) -> Result<bool, Error> {
        for shard in shards.list.iter().filter(|shard| shard.place.is_some()) {
            let connection = self.connection(shard).get().await;
            let mut connection = connection.map_err(|failure| failed("look around", failure))?;
            let moving = is_moving(&mut connection).await;
            if moving.map_err(|error| failed("look around", error))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Counts all keys of a server, including those of other applications.
    ///
    /// # Errors
    /// Returns an error if the server does not answer.
    pub async fn key_count(&self, shard: &Shard) -> Result<u64, Error> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("DBSIZE");
        let replies = self.connection(shard).run("count", &mut pipeline).await?;
        match replies.into_iter().next() {
            Some(Ok(Value::Int(count))) => Ok(count.try_into().unwrap_or(0)),
            other => Err(unexpected("count", other)),
        }
    }

    /// Reads about `count` keys of a server, and returns those that begin with [`prefix`](Self::prefix).
    ///
    /// # Errors
    /// Returns an error if the server does not answer.
    pub async fn key_page(
        &self,
        shard: &Shard,
        cursor: u64,
        count: usize,
    ) -> Result<KeyPage, Error> {
        let mut pipeline = Pipeline::new();
        let scan = pipeline.cmd("SCAN").arg(cursor).arg("COUNT").arg(count);
        if !self.prefix().is_empty() {
            scan.arg("MATCH")
                .arg(format!("{}*", escaped(self.prefix())));
        }
        About::ask(&mut pipeline);
        let mut replies = self.connection(shard).run("scan", &mut pipeline).await?;
        let about = About::read(&replies).ok_or_else(|| unexpected("scan", None))?;
        let (next, keys) = match (!replies.is_empty()).then(|| replies.swap_remove(0)) {
            Some(Ok(value)) => {
                let page = ::redis::from_redis_value(value);
                page.map_err(|error| failed("scan", RedisError::from(error)))?
            }
            other => return Err(unexpected("scan", other)),
        };
        Ok(KeyPage {
            identity: about.identity.as_str().to_owned(),
            next,
            keys,
        })
    }

    /// Removes these facts and their leases with the delete protocol, so that no node fills them
    /// with what it has read before. Tells no node: see [`announce`](Self::announce).
    ///
    /// # Errors
    /// Returns an error if Redis does not answer.
    pub async fn invalidate(&self, facts: &[Key]) -> Result<(), Error> {
        if !facts.is_empty() {
            let deadline = self.redis.removal_deadline();
            self.redis.invalidate(facts, deadline).await?;
        }
        Ok(())
    }

    /// Tells all nodes to forget these facts, without waiting for acknowledgements. Returns how
    /// long a node that has missed the message may still answer from its memory.
    ///
    /// # Errors
    /// Returns an error if Redis does not answer.
    pub async fn announce(&self, facts: &[Key]) -> Result<Duration, Error> {
        let nodes = nodes_key(&self.redis.node_prefix);
        let mut longest = self.redis.settings.trust_timeout;
        let from = fastrand::u64(..);
        let names: Vec<_> = facts.iter().map(WireName::wire_name).collect();
        let message = |names: &[u64]| Message::Invalidate {
            from,
            id: 0,
            names: names.to_vec(),
        };
        for names in names.chunks(MOST_NAMES) {
            let mut command = cmd("EVAL");
            command.arg(ANNOUNCE).arg(2).arg(&nodes);
            command.arg(format!("{nodes}::all"));
            command.arg(message(names).write());
            for reply in self.run("announce", vec![command]).await? {
                let set = reply.as_ref().and_then(read_peer_set);
                let nodes = set.map(|set| set.nodes).unwrap_or_default();
                let trusts = nodes.iter().map(|seen| seen.trust);
                let trust = trusts.filter(|trust| *trust <= MOST_TRUST).max();
                longest = longest.max(trust.unwrap_or_default());
            }
        }
        // Clocks differ in speed, so there is a margin.
        Ok(longest + longest / 20)
    }

    fn connection(&self, shard: &Shard) -> Connection {
        match (&self.redis.servers, &shard.place) {
            (Servers::One(connection), _) => connection.clone(),
            (Servers::Cluster(cluster), Some(place)) => cluster.connection_to(place),
            // Does not happen: every shard of a cluster has a place.
            (Servers::Cluster(cluster), None) => cluster.connection_to(&HostPort::default()),
        }
    }
}

fn keyed(command: Cmd) -> KeyedCommand {
    let is_script = matches!(command.args_iter().next(), Some(Arg::Simple(b"EVAL")));
    match is_script {
        true => KeyedCommand::call(command),
        false => KeyedCommand::on_first(command),
    }
}

/// Returns an error for a reply that is not as expected.
fn unexpected(operation: &'static str, reply: Option<RedisResult<Value>>) -> Error {
    match reply {
        Some(Err(error)) => failed(operation, error),
        _ => {
            let error = (ErrorKind::UnexpectedReturnType, "unexpected reply");
            failed(operation, RedisError::from(error))
        }
    }
}
