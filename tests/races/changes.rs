//! Changes that are cut off, overtaken by another, or cannot be told.

use crate::support::nodes::{
    Bare, Node, PATIENCE, SET, TRUST, beside, blob_path, config, digest, eventually, layers, name,
    node_with, put, stat, until,
};
use crate::support::recording::{Moment, Recording};
use crate::support::redis::Redis;
use crate::support::server::Signal;
use crate::{Mortal, READ, all_know, nobody_knows, nodes, short_lived, world};
use futures::{StreamExt, TryStreamExt};
use layercache::layout::{Distribution, Layout};
use layercache::{CacheStatus, CachedStore, ChangePolicy, Error, Link, RedisConfig};
use object_store::local::LocalFileSystem;
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// What Redis cannot be told of soon is not waited for.
fn hasty(redis: &Redis) -> RedisConfig {
    let soon = Duration::from_millis(500);
    config(redis).with_timeout(soon).with_change_timeout(soon)
}

fn is_retryable(error: &object_store::Error) -> bool {
    Error::find(error).is_some_and(Error::is_retryable)
}

/// A delete that has begun and that the store has not carried out, until `way.hold_changes(None)`.
async fn deleting(way: &Bare, node: &Node) -> JoinHandle<Result<(), Error>> {
    let changes = way.changes();
    way.hold_changes(Some(Moment::Before));
    let layers = layers(node);
    let delete = tokio::spawn(async move { layers.unlink(&digest(1)).await });
    eventually("the store is told", || way.changes() > changes).await;
    delete
}

