//! How the cache's data is removed from Redis.

use crate::cache::Forgotten;
use crate::cache::redis::net::server_info::Identity;
use crate::cache::shared::Which;
use crate::coherence::rules::{Rule, kept};
use crate::types::namespace::Namespace;
use ::metrics::Counter;
use ::redis::aio::MultiplexedConnection;
use ::redis::{Pipeline, RedisError, RedisResult, Value, cmd};
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How many keys one step scans and removes.
const PAGE: usize = 1000;

/// How long after it last took the lock a purging node counts as dead. Then another node purges.
const LOCK: Duration = Duration::from_secs(10);
/// How long a node waits before it checks again whether another node has purged.
const PAUSE: Duration = Duration::from_millis(20);

/// Takes the lock of a purge, and returns whether the node has it now. A node that has it already
/// keeps it: the node's last try may have failed in the middle. Key `lock`, arguments `node time`. The
/// time is in milliseconds.
pub(crate) const LOCK_PURGE: &str = "
local holder = redis.pcall('GET', KEYS[1])
if type(holder) == 'string' and holder ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
";

/// Puts a server on record, and removes the lock of the purge: the other nodes then find the server
/// on record. Keys `record lock`, argument `server`. The script removes something first, because a
/// full Redis refuses an `SADD` otherwise. A value of another type is replaced.
pub(crate) const NOTE: &str = "
redis.call('DEL', KEYS[2])
if type(redis.pcall('SREM', KEYS[1], '')) == 'table' then redis.call('DEL', KEYS[1]) end
redis.call('SADD', KEYS[1], ARGV[1])
return redis.status_reply('OK')
";

/// The record of the servers that were purged, or never needed it. It is kept beside the set of
/// nodes.
pub(crate) struct Record<'a> {
    pub(crate) connection: &'a mut MultiplexedConnection,
    pub(crate) nodes: &'a str,
    /// The number of the node.
    pub(crate) node: u64,
    pub(crate) purges: &'a Counter,
}

impl Record<'_> {
    fn key(&self) -> String {
        format!("{}::servers", self.nodes)
    }

    /// Returns the key of the lock that the purging node holds.
    fn lock(&self, server: &Identity) -> String {
        format!("{}::purging::{}", self.nodes, server.as_str())
    }

    /// Purges a server that is not on record. After a failover, or a start from an old dump, its
    /// data may be from before a delete. Where there is neither a record nor a set of nodes, no
    /// node has written anything: the data of a Go registry may stay.
    ///
    /// One node purges, and the others wait until the server is on record. Returns whether this
    /// node has purged or waited.
    pub(crate) async fn purge_if_another(
        &mut self,
        server: &Identity,
        last: Option<&Identity>,
        connection: &mut MultiplexedConnection,
        prefix: &str,
    ) -> RedisResult<bool> {
        let mut took_time = false;
        while kept(Rule::PurgeAfterAFailover) && self.needs_purge(server, last).await? {
            took_time = true;
            if !self.takes_lock(server).await {
                if !kept(Rule::NodesWaitForThePurge) {
                    return Ok(took_time);
                }
                sleep(PAUSE).await;
                // If this server is gone, the lock may be that of a purge that never ends.
                let () = cmd("PING").query_async(connection).await?;
                continue;
            }
            // Another node may have finished between the check and the lock.
            if !self.needs_purge(server, last).await? {
                break;
            }
            tracing::warn!("Redis is another server than before: its cached data is purged");
            self.purges.increment(1);
            let scope = Scope::all_namespaces(prefix);
            let mut purge = pin!(everything(connection, &scope));
            loop {
                // A purge of many keys takes longer than the lock of a dead node should last.
                match timeout(LOCK / 4, purge.as_mut()).await {
                    Ok(purged) => break purged?,
                    Err(_) => drop(self.takes_lock(server).await),
                }
            }
            break;
        }
        let key = self.key();
        let () = cmd("EVAL")
            .arg(NOTE)
            .arg(2)
            .arg(&key)
            .arg(self.lock(server))
            .arg(server.as_str())
            .query_async(self.connection)
            .await?;
        Ok(took_time)
    }

    /// Checks whether the server's data may be from before a failover.
    async fn needs_purge(
        &mut self,
        server: &Identity,
        last: Option<&Identity>,
    ) -> RedisResult<bool> {
        let key = self.key();
        let mut pipeline = Pipeline::new();
        pipeline.cmd("SISMEMBER").arg(&key).arg(server.as_str());
        pipeline.cmd("EXISTS").arg(&key).arg(self.nodes);
        let replies: Vec<RedisResult<Value>> = pipeline
            .ignore_errors()
            .query_async(self.connection)
            .await?;
        Ok(match replies.as_slice() {
            [Ok(Value::Int(1)), _] => false,
            // The record may have been evicted while there are nodes, or this node was connected to
            // another server before: then the age of the data is unknown.
            [Ok(_), Ok(Value::Int(0))] => last.is_some_and(|last| last != server),
            _ => true,
        })
    }

    /// Tries to take the lock of the purge. The lock expires, in case its node dies. If nothing can
    /// be written, each node purges by itself.
    async fn takes_lock(&mut self, server: &Identity) -> bool {
        let mut take = cmd("EVAL");
        take.arg(LOCK_PURGE)
            .arg(1)
            .arg(self.lock(server))
            .arg(self.node)
            .arg(LOCK.as_millis() as u64);
        let taken: RedisResult<Value> = take.query_async(self.connection).await;
        !matches!(taken, Ok(Value::Int(0)))
    }
}

