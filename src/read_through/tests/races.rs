//! Tests: loads, fills and changes that overtake each other.

use super::super::PATIENCE;
use super::*;

/// FusionCache#625, moka, Guava#1881: a load that read before a delete fills after it.
#[tokio::test]
async fn fusion_625_a_load_from_before_a_delete_fills_nothing() {
    for with_shared in [false, true] {
        let world = world(with_shared);
        world.backend.put(&world.link, 5);
        world.backend.read.hold();
        let early = world.stat_task();
        world.backend.read.arrival().await;

        world.layers.unlink(&world.link.digest).await.unwrap();
        world.backend.read.release();
        assert_eq!(early.await.unwrap(), Some(5), "it asked before the delete");
        world.finished().await;
        assert!(!world.shared.has(&world.link).0);
        assert_eq!(world.stat().await.0, None);
    }
}

/// FusionCache#613: an answer that Redis gave before a delete fills memory after the delete.
#[tokio::test]
async fn fusion_613_a_redis_answer_from_before_a_delete_fills_nothing() {
    let world = world(true);
    world.backend.put(&world.link, 5);
    world.stat().await;
    world.finished().await;
    world.core.cache().clear_memory();

    world.shared.looked_up.hold();
    let early = world.stat_task();
    world.shared.looked_up.arrival().await;
    world.layers.unlink(&world.link.digest).await.unwrap();
    world.shared.looked_up.release();
    assert_eq!(early.await.unwrap(), Some(5), "it asked before the delete");
    world.finished().await;
    assert_eq!(world.stat().await.0, None);
}

/// A caller that arrives after a delete does not join a load from before the delete.
#[tokio::test]
async fn nobody_boards_a_load_from_before_a_delete() {
    let world = world(false);
    world.backend.put(&world.link, 5);
    world.backend.read.hold();
    let early = world.stat_task();
    world.backend.read.arrival().await;
    world.layers.unlink(&world.link.digest).await.unwrap();

    let late = world.stat_task();
    tokio::task::yield_now().await;
    world.backend.read.release();
    assert_eq!(early.await.unwrap(), Some(5));
    assert_eq!(late.await.unwrap(), None);
}

/// A caller that arrives after a put does not join a load from before the put, which answers that
/// the object is absent.
#[tokio::test]
async fn nobody_boards_a_negative_from_before_a_put() {
    let world = world(false);
    world.backend.read.hold();
    let early = world.stat_task();
    world.backend.read.arrival().await;
    world.backend.put(&world.link, 5);

    let late = world.stat_task();
    tokio::task::yield_now().await;
    world.backend.read.release();
    assert_eq!(early.await.unwrap(), None);
    assert_eq!(late.await.unwrap(), Some(5));
}

/// moka panics after 200 aborted leaders of one key.
#[tokio::test]
async fn moka_200_aborts_leave_no_load_behind() {
    let world = world(false);
    world.backend.put(&world.link, 5);
    world.backend.read.hold();
    for _ in 0..250 {
        let caller = world.stat_task();
        tokio::task::yield_now().await;
        caller.abort();
    }
    world.backend.read.release();
    assert_eq!(world.stat().await.0, Some(5));
    assert_eq!(world.backend.calls(), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_load_that_hangs_does_not_stop_those_who_come_later() {
    let world = world(false);
    world.backend.put(&world.link, 5);
    world.backend.read.hold();
    let first = world.stat_task();
    world.backend.read.arrival().await;
    let second = world.stat_task();
    tokio::time::sleep(PATIENCE + Duration::from_secs(1)).await;
    assert_eq!(world.backend.calls(), (2, 2), "the next has started anyway");
    world.backend.read.release();
    assert_eq!(first.await.unwrap(), Some(5));
    assert_eq!(second.await.unwrap(), Some(5));
}

#[tokio::test]
async fn what_is_read_while_a_change_runs_is_not_filled() {
    let world = world(true);
    world.backend.put(&world.link, 5);
    world.backend.written.hold();
    let (layers, digest) = (world.layers.clone(), world.link.digest);
    let change = tokio::spawn(async move { layers.link(&digest).await });
    world.backend.written.arrival().await;

    assert_eq!(world.stat().await, (Some(5), CacheStatus::Miss));
    assert!(!world.shared.has(&world.link).0);
    world.backend.written.release();
    change.await.unwrap().unwrap();
    assert!(
        world.shared.has(&world.link).0,
        "the change fills what it wrote"
    );
}

/// A fill has passed its check and is on its way to Redis when a delete begins.
#[tokio::test]
async fn greptime_7825_a_fill_under_way_is_withdrawn_by_the_delete() {
    let world = world(true);
    world.backend.put(&world.link, 5);
    world.shared.fill.hold();
    assert_eq!(world.stat().await.0, Some(5));
    world.shared.fill.arrival().await;

    let (layers, digest) = (world.layers.clone(), world.link.digest);
    let delete = tokio::spawn(async move { layers.unlink(&digest).await });
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    world.shared.fill.release();
    delete.await.unwrap().unwrap();
    world.finished().await;
    assert!(!world.shared.has(&world.link).0);
    assert_eq!(world.stat().await.0, None);
}

#[tokio::test]
async fn a_change_goes_on_without_its_caller() {
    let world = world(true);
    world.backend.put(&world.link, 5);
    world.backend.written.hold();
    let (layers, digest) = (world.layers.clone(), world.link.digest);
    let change = tokio::spawn(async move { layers.unlink(&digest).await });
    world.backend.written.arrival().await;
    change.abort();
    world.backend.written.release();
    world.finished().await;
    assert_eq!(world.stat().await.0, None);
    world.backend.put(&world.link, 5);
    world.stat().await;
    world.finished().await;
    let again = world.stat().await;
    assert_eq!(
        again,
        (Some(5), CacheStatus::Memory),
        "the key is free again"
    );
}
