//! Taking away all that Redis has of ours.

use super::about::Identity;
use ::redis::aio::MultiplexedConnection;
use ::redis::{Pipeline, RedisResult, Value, cmd};

/// How many keys are looked at and taken away at once.
const BATCH: usize = 1000;

/// A full Redis refuses an `SADD`, unless something was removed before it. Whatever else has the name
/// makes way.
const NOTE: &str = "
if type(redis.pcall('SREM', KEYS[1], '')) == 'table' then redis.call('DEL', KEYS[1]) end
redis.call('SADD', KEYS[1], ARGV[1])
return redis.status_reply('OK')
";

/// Where it is written which servers have been purged, or have never needed it: beside the nodes.
pub(super) struct Record<'a> {
    pub(super) connection: &'a mut MultiplexedConnection,
    pub(super) nodes: &'a str,
}

impl Record<'_> {
    fn key(&self) -> String {
        format!("{}::servers", self.nodes)
    }

    /// Purges what another server knew. After a failover, or a start from an old dump, what is there
    /// may be from before a delete; such a server is none of those that are on record. Where there is
    /// neither a record nor nodes, nothing is from us: what a Go registry has cached may stay.
    pub(super) async fn purge_if_another(
        &mut self,
        server: &Identity,
        last: Option<&Identity>,
        connection: &mut MultiplexedConnection,
        prefix: &str,
    ) -> RedisResult<()> {
        let key = self.key();
        let mut pipeline = Pipeline::new();
        pipeline.cmd("SISMEMBER").arg(&key).arg(server.as_str());
        pipeline.cmd("EXISTS").arg(&key).arg(self.nodes);
        let replies: Vec<RedisResult<Value>> = pipeline
            .ignore_errors()
            .query_async(self.connection)
            .await?;
        match replies.as_slice() {
            [Ok(Value::Int(1)), _] => return Ok(()),
            // It may have been evicted, and there are nodes all the same, or this one has been here
            // before: then it is not known whose data there is.
            [Ok(_), Ok(Value::Int(0))] if last.is_none_or(|last| last == server) => {}
            _ => {
                tracing::warn!("Redis is another server than before: what it has is purged");
                everything(connection, prefix).await?;
            }
        }
        let () = cmd("EVAL")
            .arg(NOTE)
            .arg(1)
            .arg(&key)
            .arg(server.as_str())
            .query_async(self.connection)
            .await?;
        Ok(())
    }
}

/// Takes all leases away, then all entries: a fill that is on its way finds no lease.
pub(super) async fn everything(
    connection: &mut MultiplexedConnection,
    prefix: &str,
) -> RedisResult<()> {
    leases(connection, prefix).await?;
    entries(connection, prefix).await
}

pub(super) async fn leases(
    connection: &mut MultiplexedConnection,
    prefix: &str,
) -> RedisResult<()> {
    matching(connection, prefix, "lease::").await
}

pub(super) async fn entries(
    connection: &mut MultiplexedConnection,
    prefix: &str,
) -> RedisResult<()> {
    matching(connection, prefix, "repository::").await?;
    matching(connection, prefix, "blobs::").await
}

async fn matching(
    connection: &mut MultiplexedConnection,
    prefix: &str,
    family: &str,
) -> RedisResult<()> {
    let pattern = format!("{}{family}*", escaped(prefix));
    let mut cursor = 0u64;
    loop {
        let mut scan = cmd("SCAN");
        scan.arg(cursor)
            .arg("MATCH")
            .arg(&pattern)
            .arg("COUNT")
            .arg(BATCH);
        let (next, keys): (u64, Vec<Vec<u8>>) = scan.query_async(connection).await?;
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
fn escaped(prefix: &str) -> String {
    let is_special = |c: char| matches!(c, '*' | '?' | '[' | ']' | '\\' | '^' | '-');
    prefix.chars().fold(String::new(), |mut text, c| {
        if is_special(c) {
            text.push('\\');
        }
        text.push(c);
        text
    })
}