/// Which keys a purge removes, and the count of those that it has removed.
pub(crate) struct Scope<'a> {
    prefix: &'a str,
    /// Only the keys of these repositories; `None` means all keys.
    of: Option<&'a Which<'a>>,
    /// Whether the keys of the cache's name spaces are covered too.
    has_namespaces: bool,
    gone: Mutex<Gone>,
}

#[derive(Default)]
struct Gone {
    repositories: BTreeSet<String>,
    memberships: u64,
}

impl<'a> Scope<'a> {
    /// Covers all keys of a cache, or of one of its name spaces.
    pub(crate) fn all(prefix: &'a str) -> Self {
        Self {
            prefix,
            of: None,
            has_namespaces: false,
            gone: Mutex::default(),
        }
    }

    /// Covers all keys of a cache and of all its name spaces. They share one record of servers, so a
    /// node purges also the name spaces that only other nodes use.
    fn all_namespaces(prefix: &'a str) -> Self {
        Self {
            has_namespaces: true,
            ..Self::all(prefix)
        }
    }

    /// Returns the patterns that find all keys in the scope whose names go on with `pattern`.
    fn patterns(&self, pattern: &str) -> Vec<String> {
        let prefix = escaped(self.prefix);
        let mut patterns = vec![format!("{prefix}{pattern}")];
        if self.has_namespaces {
            patterns.push(format!("{prefix}*/{pattern}"));
        }
        patterns
    }

    /// Returns whether a key in the scope belongs to one of these families.
    fn has(&self, key: &[u8], families: &[&str]) -> bool {
        let is_one = |rest: &[u8]| {
            let mut families = families.iter();
            families.any(|family| rest.starts_with(family.as_bytes()))
        };
        let Some(rest) = key.strip_prefix(self.prefix.as_bytes()) else {
            return false;
        };
        let in_namespace = || {
            let mut parts = rest.splitn(2, |byte| *byte == b'/');
            let name = parts.next().and_then(|name| std::str::from_utf8(name).ok());
            let is_name = name.is_some_and(|name| Namespace::new("namespace", name).is_ok());
            is_name && parts.next().is_some_and(is_one)
        };
        is_one(rest) || (self.has_namespaces && in_namespace())
    }

    /// Covers the keys that belong to one of these repositories: its sets, its own copies, the
    /// media types of a Go registry, and leases.
    pub(crate) fn of(prefix: &'a str, which: &'a Which<'a>) -> Self {
        Self {
            of: Some(which),
            ..Self::all(prefix)
        }
    }

