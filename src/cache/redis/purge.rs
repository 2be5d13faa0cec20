//! Taking away all that Redis has of ours.

use super::about::Identity;
use crate::cache::Forgotten;
use crate::cache::shared::Which;
use ::metrics::Counter;
use ::redis::aio::MultiplexedConnection;
use ::redis::{Pipeline, RedisResult, Value, cmd};
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::sleep;

/// How many keys are looked at and taken away at once.
const BATCH: usize = 1000;

/// How long one node has to purge before another one begins to do so as well.
const TURN: Duration = Duration::from_secs(10);
/// How long a node waits before it looks again whether another one has purged.
const PAUSE: Duration = Duration::from_millis(20);

/// `record turn | server`: a full Redis refuses an `SADD`, unless something was removed before it. Whatever
/// else has the name makes way. The turn is over: who comes now finds the server on record.
const NOTE: &str = "
redis.call('DEL', KEYS[2])
if type(redis.pcall('SREM', KEYS[1], '')) == 'table' then redis.call('DEL', KEYS[1]) end
redis.call('SADD', KEYS[1], ARGV[1])
return redis.status_reply('OK')
";

/// Where it is written which servers have been purged, or have never needed it: beside the nodes.
pub(super) struct Record<'a> {
    pub(super) connection: &'a mut MultiplexedConnection,
    pub(super) nodes: &'a str,
    pub(super) purges: &'a Counter,
}

impl Record<'_> {
    fn key(&self) -> String {
        format!("{}::servers", self.nodes)
    }

    /// The key of the node that purges this server now.
    fn turn(&self, server: &Identity) -> String {
        format!("{}::purging::{}", self.nodes, server.as_str())
    }

    /// Purges what another server knew. After a failover, or a start from an old dump, what is there
    /// may be from before a delete; such a server is none of those that are on record. Where there is
    /// neither a record nor nodes, nothing is from us: what a Go registry has cached may stay.
    ///
    /// One node does it, and the others wait until it is on record. Says whether this took its time.
    pub(super) async fn purge_if_another(
        &mut self,
        server: &Identity,
        last: Option<&Identity>,
        connection: &mut MultiplexedConnection,
        prefix: &str,
    ) -> RedisResult<bool> {
        let mut took_time = false;
        while self.needs_purge(server, last).await? {
            took_time = true;
            if !self.takes_turn(server).await {
                sleep(PAUSE).await;
                continue;
            }
            // The last turn may have ended between the question and this one.
            if !self.needs_purge(server, last).await? {
                break;
            }
            tracing::warn!("Redis is another server than before: what it has is purged");
            self.purges.increment(1);
            everything(connection, &Scope::all(prefix)).await?;
            break;
        }
        let key = self.key();
        let () = cmd("EVAL")
            .arg(NOTE)
            .arg(2)
            .arg(&key)
            .arg(self.turn(server))
            .arg(server.as_str())
            .query_async(self.connection)
            .await?;
        Ok(took_time)
    }

    /// Whether what the server has may be from before a failover.
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
            // It may have been evicted, and there are nodes all the same, or this one has been here
            // before: then it is not known whose data there is.
            [Ok(_), Ok(Value::Int(0))] => last.is_some_and(|last| last != server),
            _ => true,
        })
    }

    /// Whether this node is the one that purges the server now. A turn lapses with the node that has
    /// it; where nothing can be written, each node purges for itself.
    async fn takes_turn(&mut self, server: &Identity) -> bool {
        let mut take = cmd("SET");
        take.arg(self.turn(server))
            .arg("")
            .arg("NX")
            .arg("PX")
            .arg(TURN.as_millis() as u64);
        let taken: RedisResult<Value> = take.query_async(self.connection).await;
        !matches!(taken, Ok(Value::Nil))
    }
}

/// What is taken away.
pub(super) struct Scope<'a> {
    prefix: &'a str,
    /// What there is of these repositories alone.
    of: Option<&'a Which<'a>>,
    gone: Mutex<Gone>,
}

