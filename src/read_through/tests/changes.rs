//! Tests: changes that are made without Redis, and the work that follows.

use super::*;
use crate::cache::shared::SharedTier;
use crate::coherence::lease::{Grant, Token};
use crate::telemetry::metrics::metered;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, advance, sleep};

fn down(world: &World, is_down: bool) {
    world.shared.fails.store(is_down, Ordering::SeqCst);
}

impl World {
    async fn settles_as(&self, expected: (Option<u64>, CacheStatus)) {
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            let stat = self.stat().await;
            if stat == expected {
                return;
            }
            assert!(Instant::now() < end, "{stat:?}, never {expected:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Returns whether the link has no fence in Redis.
    async fn has_no_fence(&self) -> bool {
        let key = Key::Link(self.link.clone());
        let grant = self.shared.grant(&[key], Token::of(1), true, later()).await;
        grant.unwrap() == [Grant::Granted]
    }
}

/// Makes a runtime whose tasks end when it is dropped.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Makes a runtime whose clock the test can advance.
fn paused() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().start_paused(true).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn without_redis_a_creation_is_made_and_a_removal_refused_by_default() {
    let (world, get) = metered(|| world(true));
    let changes = |result| get(&format!("layercache_changes_total{{result=\"{result}\"}}"));
    down(&world, true);
    let refused = world.layers.unlink(&world.link.digest).await.unwrap_err();
    assert!(matches!(refused, Error::ChangeRefused { .. }), "{refused}");
    assert!(refused.is_retryable());
    assert!(refused.to_string().contains("retry"), "{refused}");
    assert_eq!((changes("refused"), changes("queued")), (1, 0));

    world.layers.link(&world.link.digest).await.unwrap();
    assert_eq!((changes("refused"), changes("queued")), (1, 1));
    assert_eq!(get("layercache_retry_queue_keys"), 1);
    world.backend.put(&world.link, 5);
    assert_eq!(world.stat().await, (Some(5), CacheStatus::Miss));

    down(&world, false);
    world.settles_as((Some(5), CacheStatus::Memory)).await;
    assert_eq!(get("layercache_retry_queue_keys"), 0);
    world.layers.unlink(&world.link.digest).await.unwrap();
    assert_eq!(world.stat().await.0, None);
}

#[tokio::test(start_paused = true)]
async fn strict_refuses_both_and_best_effort_neither() {
    for (policy, is_made) in [
        (ChangePolicy::Strict, false),
        (ChangePolicy::BestEffort, true),
    ] {
        let world = world_with(true, policy);
        down(&world, true);
        let link = world.layers.link(&world.link.digest).await;
        let unlink = world.layers.unlink(&world.link.digest).await;
        assert_eq!([link.is_ok(), unlink.is_ok()], [is_made; 2], "{policy:?}");
    }
}

/// Redis may execute a begin whose answer is lost. Its fence keeps the key out of the caches until
/// the node removes the fence.
#[tokio::test(start_paused = true)]
async fn what_every_try_may_have_put_up_is_taken_away() {
    for lost in [1, 2, 3] {
        let world = world(true);
        world.backend.put(&world.link, 5);
        world.shared.lost_replies.store(lost, Ordering::SeqCst);
        world.layers.link(&world.link.digest).await.unwrap();
        assert_eq!(world.shared.lost_replies.load(Ordering::SeqCst), 0);
        sleep(Duration::from_secs(1)).await;
        assert!(world.has_no_fence().await, "{lost} lost");
    }
    let world = world(true);
    world
        .shared
        .lost_replies
        .store(usize::MAX, Ordering::SeqCst);
    let start = Instant::now();
    let refused = world.layers.unlink(&world.link.digest).await.unwrap_err();
    assert!(refused.is_retryable(), "{refused}");
    let tries = usize::MAX - world.shared.lost_replies.load(Ordering::SeqCst);
    assert!((5..20).contains(&tries), "{tries} tries");
    assert!(start.elapsed() < Duration::from_secs(6));
    world.shared.lost_replies.store(0, Ordering::SeqCst);
    sleep(Duration::from_secs(1)).await;
    assert!(world.has_no_fence().await);
}

#[tokio::test(start_paused = true)]
async fn an_end_without_an_answer_is_tried_again_before_anything_is_reported() {
    let (world, get) = metered(|| world_with(true, ChangePolicy::Strict));
    world.backend.put(&world.link, 5);
    world.backend.written.hold();
    let unlink = {
        let (layers, digest) = (world.layers.clone(), world.link.digest);
        tokio::spawn(async move { layers.unlink(&digest).await })
    };
    world.backend.written.arrival().await;
    world.shared.lost_replies.store(2, Ordering::SeqCst);
    world.backend.written.release();
    unlink.await.unwrap().unwrap();
    assert_eq!(get("layercache_changes_total{result=\"done\"}"), 1);
    assert_eq!(
        world.shared.publishes.load(Ordering::SeqCst),
        2,
        "told again"
    );
}

/// The other servers of a cluster answer in a millisecond. A change that only repeated its end would
/// ask them for thousands of times, and so would the retry queue.
#[tokio::test(start_paused = true)]
async fn a_change_does_not_flood_a_cluster_of_which_a_server_is_down() {
    let world = world(true);
    let scripts = || world.shared.scripts.swap(0, Ordering::SeqCst);
    world.shared.slowness.store(1, Ordering::SeqCst);
    world.shared.is_partly_down.store(true, Ordering::SeqCst);
    world.backend.put(&world.link, 5);
    let began = Instant::now();
    let error = world.layers.unlink(&world.link.digest).await.unwrap_err();
    assert!(
        matches!(error, Error::ChangeUnconfirmed { .. }),
        "{error:?}"
    );
    let (took, by_change) = (began.elapsed(), scripts());
    assert!(took > Duration::from_secs(1), "{took:?}");
    assert!((4..40).contains(&by_change), "{by_change} in {took:?}");

    sleep(Duration::from_secs(10)).await;
    let by_queue = scripts();
    assert!((10..250).contains(&by_queue), "{by_queue}");
    world.shared.is_partly_down.store(false, Ordering::SeqCst);
    sleep(Duration::from_secs(1)).await;
    scripts();
    sleep(Duration::from_secs(10)).await;
    assert_eq!(scripts(), 0, "the queue has told Redis");
}

/// A backend call may take longer than a change may wait for Redis. The change's time for Redis
/// does not shrink meanwhile.
#[tokio::test(start_paused = true)]
async fn a_slow_backend_takes_nothing_off_what_a_change_may_wait_for_redis() {
    for is_creation in [true, false] {
        let world = world_with(true, ChangePolicy::Strict);
        world.backend.put(&world.link, 5);
        world.backend.written.hold();
        let (layers, digest) = (world.layers.clone(), world.link.digest);
        let change = tokio::spawn(async move {
            match is_creation {
                true => layers.link(&digest).await,
                false => layers.unlink(&digest).await,
            }
        });
        world.backend.written.arrival().await;
        sleep(Duration::from_secs(20)).await;
        world.shared.slowness.store(1000, Ordering::SeqCst);
        world.backend.written.release();
        change.await.unwrap().unwrap();
    }
}

/// Redis answers again, and the node is just working through its retry queue.
#[tokio::test(start_paused = true)]
async fn a_change_waits_for_the_retry_queue_that_is_being_worked_off() {
    let world = world_with(true, ChangePolicy::BestEffort);
    down(&world, true);
    let keys = (0..1500).map(|i| Key::Link(Link::layer(world.link.repository.clone(), nth(i))));
    let call = async { ((), Outcome::Over) };
    let change = world.core.change(ChangeKind::Removal, keys.collect(), call);
    change.await.unwrap();
    down(&world, false);
    world.shared.invalidated.hold();
    world.shared.invalidated.late_arrival().await;
    // While the node does not know whether Redis answers, a change does not wait.
    world.layers.link(&world.link.digest).await.unwrap();
    world.shared.invalidated.release();
    world.shared.invalidated.hold();
    world.shared.invalidated.late_arrival().await;
    let unlink = {
        let (layers, digest) = (world.layers.clone(), world.link.digest);
        tokio::spawn(async move { layers.unlink(&digest).await })
    };
    sleep(Duration::from_millis(100)).await;
    assert!(!unlink.is_finished());
    world.shared.invalidated.release();
    unlink.await.unwrap().unwrap();
    let cache = world.core.cache();
    let (mut guard, mut budget) = (cache.guard([]), cache.budget());
    let asked = cache.grant(&mut guard, &[], false, &mut budget).await;
    assert!(asked.is_ok(), "clear");
}

/// The call timed out while Redis was away. It may still happen when Redis is back.
#[tokio::test(start_paused = true)]
async fn what_may_still_happen_is_kept_away_once_redis_is_there() {
    let world = world_with(true, ChangePolicy::BestEffort);
    world.backend.put(&world.link, 5);
    down(&world, true);
    world.backend.fails.store(true, Ordering::SeqCst);
    world.layers.unlink(&world.link.digest).await.unwrap_err();
    world.backend.fails.store(false, Ordering::SeqCst);
    down(&world, false);
    sleep(Duration::from_secs(1)).await;
    assert!(!world.has_no_fence().await);
    for _ in 0..3 {
        assert_eq!(world.stat().await, (Some(5), CacheStatus::Miss));
        sleep(Duration::from_secs(5)).await;
    }
}

/// The fence must stand for its whole TTL after the call, however long the call took.
#[tokio::test(start_paused = true)]
async fn the_fence_of_what_may_still_happen_is_renewed_when_the_call_is_given_up() {
    let world = world(true);
    let call = async {
        sleep(Duration::from_secs(9)).await;
        ((), Outcome::Unknown)
    };
    let keys = vec![Key::Link(world.link.clone())];
    let change = world.core.change(ChangeKind::Removal, keys, call);
    change.await.unwrap();
    assert_eq!(*world.shared.renewed.lock().unwrap(), Some(Instant::now()));
}

#[tokio::test(start_paused = true)]
async fn a_change_that_may_still_happen_waits_for_redis_no_longer_than_its_deadline() {
    let world = world(true);
    let shared = Arc::clone(&world.shared);
    // `BEGIN` and the publish take four of the five seconds.
    shared.slowness.store(2_000, Ordering::SeqCst);
    let call = async move {
        shared.hangs.store(true, Ordering::SeqCst);
        ((), Outcome::Unknown)
    };
    let keys = vec![Key::Link(world.link.clone())];
    let began = Instant::now();
    let change = world.core.change(ChangeKind::Removal, keys, call);
    let error = change.await.unwrap_err();
    assert!(
        matches!(error, Error::ChangeUnconfirmed { .. }),
        "{error:?}"
    );
    assert_eq!(began.elapsed(), Duration::from_secs(5));
}

/// Such a fence may stand only at a server that was replaced, or Redis may have evicted it. Another
/// node may then have cached the object, which the call removes later.
#[tokio::test(start_paused = true)]
async fn a_change_that_may_still_happen_begins_again_when_its_fence_was_lost() {
    for is_replaced in [false, true] {
        let world = world(true);
        let (key, shared) = (Key::Link(world.link.clone()), Arc::clone(&world.shared));
        let facts = Facts::one(Fact::member(world.link.clone()));
        let lost = Arc::clone(&shared);
        let call = async move {
            match is_replaced {
                true => _ = lost.session.fetch_add(1, Ordering::SeqCst),
                false => lost.purge().await.unwrap(),
            }
            lost.add(facts);
            ((), Outcome::Unknown)
        };
        let change = world
            .core
            .change(ChangeKind::Removal, vec![key.clone()], call);
        change.await.unwrap();
        assert!(!shared.has(&world.link).0, "the entry is removed");
        assert_ne!(shared.fences(&key), 0, "a fence stands");
        assert_eq!(shared.publishes.load(Ordering::SeqCst), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn the_pause_between_two_tries_ends_with_the_deadline() {
    let world = world(true);
    world
        .shared
        .lost_replies
        .store(usize::MAX, Ordering::SeqCst);
    let keys = vec![Key::Link(world.link.clone())];
    let began = Instant::now();
    let call = async { ((), Outcome::Over) };
    let change = world.core.change(ChangeKind::Removal, keys, call);
    assert!(matches!(change.await, Err(Error::ChangeRefused { .. })));
    assert_eq!(began.elapsed(), Duration::from_secs(5));
}

#[test]
fn what_is_owed_outlives_the_runtime_that_owes_it() {
    for is_being_taken_away in [false, true] {
        let first = runtime();
        let world = first.block_on(async {
            let world = world(true);
            down(&world, true);
            world.layers.link(&world.link.digest).await.unwrap();
            if is_being_taken_away {
                world.shared.invalidated.hold();
                down(&world, false);
                world.shared.invalidated.late_arrival().await;
            }
            world
        });
        drop(first);
        world.shared.invalidated.release();
        down(&world, false);
        world.backend.put(&world.link, 5);
        // No change starts the retry queue again; a read does.
        let next = paused();
        next.block_on(world.settles_as((Some(5), CacheStatus::Memory)));
        world.core.cache().clear_memory();
        next.block_on(async { assert_eq!(world.stat().await, (Some(5), CacheStatus::Redis)) });
    }
}

#[test]
fn fences_that_expire_outlive_the_runtime_that_put_them_up() {
    for with_shared in [false, true] {
        let first = runtime();
        let world = first.block_on(async {
            let world = world(with_shared);
            world.backend.put(&world.link, 5);
            world.backend.fails.store(true, Ordering::SeqCst);
            world.layers.unlink(&world.link.digest).await.unwrap_err();
            world.backend.fails.store(false, Ordering::SeqCst);
            world
        });
        drop(first);
        paused().block_on(async {
            for _ in 0..2 {
                assert_eq!(world.stat().await, (Some(5), CacheStatus::Miss));
                world.finished().await;
            }
            advance(Duration::from_secs(31)).await;
            // The fence in Redis would have expired, too.
            world.shared.purge().await.unwrap();
            world.settles_as((Some(5), CacheStatus::Memory)).await;
        });
    }
}

/// The outcome of the backend's call is never known.
#[test]
fn a_change_whose_runtime_ends_amid_it_keeps_its_key_out_of_memory_for_the_time_of_a_fence() {
    let first = runtime();
    let world = first.block_on(async {
        let world = world(false);
        world.backend.put(&world.link, 5);
        world.backend.written.hold();
        let (layers, digest) = (world.layers.clone(), world.link.digest);
        tokio::spawn(async move { layers.unlink(&digest).await });
        world.backend.written.arrival().await;
        world
    });
    drop(first);
    world.backend.put(&world.link, 5);
    paused().block_on(async {
        for _ in 0..2 {
            assert_eq!(world.stat().await, (Some(5), CacheStatus::Miss));
            world.finished().await;
        }
        advance(Duration::from_secs(31)).await;
        world.settles_as((Some(5), CacheStatus::Memory)).await;
    });
}

/// The next runtime tells Redis of the creation.
#[test]
fn a_creation_without_redis_whose_runtime_ends_amid_it_is_owed() {
    let (world, get) = metered(|| world(true));
    let first = runtime();
    first.block_on(async {
        let fact = Fact::member(world.link.clone());
        world.shared.add(Facts::one(fact));
        down(&world, true);
        world.backend.written.hold();
        let (layers, digest) = (world.layers.clone(), world.link.digest);
        tokio::spawn(async move { layers.link(&digest).await });
        world.backend.written.arrival().await;
    });
    drop(first);
    assert_eq!(get("layercache_retry_queue_keys"), 1);
    down(&world, false);
    paused().block_on(async {
        world.stat().await;
        sleep(Duration::from_secs(1)).await;
    });
    assert_eq!(get("layercache_retry_queue_keys"), 0);
    assert_eq!(world.shared.publishes.load(Ordering::SeqCst), 1);
}

fn nth(i: u32) -> Digest {
    let mut hash = [9; 32];
    hash[..4].copy_from_slice(&i.to_be_bytes());
    Digest::Sha256(hash)
}
