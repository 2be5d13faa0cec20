//! Tests the topologies in which people run Redis, with real servers of each.
//!
//! | module | topology |
//! |---|---|
//! | `access` | one server, behind users, permissions and a Unix socket |
//! | `tls` | one server that speaks TLS |
//! | `sentinel` | a primary that Sentinels monitor |
//! | `cluster` | a Redis Cluster |
//! | `many` | one server or a cluster, with many look-ups at once |
//! | `failovers` | a Sentinel's primary or a cluster that fails over or moves slots, under load |
//! | `old_primary` | a primary of a cluster that continues after it was replaced |

mod access;
mod cluster;
mod failovers;
mod lost;
mod many;
mod sentinel;
use test_support as support;
mod old_primary;
mod tls;

use layercache::{CacheStatus, Error, RedisConfig};
use object_store::ObjectStoreExt;
use std::error::Error as _;
use std::time::{Duration, Instant};
use support::nodes::{
    Bare, Found, LENGTH, Node, PATIENCE, TRUST, bare, blob_path, config_at, digest, layers,
    node_with, put, stat, until_in_memory,
};
use support::redis::Redis;

const MEMORY_HIT: Found = (Some(LENGTH), CacheStatus::Memory);
const REDIS_HIT: Found = (Some(LENGTH), CacheStatus::Redis);
const MISS: Found = (Some(LENGTH), CacheStatus::Miss);

/// The number of blobs, which is enough to have some at each primary of a Redis Cluster.
const BLOBS: u32 = 16;

/// Returns a store with all blobs and their links.
async fn stocked() -> Bare {
    let bare = bare(Duration::ZERO);
    for i in 0..BLOBS {
        put(&bare, &digest(i)).await;
    }
    bare
}

fn node_at(bare: &Bare, url: &str) -> Node {
    node_with(bare, config_at(url))
}

/// Returns the keys of a server's database that match a pattern.
fn keys(redis: &Redis, database: u32, pattern: &str) -> Vec<String> {
    let database = database.to_string();
    let keys = redis.cli(&["-n", &database, "--scan", "--pattern", pattern]);
    let keys = keys.lines().filter(|key| !key.is_empty());
    keys.map(str::to_owned).collect()
}

async fn all_in_memory(nodes: &[&Node]) {
    for node in nodes {
        for i in 0..BLOBS {
            until_in_memory(node, &digest(i)).await;
        }
    }
}

/// Waits until a node answers all blobs from Redis, without the store. On a busy machine it connects
/// to some servers late.
async fn until_read_from_redis(node: &Node, bare: &Bare) {
    let end = Instant::now() + PATIENCE;
    loop {
        node.clear_memory();
        let reads = bare.reads();
        let mut answers = Vec::new();
        for i in 0..BLOBS {
            answers.push(stat(node, &digest(i)).await);
        }
        if answers.iter().all(|answer| *answer == REDIS_HIT) && bare.reads() == reads {
            return;
        }
        assert!(Instant::now() < end, "{answers:?}");
    }
}

/// Checks that two nodes at this address work together. `keys` returns all keys there that match a
/// pattern.
async fn assert_serves(url: &str, keys: impl Fn(&str) -> Vec<String>) {
    let bare = stocked().await;
    // On a busy machine a heartbeat may be late.
    let config = || config_at(url).with_trust_timeout(TRUST * 8);
    let (first, second) = (node_with(&bare, config()), node_with(&bare, config()));
    all_in_memory(&[&first]).await;
    until_read_from_redis(&second, &bare).await;
    all_in_memory(&[&second]).await;
    assert_eq!(keys("blobs::*").len(), BLOBS as usize);
    assert_eq!(keys("repository::*").len(), 1);

    // After each delete, the next read on either node finds nothing, for links and for blobs.
    let mut gone = Vec::new();
    for (i, (deleter, other)) in [(0, (&first, &second)), (1, (&second, &first))] {
        layers(deleter).unlink(&digest(i)).await.unwrap();
        assert_eq!(stat(other, &digest(i)).await.0, None, "link {i}");
        assert_eq!(stat(deleter, &digest(i)).await.0, None, "link {i}");
        let blob = digest(i + 2);
        deleter.delete(&blob_path(&blob)).await.unwrap();
        assert_eq!(stat(other, &blob).await.0, None, "blob {}", i + 2);
        assert_eq!(stat(deleter, &blob).await.0, None, "blob {}", i + 2);
        gone.push(blob);
    }
    for blob in gone {
        assert_eq!(keys(&format!("*{blob}*")), [""; 0], "left of what is gone");
    }

    // Garbage collection without the cache's knowledge shows only after a purge, and then on every
    // node.
    let collected = digest(4);
    let inner = bare.inner();
    inner.delete(&blob_path(&collected)).await.unwrap();
    for node in [&first, &second] {
        assert_eq!(stat(node, &collected).await, MEMORY_HIT);
    }
    first.purge().await.unwrap();
    for pattern in ["blobs::*", "repository::*", "lease::*"] {
        assert_eq!(keys(pattern), [""; 0], "left of {pattern}");
    }
    for node in [&first, &second] {
        assert_eq!(stat(node, &collected).await.0, None);
        until_in_memory(node, &digest(5)).await;
    }
}

/// Checks that a node with this configuration reads but makes no changes, and returns the reason.
async fn only_reads(config: RedisConfig) -> String {
    let bare = bare(Duration::ZERO);
    put(&bare, &digest(1)).await;
    let node = node_with(&bare, config);
    for _ in 0..10 {
        assert_eq!(stat(&node, &digest(1)).await, MISS);
    }
    let changes = bare.changes();
    let begin = Instant::now();
    let refused = layers(&node).unlink(&digest(1)).await.unwrap_err();
    let waited = begin.elapsed();
    assert!(
        matches!(refused, Error::ChangeRefused { .. }),
        "{refused:?}"
    );
    assert_eq!(bare.changes(), changes, "nothing was changed");
    assert!(waited < Duration::from_secs(8), "{waited:?}");
    for _ in 0..10 {
        assert_eq!(stat(&node, &digest(1)).await, MISS);
    }
    reason(&refused)
}

/// Returns everything that an error and its sources say, as `Display` and as `Debug`.
fn reason(error: &Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(" {error} {error:?}");
        source = error.source();
    }
    text
}

/// Checks that a reason contains one of these texts and no secret.
#[track_caller]
fn assert_reason(reason: &str, any_of: &[&str], secrets: &[&str]) {
    let lower = reason.to_lowercase();
    let is_named = any_of
        .iter()
        .any(|name| lower.contains(&name.to_lowercase()));
    assert!(is_named, "{any_of:?} is not in: {reason}");
    for secret in secrets {
        assert!(!reason.contains(secret), "{secret} is in: {reason}");
    }
}