#[derive(Default)]
struct Gone {
    repositories: HashSet<String>,
    memberships: u64,
}

impl<'a> Scope<'a> {
    /// All that is ours.
    pub(super) fn all(prefix: &'a str) -> Self {
        Self {
            prefix,
            of: None,
            gone: Mutex::default(),
        }
    }

    /// The memberships of some repositories, and what is kept for each repository.
    pub(super) fn of(prefix: &'a str, which: &'a Which<'a>) -> Self {
        Self {
            of: Some(which),
            ..Self::all(prefix)
        }
    }

    /// What was taken away of repositories that were asked for.
    pub(super) fn forgotten(self) -> Forgotten {
        let gone = self.gone.into_inner();
        let gone = gone.unwrap_or_else(PoisonError::into_inner);
        Forgotten {
            repositories: gone.repositories.len() as u64,
            memberships: gone.memberships,
        }
    }

    /// The repository that a key is about, whatever else its name says.
    fn repository<'k>(&self, key: &'k [u8]) -> Option<&'k str> {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(self.prefix)?;
        let rest = match rest.strip_prefix("lease::{") {
            Some(subject) => subject.strip_prefix(self.prefix)?,
            None => rest,
        };
        let mut families = ["repository::", "blobs::"].into_iter();
        // No name has a colon, and no digest has two.
        let (name, _) = families
            .find_map(|family| rest.strip_prefix(family))?
            .split_once("::")?;
        Some(name)
    }

    /// Counts what is about to be taken away: how many members each of these sets has.
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

/// Takes all leases away, then all entries: a fill that is on its way finds no lease.
pub(super) async fn everything(
    connection: &mut MultiplexedConnection,
    scope: &Scope<'_>,
) -> RedisResult<()> {
    leases(connection, scope).await?;
    entries(connection, scope).await
}

pub(super) async fn leases(
    connection: &mut MultiplexedConnection,
    scope: &Scope<'_>,
) -> RedisResult<()> {
    matching(connection, scope, "lease::*", &["lease::"]).await
}

pub(super) async fn entries(
    connection: &mut MultiplexedConnection,
    scope: &Scope<'_>,
) -> RedisResult<()> {
    // One scan of both.
    matching(connection, scope, "[rb]*", &["repository::", "blobs::"]).await
}

async fn matching(
    connection: &mut MultiplexedConnection,
    scope: &Scope<'_>,
    pattern: &str,
    families: &[&str],
) -> RedisResult<()> {
    let pattern = format!("{}{pattern}", escaped(scope.prefix));
    let is_ours = |key: &Vec<u8>| {
        let rest = key.strip_prefix(scope.prefix.as_bytes());
        rest.is_some_and(|rest| {
            families
                .iter()
                .any(|family| rest.starts_with(family.as_bytes()))
        })
    };
    let mut cursor = 0u64;
    loop {
        let mut scan = cmd("SCAN");
        scan.arg(cursor)
            .arg("MATCH")
            .arg(&pattern)
            .arg("COUNT")
            .arg(BATCH);
        let (next, mut keys): (u64, Vec<Vec<u8>>) = scan.query_async(connection).await?;
        keys.retain(is_ours);
        if let Some(which) = scope.of {
            keys.retain(|key| scope.repository(key).is_some_and(which));
            scope.count(connection, &keys).await?;
        }
        if !keys.is_empty() {
            // One by one: in a cluster they stand in many slots.
            let mut pipeline = Pipeline::new();
            for key in &keys {
                pipeline.cmd("UNLINK").arg(key).ignore();
            }
            let () = pipeline.query_async(connection).await?;
        }
        if next == 0 {
            return Ok(());
        }
        cursor = next;
    }
}

/// A prefix is a text, not a pattern.
pub(super) fn escaped(prefix: &str) -> String {
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
    fn a_key_is_about_one_repository_or_none() {
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
