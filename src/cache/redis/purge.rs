//! Taking away all that Redis has of ours.

use ::redis::aio::MultiplexedConnection;
use ::redis::{RedisResult, cmd};

/// How many keys are looked at and taken away at once.
const BATCH: usize = 1000;

/// Purges what another server knew. After a failover, or a start from an old dump, what is there
/// may be from before a delete; such a server has another `run_id` than the one that is kept beside
/// the nodes. Where none is kept, nothing is from us: what a Go registry has cached may stay.
pub(super) async fn if_another_server(
    connection: &mut MultiplexedConnection,
    prefix: &str,
    nodes: &str,
) -> RedisResult<()> {
    let info: String = cmd("INFO").arg("server").query_async(connection).await?;
    let run_id = info.lines().find_map(|line| line.strip_prefix("run_id:"));
    let run_id = run_id.unwrap_or_default().trim();
    let key = format!("{nodes}::server");
    let known: Option<String> = cmd("GET").arg(&key).query_async(connection).await?;
    match known {
        Some(known) if known == run_id => return Ok(()),
        Some(_) => {
            tracing::warn!("Redis is another server than before: what it has of ours is purged");
            everything(connection, prefix).await?;
        }
        None => {}
    }
    cmd("SET")
        .arg(&key)
        .arg(run_id)
        .query_async(connection)
        .await
}

/// Takes all leases away, then all entries: a fill that is on its way finds no lease.
pub(super) async fn everything(
    connection: &mut MultiplexedConnection,
    prefix: &str,
) -> RedisResult<()> {
    for subject in ["lease::", "repository::", "blobs::"] {
        matching(connection, &format!("{}{subject}*", escaped(prefix))).await?;
    }
    Ok(())
}

async fn matching(connection: &mut MultiplexedConnection, pattern: &str) -> RedisResult<()> {
    let mut cursor = 0u64;
    loop {
        let mut scan = cmd("SCAN");
        scan.arg(cursor)
            .arg("MATCH")
            .arg(pattern)
            .arg("COUNT")
            .arg(BATCH);
        let (next, keys): (u64, Vec<Vec<u8>>) = scan.query_async(connection).await?;
        if !keys.is_empty() {
            let () = cmd("UNLINK").arg(&keys).query_async(connection).await?;
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