/// Every way to change something, while Redis cannot be told.
#[tokio::test]
async fn race_08_a_change_that_redis_cannot_be_told_of_is_refused_with_nothing_changed() {
    let (mut redis, [way]) = world().await;
    let node = node_with(&way, hasty(&redis).with_change_policy(ChangePolicy::Strict));
    all_know([&node]).await;
    let (blob, other) = (blob_path(&digest(1)), Path::from("elsewhere"));
    way.put(&other, "other".into()).await.unwrap();
    let stored = async || {
        let objects: Vec<_> = way.list(None).try_collect().await.unwrap();
        let content = way.get(&blob).await.unwrap().bytes().await.unwrap();
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
    for (way, result) in store_errors.into_iter().enumerate() {
        let error = result.expect_err("a change was made");
        let text = error.to_string();
        assert!(text.contains("nothing was changed"), "{way}: {text}");
        assert!(is_retryable(&error), "{way}: {error:?}");
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
    assert_eq!(stat(&node, &digest(1)).await.0, READ.0);
}

/// By default only what takes something away is refused; what was written meanwhile is right on all
/// nodes as soon as the one that wrote it has reached Redis again, which has kept what was before.
#[tokio::test]
async fn race_08_without_redis_creations_are_made_and_removals_are_refused() {
    let (redis, [way, other]) = world().await;
    let node = node_with(&way, hasty(&redis));
    let reader = node_with(&other, hasty(&redis));
    let (elsewhere, second) = (Path::from("elsewhere"), blob_path(&digest(2)));
    way.put(&elsewhere, "other".into()).await.unwrap();
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
    for (way, result) in [
        node.delete(&second).await,
        node.rename(&second, &moved).await,
    ]
    .into_iter()
    .enumerate()
    {
        let error = result.expect_err("it was removed");
        assert!(is_retryable(&error), "{way}: {error:?}");
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
    // It is answered from the tiers again when all have been told.
    until(&node, &digest(2), (Some(5), CacheStatus::Memory)).await;
    for _ in 0..50 {
        for node in [&node, &reader] {
            assert_eq!(stat(node, &digest(1)).await.0, Some(14));
            assert_eq!(stat(node, &digest(2)).await.0, Some(5));
        }
    }
    until(&reader, &digest(2), (Some(5), CacheStatus::Memory)).await;
    layers(&node).unlink(&digest(1)).await.unwrap();
    nobody_knows([&node, &reader]).await;
}

/// The node dies after its change has begun; the store may yet carry it out.
#[tokio::test]
async fn race_09_a_node_that_dies_in_the_middle_of_a_delete_leaves_nothing_old() {
    let (redis, [way, other]) = world().await;
    let config = short_lived(&redis);
    let reader = node_with(&other, config.clone());
    all_know([&reader]).await;
    let dying = Mortal::new();
    dying
        .run(async move {
            let deleter = node_with(&way, config);
            stat(&deleter, &digest(1)).await;
            deleting(&way, &deleter).await;
        })
        .await;
    dying.dies(&redis).await;

    for _ in 0..5 {
        assert_eq!(stat(&reader, &digest(1)).await, READ, "asked of the store");
        assert_eq!(redis.cli(&["SCARD", SET]), "0");
    }
    layers(&layercache::CachedStore::new(other.clone()))
        .unlink(&digest(1))
        .await
        .unwrap();
    nobody_knows([&reader]).await;
    let fence = beside("fence", &digest(1));
    let has_lapsed = || redis.cli(&["EXISTS", &fence]) == "0";
    eventually("the fence lapses", has_lapsed).await;
    nobody_knows([&reader]).await;
    put(&other, &digest(1)).await;
    all_know([&reader]).await;
}

/// From the moment when the store is touched, the deleter may be dead: whoever has not been told by
/// then will never be.
#[tokio::test]
async fn race_09_the_others_have_been_told_when_the_store_is_touched() {
    let (redis, [way, other]) = world().await;
    let reader = node_with(&other, config(&redis));
    all_know([&reader]).await;
    let (dying, config) = (Mortal::new(), config(&redis));
    let touched = Arc::new(AtomicBool::new(false));
    way.at_change({
        let touched = Arc::clone(&touched);
        move || {
            touched.store(true, Ordering::SeqCst);
            // Its only thread stands still for longer than the reader is asked.
            thread::sleep(PATIENCE);
        }
    });
    dying
        .run(async move {
            let layers = layers(&node_with(&way, config));
            tokio::spawn(async move { layers.unlink(&digest(1)).await });
        })
        .await;
    eventually("the store is touched", || touched.load(Ordering::SeqCst)).await;
    tokio::time::sleep(TRUST).await;
    assert_eq!(stat(&reader, &digest(1)).await, READ, "it was not told");
}

/// A delete has deleted, and has not ended when the same is pushed anew.
#[tokio::test]
async fn race_14_the_late_end_of_a_delete_denies_nobody_a_newer_push() {
    let (_redis, [way, _], [deleter, pusher]) = nodes().await;
    all_know([&deleter, &pusher]).await;
    way.hold_changes(Some(Moment::After));
    let delete = tokio::spawn({
        let layers = layers(&deleter);
        async move { layers.unlink(&digest(1)).await }
    });
    let is_deleted = async || stat(&pusher, &digest(1)).await.0.is_none();
    while !is_deleted().await {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    layers(&pusher).link(&digest(1)).await.unwrap();
    assert_eq!(stat(&deleter, &digest(1)).await.0, READ.0);
    way.hold_changes(None);
    delete.await.unwrap().unwrap();
    for node in [&deleter, &pusher] {
        assert_eq!(stat(node, &digest(1)).await.0, READ.0);
    }
    all_know([&deleter, &pusher]).await;
}

/// A push begins and ends while a delete is under way, and its end is not the delete's.
#[tokio::test]
async fn race_14_the_end_of_one_change_does_not_lift_the_fence_of_another() {
    let (redis, [way, _], [deleter, pusher]) = nodes().await;
    all_know([&deleter, &pusher]).await;
    let delete = deleting(&way, &deleter).await;
    layers(&pusher).link(&digest(1)).await.unwrap();
    for _ in 0..3 {
        assert_eq!(stat(&pusher, &digest(1)).await, READ, "and not filled");
    }
    assert_eq!(redis.cli(&["SCARD", SET]), "0");
    way.hold_changes(None);
    delete.await.unwrap().unwrap();
    nobody_knows([&deleter, &pusher]).await;
}

/// While the fence is gone another node reads what is about to be deleted, and fills both tiers.
#[tokio::test]
async fn race_18_a_delete_whose_fence_was_evicted_tells_the_others_again() {
    let (redis, [way, _], [deleter, reader]) = nodes().await;
    let delete = deleting(&way, &deleter).await;
    assert_eq!(redis.cli(&["DEL", &beside("fence", &digest(1))]), "1");
    all_know([&reader]).await;
    assert_eq!(redis.cli(&["SCARD", SET]), "1");
    way.hold_changes(None);
    delete.await.unwrap().unwrap();
    nobody_knows([&reader, &deleter]).await;
    assert_eq!(redis.cli(&["SCARD", SET]), "0");
}

/// A change is refused because Redis has not answered in time. Its first step is executed later, and
/// what it has put up is taken back: its key is not kept out of the cache for the time of a fence.
#[tokio::test]
async fn race_25_a_step_that_is_executed_after_it_was_given_up_keeps_no_key_away() {
    let (redis, [way]) = world().await;
    let config = hasty(&redis);
    let fence_time = config.fence_ttl;
    let node = node_with(&way, config);
    // The server knows the script by now.
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
        READ.0,
        "nothing was changed"
    );
    all_know([&node]).await;
    let fence = beside("fence", &digest(1));
    let is_gone = || redis.cli(&["EXISTS", &fence]) == "0";
    eventually("the fence is taken back", is_gone).await;
    assert!(start.elapsed() < fence_time * 2 / 3, "it has expired");
    layers(&node).unlink(&digest(1)).await.unwrap();
    nobody_knows([&node]).await;
}

/// What was deleted while Redis hung is still there when it goes on.
#[tokio::test]
async fn race_33_what_was_deleted_during_an_outage_is_not_answered_after_it() {
    let (redis, [way, other]) = world().await;
    let config = hasty(&redis);
    let best_effort = config.clone().with_change_policy(ChangePolicy::BestEffort);
    let (deleter, reader) = (node_with(&way, best_effort), node_with(&other, config));
    all_know([&deleter, &reader]).await;
    redis.signal(Signal::Stop);
    layers(&deleter).unlink(&digest(1)).await.unwrap();
    nobody_knows([&deleter]).await;
    redis.signal(Signal::Cont);
    // The deleter knows what it owes; the other one is told as soon as that is paid.
    let is_told = async || stat(&reader, &digest(1)).await.0.is_none();
    while !is_told().await || redis.cli(&["SCARD", SET]) != "0" {
        nobody_knows([&deleter]).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    nobody_knows([&deleter, &reader]).await;
    layers(&deleter).link(&digest(1)).await.unwrap();
    all_know([&deleter, &reader]).await;
}

/// The client of a change goes away; what it has begun is ended all the same.
#[tokio::test]
async fn race_10_a_delete_whose_caller_went_away_is_ended() {
    let (redis, [way, _], [deleter, reader]) = nodes().await;
    all_know([&deleter, &reader]).await;
    let delete = deleting(&way, &deleter).await;
    delete.abort();
    assert_eq!(stat(&deleter, &digest(1)).await, READ, "not deleted yet");
    way.hold_changes(None);
    let fence = beside("fence", &digest(1));
    let is_ended = || redis.cli(&["EXISTS", &fence]) == "0";
    eventually("the change ends", is_ended).await;
    nobody_knows([&deleter, &reader]).await;
    put(&way, &digest(1)).await;
    all_know([&deleter, &reader]).await;
}

/// The link of a layer.
fn link_path(i: u32) -> Path {
    let link = Link::layer(name(), digest(i));
    Distribution::default().link_path(&link).unwrap()
}

/// A batch of two deletes that has begun and that the store has not carried out, until
/// `way.hold_changes(None)`. Of the second one the store will not say that it was refused.
async fn deleting_two(
    folder: &TempDir,
    config: RedisConfig,
) -> (
    Recording<LocalFileSystem>,
    JoinHandle<Vec<object_store::Result<Path>>>,
) {
    let way = Recording::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
    let builder = CachedStore::builder(way.clone());
    let node = builder.redis(config).unwrap().build();
    node.put(&link_path(1), digest(1).to_string().into())
        .await
        .unwrap();
    // A folder where the second link should be.
    std::fs::create_dir_all(folder.path().join(link_path(2).as_ref())).unwrap();
    let changes = way.changes();
    way.hold_changes(Some(Moment::Before));
    let paths = futures::stream::iter([Ok(link_path(1)), Ok(link_path(2))]).boxed();
    let batch = tokio::spawn(async move { node.delete_stream(paths).collect().await });
    eventually("the store is told", || way.changes() > changes).await;
    (way, batch)
}

/// Some of a batch may still happen, so it has no end; what it has deleted for certain is reported as
/// deleted, and its fence may be lost like any other.
#[tokio::test]
async fn race_18_a_batch_of_which_some_may_still_happen_takes_away_what_it_has_deleted() {
    let (redis, folder) = (Redis::start().await, tempfile::tempdir().unwrap());
    let (way, batch) = deleting_two(&folder, config(&redis)).await;
    assert_eq!(redis.cli(&["DEL", &beside("fence", &digest(1))]), "1");
    // As a load does that was granted a lease then.
    redis.cli(&["SADD", SET, &digest(1).to_string()]);
    way.hold_changes(None);
    let results = batch.await.unwrap();
    assert!(matches!(&results[..], [Ok(_), Err(_)]), "{results:?}");
    let left = redis.cli(&["SISMEMBER", SET, &digest(1).to_string()]);
    assert_eq!(left, "0", "reported as deleted, and answered still");
}

/// The same, and Redis goes away before that: what was deleted was not refused.
#[tokio::test]
async fn race_18_a_batch_that_cannot_be_confirmed_is_not_reported_as_refused() {
    let (mut redis, folder) = (Redis::start().await, tempfile::tempdir().unwrap());
    let (way, batch) = deleting_two(&folder, hasty(&redis)).await;
    redis.kill();
    way.hold_changes(None);
    let results = batch.await.unwrap();
    let [Err(deleted), Err(_)] = &results[..] else {
        panic!("{results:?}");
    };
    let error = Error::find(deleted).expect("an error of the cache");
    assert!(
        matches!(error, Error::ChangeUnconfirmed { .. }),
        "{error:?}"
    );
    assert!(error.is_retryable());
    assert!(
        !folder.path().join(link_path(1).as_ref()).exists(),
        "it is deleted"
    );
}

/// What was deleted then is owed: it is answered no more as soon as Redis can be told.
#[tokio::test]
async fn race_18_what_a_batch_has_deleted_unconfirmed_is_taken_away_when_redis_is_back() {
    let (redis, folder) = (Redis::start().await, tempfile::tempdir().unwrap());
    let (way, batch) = deleting_two(&folder, hasty(&redis)).await;
    assert_eq!(redis.cli(&["DEL", &beside("fence", &digest(1))]), "1");
    redis.cli(&["SADD", SET, &digest(1).to_string()]);
    redis.signal(Signal::Stop);
    way.hold_changes(None);
    let results = batch.await.unwrap();
    assert!(matches!(&results[..], [Err(_), Err(_)]), "{results:?}");
    redis.signal(Signal::Cont);
    let is_gone = || redis.cli(&["SISMEMBER", SET, &digest(1).to_string()]) == "0";
    eventually("it is taken away", is_gone).await;
}