    /// Returns how much was removed of the repositories that were asked for.
    pub(crate) fn forgotten(self) -> Forgotten {
        let gone = self.gone.into_inner();
        let gone = gone.unwrap_or_else(PoisonError::into_inner);
        Forgotten {
            repositories: gone.repositories.len() as u64,
            memberships: gone.memberships,
        }
    }

    /// Returns the repository that a key belongs to, if its name contains one.
    fn repository<'k>(&self, key: &'k [u8]) -> Option<&'k str> {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(self.prefix)?;
        let rest = match rest.strip_prefix("lease::{") {
            Some(subject) => subject.strip_prefix(self.prefix)?,
            None => rest,
        };
        let mut families = ["repository::", "blobs::"].into_iter();
        // A repository's name has no colon, and a digest has only one.
        let (name, _) = families
            .find_map(|family| rest.strip_prefix(family))?
            .split_once("::")?;
        Some(name)
    }

    /// Counts what the purge is about to remove: the repositories, and the members of their sets.
    async fn count(
        &self,
        connection: &mut MultiplexedConnection,
        keys: &[Vec<u8>],
    ) -> RedisResult<()> {
        let is_set = |key: &&Vec<u8>| key.ends_with(b"::blobs") || key.ends_with(b"::manifests");
        let mut pipeline = Pipeline::new();
        for key in keys.iter().filter(is_set) {
            pipeline.cmd("SCARD").arg(key);
        }
        let counts: Vec<RedisResult<Value>> = match pipeline.is_empty() {
            true => Vec::new(),
            false => pipeline.ignore_errors().query_async(connection).await?,
        };
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        for key in keys {
            let name = self.repository(key).unwrap_or_default();
            gone.repositories.insert(name.to_owned());
        }
        for count in counts {
            if let Ok(Value::Int(count)) = count {
                gone.memberships += u64::try_from(count).unwrap_or(0);
            }
        }
        Ok(())
    }
}

/// Removes all leases, then all entries. A fill that is under way then finds no lease.
pub(crate) async fn everything(
    connection: &mut MultiplexedConnection,
    scope: &Scope<'_>,
) -> RedisResult<()> {
    if kept(Rule::PurgeTakesLeasesFirst) {
        leases(connection, scope).await?;
    }
    entries(connection, scope).await?;
    if !kept(Rule::PurgeTakesLeasesFirst) {
        leases(connection, scope).await?;
    }
    Ok(())
}

pub(crate) async fn leases(
    connection: &mut MultiplexedConnection,
    scope: &Scope<'_>,
) -> RedisResult<()> {
    matching(connection, scope, "lease::*", &["lease::"]).await
}

pub(crate) async fn entries(
    connection: &mut MultiplexedConnection,
    scope: &Scope<'_>,
) -> RedisResult<()> {
    // One scan finds both families.
    matching(connection, scope, "[rb]*", &["repository::", "blobs::"]).await
}

async fn matching(
    connection: &mut MultiplexedConnection,
    scope: &Scope<'_>,
    pattern: &str,
    families: &[&str],
) -> RedisResult<()> {
    for pattern in scope.patterns(pattern) {
        remove(connection, scope, &pattern, families).await?;
    }
    Ok(())
}

async fn remove(
    connection: &mut MultiplexedConnection,
    scope: &Scope<'_>,
    pattern: &str,
    families: &[&str],
) -> RedisResult<()> {
    let foreign = remove_own(connection, scope, pattern, families).await?;
    if foreign.is_empty() {
        return Ok(());
    }
    let still = remove_own(connection, scope, pattern, families).await?;
    // A key that is gone has moved to another server after the first scan. Another try finds it there.
    let mut moved = foreign
        .into_iter()
        .filter(|(key, _)| !still.contains_key(key));
    moved.next().map_or(Ok(()), |(_, error)| Err(error))
}

