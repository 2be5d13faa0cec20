//! Tests that a running change is no finding.

use super::{AuditOutput, World};
use super::{store_blob, store_link};
use layercache_cli::admin::AuditError;
use test_support::nodes::{LENGTH, SET, digest, eventually, hash, name};
use tokio::task::JoinHandle;

/// Starts an audit that fixes, and waits until the storage holds the answer to its first question.
async fn start_held(world: &World) -> JoinHandle<Result<AuditOutput, AuditError>> {
    world.store.hold(true);
    let audit = tokio::spawn(World::run(world.audit().fix(true)));
    eventually("a question", || world.store.reads() > 0).await;
    audit
}

/// The storage holds its answer. Meanwhile the cached facts are deleted.
#[tokio::test]
async fn a_fact_that_is_removed_during_the_audit_is_no_finding() {
    let world = World::new().await;
    let digest = digest(1);
    world.cache_as_go(&name(), &digest, LENGTH);
    let audit = start_held(&world).await;
    world.redis.cli(&["SREM", SET, &digest.to_string()]);
    world
        .redis
        .cli(&["DEL", &hash(&digest), &format!("{SET}::{digest}")]);
    let before = world.dump();
    world.store.hold(false);
    let output = audit.await.unwrap().unwrap();
    assert_eq!(output.names(), [""; 0]);
    assert_eq!(
        output.report.changed, 1,
        "the hash was checked before the set was read"
    );
    assert_eq!(world.dump(), before);
}

/// A Go registry caches a blob before it links it.
#[tokio::test]
async fn a_blob_that_is_pushed_during_the_audit_is_no_finding() {
    let world = World::new().await;
    let digest = digest(1);
    world.cache_as_go(&name(), &digest, LENGTH);
    // The held answers are from before the push.
    let audit = start_held(&world).await;
    store_blob(&world.store, &digest).await;
    world.redis.cli(&["HSET", &hash(&digest), "size", "8"]);
    world.redis.cli(&["HSET", &hash(&digest), "size", "7"]);
    store_link(&world.store, &name(), &digest).await;
    world.store.hold(false);
    let output = audit.await.unwrap().unwrap();
    assert_eq!(output.names(), [""; 0]);
}

/// A fence means that a node is changing the fact, so the audit leaves the fact alone.
#[tokio::test]
async fn a_fact_with_a_fence_is_no_finding() {
    let world = World::new().await;
    let (member, meta) = (digest(1), digest(2));
    let redis = &world.redis;
    redis.cli(&["SADD", SET, &member.to_string()]);
    redis.cli(&["HSET", &hash(&meta), "length", "7"]);
    let fences = [
        format!("fence::{{{SET}}}::{member}"),
        format!("fence::{{{}}}", hash(&meta)),
    ];
    for fence in &fences {
        redis.cli(&["SADD", fence, "1"]);
        redis.cli(&["PEXPIRE", fence, "60000"]);
    }
    let before = world.dump();
    let output = world.fix().await;
    assert_eq!(output.names(), [""; 0]);
    assert_eq!(output.report.changing, 2);
    assert_eq!(world.dump(), before);
    redis.cli(&["DEL", &fences[0], &fences[1]]);
    assert_eq!(world.fix().await.report.removed, 2);
}
