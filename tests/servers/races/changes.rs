//! Tests changes that are cancelled, overtaken by another change, or cannot be announced through
//! Redis.

use super::{MISS, NodeRuntime, all_know, no_node_knows, nodes, short_lived, world};
use futures::{StreamExt, TryStreamExt};
use layercache::{CacheStatus, CachedStore, ChangePolicy, Error, Link, RedisConfig};
use object_store::local::LocalFileSystem;
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use test_support::nodes::{
    Bare, Node, PATIENCE, SET, TRUST, beside, blob_path, config, digest, eventually, layers,
    link_path, name, node_with, put, stat, until,
};
use test_support::recording::{Moment, Recording};
use test_support::redis::Redis;
use test_support::server::Signal;
use tokio::task::JoinHandle;

/// Returns a configuration with short deadlines, so that a node gives up soon when Redis is silent.
fn hasty(redis: &Redis) -> RedisConfig {
    let soon = Duration::from_millis(500);
    config(redis).with_timeout(soon).with_change_timeout(soon)
}

fn is_retryable(error: &object_store::Error) -> bool {
    Error::from_store(error).is_some_and(Error::is_retryable)
}

/// Starts a delete and waits until it reaches the store. The store carries it out after
/// `store.hold_changes(None)`.
async fn deleting(store: &Bare, node: &Node) -> JoinHandle<Result<(), Error>> {
    let changes = store.changes();
    store.hold_changes(Some(Moment::Before));
    let layers = layers(node);
    let delete = tokio::spawn(async move { layers.unlink(&digest(1)).await });
    eventually("the call reaches the store", || store.changes() > changes).await;
    delete
}

/// Every kind of change is refused while Redis is down.
#[tokio::test]
async fn race_08_a_removal_without_redis_is_refused_and_changes_nothing() {
    let (mut redis, [store]) = world().await;
    let node = node_with(
        &store,
        hasty(&redis).with_change_policy(ChangePolicy::Strict),
    );
    all_know([&node]).await;
    let (blob, other) = (blob_path(&digest(1)), Path::from("elsewhere"));
    store.put(&other, "other".into()).await.unwrap();
    let stored = async || {
        let objects: Vec<_> = store.list(None).try_collect().await.unwrap();
        let content = store.get(&blob).await.unwrap().bytes().await.unwrap();
        (objects, content)
    };
    let before = stored().await;
    redis.kill();

    let store_errors = [
        node.put(&blob, "another".into()).await.map(drop),
        async {
            let mut upload = node.put_multipart(&blob).await?;
            upload.put_part("another".into()).await?;
            upload.complete().await.map(drop)
        }
        .await,
        node.copy(&other, &blob).await,
        node.rename(&blob, &Path::from("moved")).await,
        node.rename(&other, &blob).await,
        node.delete(&blob).await,
    ];
    for (case, result) in store_errors.into_iter().enumerate() {
        let error = result.expect_err("a change was made");
        let text = error.to_string();
        assert!(text.contains("nothing was changed"), "{case}: {text}");
        assert!(is_retryable(&error), "{case}: {error:?}");
    }
    let link = Link::layer(name(), digest(1));
    let typed_errors = [
        layers(&node).link(&digest(2)).await,
        layers(&node).unlink(&link.digest).await,
        node.registry().blobs().delete(&digest(1)).await,
    ];
    for result in typed_errors {
        assert!(
            matches!(result, Err(Error::ChangeRefused { .. })),
            "{result:?}"
        );
    }
    assert_eq!(stored().await, before);
    assert_eq!(stat(&node, &digest(1)).await.0, MISS.0);
}

