//! How a scan goes through all that Redis has, a page at a time.

use crate::cache::redis::RedisCache;
use crate::cache::redis::net::address::HostPort;
use crate::cache::redis::net::cluster::is_moving;
use crate::cache::redis::net::connect_error::failed;
use crate::cache::redis::net::connection::Connection;
use crate::cache::redis::net::purge::escaped;
use crate::cache::redis::net::server_info::About;
use crate::cache::redis::net::servers::{KeyedCommand, Servers};
use crate::types::{Error, LinkKind, RepositoryName};
use ::redis::{ErrorKind, Pipeline, RedisError, RedisResult, Value, cmd};

/// All servers that have keys, in an order that a failover does not change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shards {
    pub(crate) list: Vec<Shard>,
    /// A checksum of how the keys are shared out among the servers.
    pub(crate) share: u32,
}

/// One server that has keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shard {
    /// The address of the server in a cluster; `None` for a single server.
    place: Option<HostPort>,
}

/// A page of a server's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyPage {
    /// The identity of the server. A cursor means nothing to a server with another identity, such
    /// as the same server after a restart.
    pub(crate) identity: String,
    /// Where the next page begins; 0 if there is none.
    pub(crate) next: u64,
    pub(crate) keys: Vec<Vec<u8>>,
}

/// A page of a set's members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberPage {
    /// Where the next page begins; 0 if there is none.
    pub(crate) next: u64,
    /// How many members the set has in all.
    pub(crate) in_all: u64,
    pub(crate) members: Vec<Vec<u8>>,
}

impl RedisCache {
    /// Returns what all keys begin with.
    pub(crate) fn prefix(&self) -> &str {
        self.keys.prefix()
    }

    /// Returns the servers that have keys now.
    pub(crate) async fn shards(&self) -> Result<Shards, Error> {
        let Servers::Cluster(cluster) = &self.servers else {
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

    /// Checks whether keys are moving from one server to another.
    pub(crate) async fn is_moving(&self, shards: &Shards) -> Result<bool, Error> {
        for shard in shards.list.iter().filter(|shard| shard.place.is_some()) {
            let line = self.line(shard).get().await;
            let mut line = line.map_err(|failure| failed("look around", failure))?;
            let moving = is_moving(&mut line).await;
            if moving.map_err(|error| failed("look around", error))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn line(&self, shard: &Shard) -> Connection {
        match (&self.servers, &shard.place) {
            (Servers::One(connection), _) => connection.clone(),
            (Servers::Cluster(cluster), Some(place)) => cluster.connection_to(place),
            // Does not happen: every shard of a cluster has a place.
            (Servers::Cluster(cluster), None) => cluster.connection_to(&HostPort::default()),
        }
    }

    /// Counts all keys of a server, including those of other applications.
    pub(crate) async fn key_count(&self, shard: &Shard) -> Result<u64, Error> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("DBSIZE");
        let replies = self.line(shard).run("count", &mut pipeline).await?;
        match replies.into_iter().next() {
            Some(Ok(Value::Int(count))) => Ok(count.try_into().unwrap_or(0)),
            other => Err(odd("count", other)),
        }
    }

    /// Reads about `count` keys of a server, and returns those that have our prefix.
    pub(crate) async fn key_page(
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
        let mut replies = self.line(shard).run("scan", &mut pipeline).await?;
        let about = About::read(&replies).ok_or_else(|| odd("scan", None))?;
        let first = (!replies.is_empty()).then(|| replies.swap_remove(0));
        let (next, keys) = read_page("scan", first)?;
        Ok(KeyPage {
            identity: about.identity.as_str().to_owned(),
            next,
            keys,
        })
    }

    /// Reads about `count` members of a set. Returns `None` if the key is not a set.
    pub(crate) async fn member_page(
        &self,
        kind: LinkKind,
        repository: &RepositoryName,
        cursor: u64,
        count: usize,
    ) -> Result<Option<MemberPage>, Error> {
        let set = self.keys.set_of(kind, repository);
        let mut size = cmd("SCARD");
        size.arg(&set);
        let mut scan = cmd("SSCAN");
        scan.arg(&set).arg(cursor).arg("COUNT").arg(count);
        let commands = vec![KeyedCommand::on_first(size), KeyedCommand::on_first(scan)];
        let replies = self
            .servers
            .run("scan", commands, self.read_deadline())
            .await?;
        let mut replies = replies.each.into_iter();
        let in_all = match replies.next() {
            Some(Ok(Value::Int(size))) => size.try_into().unwrap_or(0),
            Some(Err(failure)) if failure.code() == Some("WRONGTYPE") => return Ok(None),
            Some(Err(failure)) => return Err(failed("scan", failure)),
            _ => return Err(odd("scan", None)),
        };
        let page = match replies.next() {
            Some(Ok(value)) => read_page("scan", Some(Ok(value)))?,
            Some(Err(failure)) if failure.code() == Some("WRONGTYPE") => return Ok(None),
            Some(Err(failure)) => return Err(failed("scan", failure)),
            None => return Err(odd("scan", None)),
        };
        let (next, members) = page;
        Ok(Some(MemberPage {
            next,
            in_all,
            members,
        }))
    }
}

type Page = (u64, Vec<Vec<u8>>);

/// Reads a reply to a scan: a cursor, and the keys or members.
fn read_page(operation: &'static str, reply: Option<RedisResult<Value>>) -> Result<Page, Error> {
    match reply {
        Some(Ok(value)) => {
            let page = ::redis::from_redis_value(value);
            page.map_err(|error| failed(operation, RedisError::from(error)))
        }
        other => Err(odd(operation, other)),
    }
}

/// Returns an error for a reply that is not as expected.
fn odd(operation: &'static str, reply: Option<RedisResult<Value>>) -> Error {
    match reply {
        Some(Err(error)) => failed(operation, error),
        _ => {
            let nothing = (
                ErrorKind::UnexpectedReturnType,
                "an answer that makes no sense",
            );
            failed(operation, RedisError::from(nothing))
        }
    }
}