/// Removes the keys that this server owns. Returns the others, each with the server's refusal. A
/// server of a cluster may keep keys of a slot that another server owns: a replica that had not heard
/// of a slot's move, and then became the primary. No client can read or remove them.
async fn remove_own(
    connection: &mut MultiplexedConnection,
    scope: &Scope<'_>,
    pattern: &str,
    families: &[&str],
) -> RedisResult<BTreeMap<Vec<u8>, RedisError>> {
    let mut foreign = BTreeMap::new();
    let mut cursor = 0u64;
    loop {
        let mut scan = cmd("SCAN");
        scan.arg(cursor)
            .arg("MATCH")
            .arg(pattern)
            .arg("COUNT")
            .arg(PAGE);
        let (next, mut keys): (u64, Vec<Vec<u8>>) = scan.query_async(connection).await?;
        keys.retain(|key| scope.has(key, families));
        if let Some(which) = scope.of {
            keys.retain(|key| scope.repository(key).is_some_and(which));
            scope.count(connection, &keys).await?;
        }
        if !keys.is_empty() {
            // One command for each key: in a cluster the keys are in many slots.
            let mut pipeline = Pipeline::new();
            for key in &keys {
                pipeline.cmd("UNLINK").arg(key);
            }
            let replies: Vec<RedisResult<Value>> =
                pipeline.ignore_errors().query_async(connection).await?;
            for (key, reply) in keys.into_iter().zip(replies) {
                match reply {
                    Err(error) if error.code() == Some("MOVED") => {
                        foreign.insert(key, error);
                    }
                    reply => drop(reply?),
                }
            }
        }
        if next == 0 {
            return Ok(foreign);
        }
        cursor = next;
    }
}

/// Escapes a prefix for `MATCH`, where it has to be plain text.
pub(crate) fn escaped(prefix: &str) -> String {
    let is_special = |c: char| matches!(c, '*' | '?' | '[' | ']' | '\\' | '^' | '-');
    prefix.chars().fold(String::new(), |mut text, c| {
        if is_special(c) {
            text.push('\\');
        }
        text.push(c);
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failover_concerns_the_name_spaces_of_the_cache_and_nothing_else() {
        let (one, all) = (Scope::all("eu:"), Scope::all_namespaces("eu:"));
        for (key, in_one, in_all) in [
            ("eu:blobs::sha256:ab", true, true),
            ("eu:a/blobs::sha256:ab", false, true),
            ("eu:a.b-c/repository::a/b::blobs", false, true),
            ("eu:blobs/blobs::sha256:ab", false, true),
            ("eu:a:blobs::sha256:ab", false, false),
            ("eu:a:b/blobs::sha256:ab", false, false),
            ("eu:a/b/blobs::sha256:ab", false, false),
            ("eu:/blobs::sha256:ab", false, false),
            ("a/blobs::sha256:ab", false, false),
            ("eu:a/layercache::{nodes}::storage", false, false),
        ] {
            let families = ["repository::", "blobs::"];
            let has = |scope: &Scope<'_>| scope.has(key.as_bytes(), &families);
            assert_eq!((has(&one), has(&all)), (in_one, in_all), "{key}");
        }
        let patterns = ["eu:[rb]*", "eu:*/[rb]*"].map(str::to_owned);
        assert_eq!(all.patterns("[rb]*"), patterns);
        assert_eq!(one.patterns("[rb]*"), patterns[..1]);
    }

    #[test]
    fn a_key_belongs_to_one_repository_or_to_none() {
        let scope = Scope::all("eu:");
        for (key, name) in [
            ("eu:repository::a/b::blobs", Some("a/b")),
            ("eu:repository::a::manifests", Some("a")),
            ("eu:repository::a::blobs::sha256:ab", Some("a")),
            (
                "eu:lease::{eu:repository::a/b::blobs}::sha256:ab",
                Some("a/b"),
            ),
            ("eu:lease::{eu:blobs::sha256:ab}", None),
            ("eu:lease::{eu:blobs::a/b::sha256:ab}", Some("a/b")),
            ("eu:blobs::a/b::sha256:ab", Some("a/b")),
            ("eu:blobs::a/b::manifests::sha256:ab", Some("a/b")),
            ("eu:blobs::sha256:ab", None),
            ("repository::a::blobs", None),
            ("eu:repository::a", None),
        ] {
            assert_eq!(scope.repository(key.as_bytes()), name, "{key}");
        }
        assert_eq!(scope.repository(b"eu:repository::\xff::blobs"), None);
    }
}