/// By default the node refuses only removals. Creations go on: the node keeps their keys in its
/// retry queue, and once it reaches Redis again all nodes answer them correctly.
#[tokio::test]
async fn race_08_without_redis_creations_are_made_and_removals_are_refused() {
    let (redis, [store, other]) = world().await;
    let node = node_with(&store, hasty(&redis));
    let reader = node_with(&other, hasty(&redis));
    let (elsewhere, second) = (Path::from("elsewhere"), blob_path(&digest(2)));
    store.put(&elsewhere, "other".into()).await.unwrap();
    all_know([&node, &reader]).await;
    redis.signal(Signal::Stop);

    layers(&node).link(&digest(2)).await.unwrap();
    node.put(&second, "first".into()).await.unwrap();
    node.copy(&elsewhere, &second).await.unwrap();
    node.rename(&elsewhere, &second).await.unwrap();
    let mut upload = node.put_multipart(&blob_path(&digest(1))).await.unwrap();
    upload.put_part("longer content".into()).await.unwrap();
    upload.complete().await.unwrap();
    let mount = node.registry().repository("a/copy".parse().unwrap());
    assert!(mount.mount(&name(), &digest(1)).await.unwrap().is_some());

    let moved = Path::from("moved");
    for (case, result) in [
        node.delete(&second).await,
        node.rename(&second, &moved).await,
    ]
    .into_iter()
    .enumerate()
    {
        let error = result.expect_err("it was removed");
        assert!(is_retryable(&error), "{case}: {error:?}");
    }
    let blobs = node.registry().blobs();
    let unlinked = layers(&node).unlink(&digest(1)).await;
    for result in [unlinked, blobs.delete(&digest(1)).await] {
        let error = result.expect_err("it was removed");
        assert!(matches!(error, Error::ChangeRefused { .. }), "{error:?}");
        assert!(error.is_retryable());
    }
    assert_eq!(stat(&node, &digest(1)).await.0, Some(14));
    assert_eq!(stat(&node, &digest(2)).await.0, Some(5));

    redis.signal(Signal::Cont);
    // The tiers answer for it again once all nodes were notified.
    until(&node, &digest(2), (Some(5), CacheStatus::Memory)).await;
    for _ in 0..50 {
        for node in [&node, &reader] {
            assert_eq!(stat(node, &digest(1)).await.0, Some(14));
            assert_eq!(stat(node, &digest(2)).await.0, Some(5));
        }
    }
    until(&reader, &digest(2), (Some(5), CacheStatus::Memory)).await;
    layers(&node).unlink(&digest(1)).await.unwrap();
    no_node_knows([&node, &reader]).await;
}

/// The node dies after its change has begun. The store may still carry the change out.
#[tokio::test]
async fn race_09_a_node_killed_during_a_delete_leaves_nothing_stale() {
    let (redis, [store, other]) = world().await;
    let config = short_lived(&redis);
    let reader = node_with(&other, config.clone());
    all_know([&reader]).await;
    let dying = NodeRuntime::new();
    dying
        .run(async move {
            let deleter = node_with(&store, config);
            stat(&deleter, &digest(1)).await;
            deleting(&store, &deleter).await;
        })
        .await;
    dying.kill(&redis).await;

    for _ in 0..5 {
        assert_eq!(
            stat(&reader, &digest(1)).await,
            MISS,
            "answered by the store"
        );
        assert_eq!(redis.cli(&["SCARD", SET]), "0");
    }
    layers(&layercache::CachedStore::new(other.clone()))
        .unlink(&digest(1))
        .await
        .unwrap();
    no_node_knows([&reader]).await;
    let fence = beside("fence", &digest(1));
    let has_lapsed = || redis.cli(&["EXISTS", &fence]) == "0";
    eventually("the fence expires", has_lapsed).await;
    no_node_knows([&reader]).await;
    put(&other, &digest(1)).await;
    all_know([&reader]).await;
}

/// The deleter may die as soon as it has called the store. A node that was not notified before that is
/// never notified.
#[tokio::test]
async fn race_09_all_nodes_are_told_before_the_store_is_changed() {
    let (redis, [store, other]) = world().await;
    let reader = node_with(&other, config(&redis));
    all_know([&reader]).await;
    let (dying, config) = (NodeRuntime::new(), config(&redis));
    let touched = Arc::new(AtomicBool::new(false));
    store.at_change({
        let touched = Arc::clone(&touched);
        move || {
            touched.store(true, Ordering::SeqCst);
            // The deleter's only thread sleeps for longer than the test asks the reader.
            thread::sleep(PATIENCE);
        }
    });
    dying
        .run(async move {
            let layers = layers(&node_with(&store, config));
            tokio::spawn(async move { layers.unlink(&digest(1)).await });
        })
        .await;
    eventually("the call reaches the store", || {
        touched.load(Ordering::SeqCst)
    })
    .await;
    tokio::time::sleep(TRUST).await;
    assert_eq!(
        stat(&reader, &digest(1)).await,
        MISS,
        "the reader was not notified"
    );
}

