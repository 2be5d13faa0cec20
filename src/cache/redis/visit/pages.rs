//! Looking through all that Redis has, a page at a time.

use crate::cache::redis::RedisCache;
use crate::cache::redis::about::About;
use crate::cache::redis::address::Place;
use crate::cache::redis::cluster::is_moving;
use crate::cache::redis::connection::Connection;
use crate::cache::redis::purge::escaped;
use crate::cache::redis::servers::{Command, Servers};
use crate::cache::redis::trouble::failed;
use crate::{Error, LinkKind, RepositoryName};
use ::redis::{ErrorKind, Pipeline, RedisError, RedisResult, Value, cmd};

/// All servers that have keys, in an order that a failover does not change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shards {
    pub(crate) list: Vec<Shard>,
    /// How the keys are shared out among them.
    pub(crate) share: u32,
}

/// One of the servers that have keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shard {
    /// In a cluster, which one.
    place: Option<Place>,
}

/// Some keys of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyPage {
    /// Which life of which server it was: a cursor of another one means nothing.
    pub(crate) identity: String,
    /// Where the next page begins; 0 if there is none.
    pub(crate) next: u64,
    pub(crate) keys: Vec<Vec<u8>>,
}

/// Some members of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberPage {
    /// Where the next page begins; 0 if there is none.
    pub(crate) next: u64,
    /// How many members the set has in all.
    pub(crate) in_all: u64,
    pub(crate) members: Vec<Vec<u8>>,
}

impl RedisCache {
    /// What all keys begin with.
    pub(crate) fn prefix(&self) -> &str {
        self.keys.prefix()
    }

    /// The servers that have keys, as it is now.
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

    /// Whether keys are on their way from one server to another.
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
            (Servers::Cluster(cluster), Some(place)) => cluster.line(place),
            // A cluster's shards have places.
            (Servers::Cluster(cluster), None) => cluster.line(&Place::default()),
        }
    }

    /// How many keys a server has, whoever's.
    pub(crate) async fn key_count(&self, shard: &Shard) -> Result<u64, Error> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("DBSIZE");
        let replies = self.line(shard).run("count", &mut pipeline).await?;
        match replies.into_iter().next() {
            Some(Ok(Value::Int(count))) => Ok(count.try_into().unwrap_or(0)),
            other => Err(odd("count", other)),
        }
    }

    /// Some of a server's keys, about `count`, that have our prefix.
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

    /// Some of a set's members, about `count`; `None` if it is no set.
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
        let commands = vec![Command::on_first(size), Command::on_first(scan)];
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

/// Reads a cursor, and what was found.
fn read_page(operation: &'static str, reply: Option<RedisResult<Value>>) -> Result<Page, Error> {
    match reply {
        Some(Ok(value)) => {
            let page = ::redis::from_redis_value(value);
            page.map_err(|error| failed(operation, RedisError::from(error)))
        }
        other => Err(odd(operation, other)),
    }
}

/// What was answered instead.
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