/// A delete has taken effect but has not ended when another node pushes the same layer again.
#[tokio::test]
async fn race_14_the_late_end_of_a_delete_does_not_hide_a_newer_push() {
    let (_redis, [store, _], [deleter, pusher]) = nodes().await;
    all_know([&deleter, &pusher]).await;
    store.hold_changes(Some(Moment::After));
    let delete = tokio::spawn({
        let layers = layers(&deleter);
        async move { layers.unlink(&digest(1)).await }
    });
    let is_deleted = async || stat(&pusher, &digest(1)).await.0.is_none();
    while !is_deleted().await {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    layers(&pusher).link(&digest(1)).await.unwrap();
    assert_eq!(stat(&deleter, &digest(1)).await.0, MISS.0);
    store.hold_changes(None);
    delete.await.unwrap().unwrap();
    for node in [&deleter, &pusher] {
        assert_eq!(stat(node, &digest(1)).await.0, MISS.0);
    }
    all_know([&deleter, &pusher]).await;
}

/// A push begins and ends while a delete runs. Its end must not lift the delete's fence.
#[tokio::test]
async fn race_14_the_end_of_one_change_keeps_the_fence_of_another() {
    let (redis, [store, _], [deleter, pusher]) = nodes().await;
    all_know([&deleter, &pusher]).await;
    let delete = deleting(&store, &deleter).await;
    layers(&pusher).link(&digest(1)).await.unwrap();
    for _ in 0..3 {
        assert_eq!(stat(&pusher, &digest(1)).await, MISS, "the key was filled");
    }
    assert_eq!(redis.cli(&["SCARD", SET]), "0");
    store.hold_changes(None);
    delete.await.unwrap().unwrap();
    no_node_knows([&deleter, &pusher]).await;
}

/// The fence is evicted. Another node then reads the layer that is about to be deleted, and fills
/// both tiers.
#[tokio::test]
async fn race_18_a_delete_whose_fence_was_evicted_publishes_again() {
    let (redis, [store, _], [deleter, reader]) = nodes().await;
    let delete = deleting(&store, &deleter).await;
    assert_eq!(redis.cli(&["DEL", &beside("fence", &digest(1))]), "1");
    all_know([&reader]).await;
    assert_eq!(redis.cli(&["SCARD", SET]), "1");
    store.hold_changes(None);
    delete.await.unwrap().unwrap();
    no_node_knows([&reader, &deleter]).await;
    assert_eq!(redis.cli(&["SCARD", SET]), "0");
}

/// A change is refused because Redis did not answer in time, and Redis executes its first step
/// later. The node takes the fence back, so the key does not stay uncached until the fence expires.
#[tokio::test]
async fn race_25_a_step_executed_after_its_timeout_blocks_no_key() {
    let (redis, [store]) = world().await;
    let fence_time = Duration::from_secs(30);
    let config = hasty(&redis).with_fence_ttl(fence_time);
    let node = node_with(&store, config);
    // The server has the script after this change.
    layers(&node).link(&digest(1)).await.unwrap();
    all_know([&node]).await;
    redis.signal(Signal::Stop);
    let refused = layers(&node).unlink(&digest(1)).await.unwrap_err();
    assert!(
        matches!(refused, Error::ChangeRefused { .. }),
        "{refused:?}"
    );
    redis.signal(Signal::Cont);
    let start = Instant::now();
    assert_eq!(
        stat(&node, &digest(1)).await.0,
        MISS.0,
        "nothing was changed"
    );
    all_know([&node]).await;
    let fence = beside("fence", &digest(1));
    let is_gone = || redis.cli(&["EXISTS", &fence]) == "0";
    eventually("the fence is removed", is_gone).await;
    assert!(start.elapsed() < fence_time * 2 / 3, "it has expired");
    layers(&node).unlink(&digest(1)).await.unwrap();
    no_node_knows([&node]).await;
}

/// Redis hangs during a delete, and has the deleted entry still when it goes on.
#[tokio::test]
async fn race_33_an_object_deleted_during_an_outage_is_not_answered_after_it() {
    let (redis, [store, other]) = world().await;
    let config = hasty(&redis);
    let best_effort = config.clone().with_change_policy(ChangePolicy::BestEffort);
    let (deleter, reader) = (node_with(&store, best_effort), node_with(&other, config));
    all_know([&deleter, &reader]).await;
    redis.signal(Signal::Stop);
    layers(&deleter).unlink(&digest(1)).await.unwrap();
    no_node_knows([&deleter]).await;
    redis.signal(Signal::Cont);
    // The deleter has the key in its retry queue. The reader is notified once the queue is empty.
    let is_told = async || stat(&reader, &digest(1)).await.0.is_none();
    while !is_told().await || redis.cli(&["SCARD", SET]) != "0" {
        no_node_knows([&deleter]).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    no_node_knows([&deleter, &reader]).await;
    layers(&deleter).link(&digest(1)).await.unwrap();
    all_know([&deleter, &reader]).await;
}

/// The caller of a delete gives up. The node completes the delete nevertheless.
#[tokio::test]
async fn race_10_a_delete_with_a_cancelled_caller_runs_to_its_end() {
    let (redis, [store, _], [deleter, reader]) = nodes().await;
    all_know([&deleter, &reader]).await;
    let delete = deleting(&store, &deleter).await;
    delete.abort();
    assert_eq!(stat(&deleter, &digest(1)).await, MISS, "not deleted yet");
    store.hold_changes(None);
    let fence = beside("fence", &digest(1));
    let is_ended = || redis.cli(&["EXISTS", &fence]) == "0";
    eventually("the change ends", is_ended).await;
    no_node_knows([&deleter, &reader]).await;
    put(&store, &digest(1)).await;
    all_know([&deleter, &reader]).await;
}

/// Starts a batch of two deletes and waits until it reaches the store. The store carries it out
/// after `store.hold_changes(None)`. The second delete fails with an error that does not prove that
/// nothing was changed.
async fn deleting_two(
    folder: &TempDir,
    config: RedisConfig,
) -> (
    Recording<LocalFileSystem>,
    JoinHandle<Vec<object_store::Result<Path>>>,
) {
    let store = Recording::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
    let builder = CachedStore::builder(store.clone());
    let node = builder.redis(config).build().unwrap();
    node.put(&link_path(&digest(1)), digest(1).to_string().into())
        .await
        .unwrap();
    // A folder at the path of the second link makes its delete fail.
    std::fs::create_dir_all(folder.path().join(link_path(&digest(2)).as_ref())).unwrap();
    let changes = store.changes();
    store.hold_changes(Some(Moment::Before));
    let paths =
        futures::stream::iter([Ok(link_path(&digest(1))), Ok(link_path(&digest(2)))]).boxed();
    let batch = tokio::spawn(async move { node.delete_stream(paths).collect().await });
    eventually("the call reaches the store", || store.changes() > changes).await;
    (store, batch)
}

/// One delete of a batch may still happen, so the change of the batch has no end, and its fences
/// may be lost. Its finished deletes are invalidated once more before they are reported as done.
#[tokio::test]
async fn race_18_a_batch_with_unknown_outcomes_invalidates_its_deleted_objects() {
    let (redis, folder) = (Redis::start().await, tempfile::tempdir().unwrap());
    let (store, batch) = deleting_two(&folder, config(&redis)).await;
    assert_eq!(redis.cli(&["DEL", &beside("fence", &digest(1))]), "1");
    // A load that was granted a lease while the fence was missing fills the set like this.
    redis.cli(&["SADD", SET, &digest(1).to_string()]);
    store.hold_changes(None);
    let results = batch.await.unwrap();
    assert!(matches!(&results[..], [Ok(_), Err(_)]), "{results:?}");
    let left = redis.cli(&["SISMEMBER", SET, &digest(1).to_string()]);
    assert_eq!(left, "0", "reported as deleted, and still answered");
}

/// Redis dies before the batch ends. The delete that has happened must not be reported as refused.
#[tokio::test]
async fn race_18_a_batch_that_cannot_be_confirmed_is_not_reported_as_refused() {
    let (mut redis, folder) = (Redis::start().await, tempfile::tempdir().unwrap());
    let (store, batch) = deleting_two(&folder, hasty(&redis)).await;
    redis.kill();
    store.hold_changes(None);
    let results = batch.await.unwrap();
    let [Err(deleted), Err(_)] = &results[..] else {
        panic!("{results:?}");
    };
    let error = Error::from_store(deleted).expect("an error of the cache");
    assert!(
        matches!(error, Error::ChangeUnconfirmed { .. }),
        "{error:?}"
    );
    assert!(error.is_retryable());
    assert!(
        !folder.path().join(link_path(&digest(1)).as_ref()).exists(),
        "the object is deleted"
    );
}

/// A delete that could not be confirmed stays in the retry queue. The entry is removed once Redis
/// answers again.
#[tokio::test]
async fn race_18_unconfirmed_deletes_of_a_batch_are_invalidated_when_redis_is_back() {
    let (redis, folder) = (Redis::start().await, tempfile::tempdir().unwrap());
    let (store, batch) = deleting_two(&folder, hasty(&redis)).await;
    assert_eq!(redis.cli(&["DEL", &beside("fence", &digest(1))]), "1");
    redis.cli(&["SADD", SET, &digest(1).to_string()]);
    redis.signal(Signal::Stop);
    store.hold_changes(None);
    let results = batch.await.unwrap();
    assert!(matches!(&results[..], [Err(_), Err(_)]), "{results:?}");
    redis.signal(Signal::Cont);
    let is_gone = || redis.cli(&["SISMEMBER", SET, &digest(1).to_string()]) == "0";
    eventually("the entry is removed", is_gone).await;
}
