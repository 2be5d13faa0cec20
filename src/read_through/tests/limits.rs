//! Tests: concurrent work is bounded, and a load without callers ends.

use super::super::PATIENCE;
use super::*;
use crate::cache::shared::SharedTier;
use crate::coherence::lease::{Grant, Token};
use crate::telemetry::metrics::counted;
use crate::types::link::Key;
use futures::FutureExt;
use tokio::task::JoinHandle;
use tokio::time::sleep;

fn few(with_shared: bool) -> World {
    let limits = Limits::default().with_loads(2).with_changes(2);
    limited(with_shared, ChangePolicy::Strict, limits)
}

impl World {
    fn ask(&self, seed: u8, freshness: Freshness) -> JoinHandle<Option<u64>> {
        let core = self.core.clone();
        tokio::spawn(async move {
            let answer = core.stat((&link(seed)).into(), freshness).await.unwrap();
            answer.value.map(|meta| meta.length())
        })
    }

    /// Lets all tasks run as far as they can without the clock advancing.
    async fn all_stand_still(&self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    /// Returns whether another node could get the lease of this key now.
    async fn is_free(&self, key: Key) -> bool {
        self.all_stand_still().await;
        let grants = self
            .shared
            .grant(&[key], Token::random(), false, later())
            .await;
        grants.unwrap() == [Grant::Granted]
    }
}

#[tokio::test]
async fn a_backend_that_hangs_delays_no_hit() {
    let world = few(true);
    for seed in [8, 9] {
        world.backend.put(&link(seed), 5);
        world.ask(seed, Freshness::Cached).await.unwrap();
    }
    world.finished().await;
    world.core.cache().clear_memory();
    world
        .core
        .stat((&link(8)).into(), Freshness::Cached)
        .await
        .unwrap();
    world.finished().await;
    world.backend.read.hold();
    let hanging = [1, 2].map(|seed| world.ask(seed, Freshness::Cached));
    world.all_stand_still().await;
    let waiting = world.ask(3, Freshness::Cached);
    world.all_stand_still().await;
    assert_eq!(world.backend.calls(), (4, 4), "two hits before, two loads");

    let memory = link(8);
    let memory = world
        .core
        .stat((&memory).into(), Freshness::Cached)
        .now_or_never();
    assert_eq!(memory.unwrap().unwrap().status, CacheStatus::Memory);
    for expected in [CacheStatus::Redis, CacheStatus::Memory] {
        let redis = world
            .core
            .stat((&link(9)).into(), Freshness::Cached)
            .await
            .unwrap();
        assert_eq!((redis.value.unwrap().length(), redis.status), (5, expected));
    }
    let many = vec![link(9), link(8)];
    let many = world.core.stat_many(many, Freshness::Cached).await.unwrap();
    assert!(many.iter().all(|answer| answer.value.is_some()));
    let verified = world.ask(9, Freshness::Verified);
    world.all_stand_still().await;
    assert!(!verified.is_finished(), "it is for the backend to say");

    world.backend.read.release();
    for task in hanging.into_iter().chain([waiting]) {
        assert_eq!(task.await.unwrap(), None);
    }
    assert_eq!(verified.await.unwrap(), Some(5));
}

#[tokio::test]
async fn one_who_waits_and_goes_away_was_never_there() {
    let world = few(false);
    world.backend.read.hold();
    let hanging = [1, 2].map(|seed| world.ask(seed, Freshness::Cached));
    world.all_stand_still().await;
    let before = Arc::strong_count(&world.core.inner);
    let waiting: Vec<_> = (10..60)
        .map(|seed| world.ask(seed, Freshness::Cached))
        .collect();
    world.all_stand_still().await;
    for caller in &waiting {
        caller.abort();
    }
    world.all_stand_still().await;
    assert_eq!(Arc::strong_count(&world.core.inner), before);
    let last = world.ask(3, Freshness::Cached);
    world.backend.read.release();
    for task in hanging.into_iter().chain([last]) {
        assert_eq!(task.await.unwrap(), None);
    }
    assert_eq!(world.backend.calls(), (3, 3), "nobody asked for the others");
}

#[tokio::test]
async fn those_who_wait_for_one_key_ask_for_it_once() {
    let world = few(false);
    world.backend.put(&link(3), 5);
    world.backend.read.hold();
    let hanging = [1, 2].map(|seed| world.ask(seed, Freshness::Cached));
    world.all_stand_still().await;
    let waiting: Vec<_> = (0..50).map(|_| world.ask(3, Freshness::Cached)).collect();
    world.all_stand_still().await;
    world.backend.read.release();
    for task in waiting {
        assert_eq!(task.await.unwrap(), Some(5));
    }
    for task in hanging {
        task.await.unwrap();
    }
    assert_eq!(world.backend.calls(), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn a_load_that_hangs_and_nobody_waits_for_ends_and_gives_its_lease_back() {
    let world = few(true);
    world.backend.read.hold();
    for seed in [1, 2] {
        let caller = world.ask(seed, Freshness::Cached);
        world.all_stand_still().await;
        caller.abort();
    }
    let late = world.ask(3, Freshness::Cached);
    sleep(PATIENCE).await;
    assert_eq!(world.backend.calls(), (2, 2), "they may still fill");
    sleep(PATIENCE * 2).await;
    assert_eq!(world.backend.calls(), (3, 3));
    assert!(world.is_free(Key::Meta(link(1).digest)).await);
    sleep(PATIENCE * 20).await;
    assert!(!late.is_finished(), "one that somebody waits for goes on");
    late.abort();
}

#[tokio::test(start_paused = true)]
async fn a_key_that_hangs_costs_one_more_load_each_time_patience_is_over() {
    let world = world(false);
    world.backend.read.hold();
    let callers: Vec<_> = {
        let mut callers = Vec::new();
        for _ in 0..200 {
            callers.push(world.stat_task());
            sleep(PATIENCE / 50).await;
        }
        callers
    };
    let (calls, _) = world.backend.calls();
    assert!(
        (3..=5).contains(&calls),
        "{calls} in four times its patience"
    );
    world.backend.read.release();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), None);
    }
}

#[tokio::test]
async fn changes_wait_for_their_turn_and_may_be_given_up_until_then() {
    for with_shared in [false, true] {
        let world = few(with_shared);
        world.backend.written.hold();
        let unlink = |seed: u8| {
            let (layers, digest) = (world.layers.clone(), link(seed).digest);
            tokio::spawn(async move { layers.unlink(&digest).await })
        };
        for seed in [1, 2, 3, 4] {
            world.backend.put(&link(seed), 5);
        }
        let first = [unlink(1), unlink(2)];
        world.all_stand_still().await;
        let [third, fourth] = [unlink(3), unlink(4)];
        world.all_stand_still().await;
        third.abort();
        for task in &first {
            // The changes go on without their callers, and keep their permits.
            task.abort();
        }
        world.all_stand_still().await;
        assert!(!fourth.is_finished());
        world.backend.written.release();
        fourth.await.unwrap().unwrap();
        for (seed, left) in [(1, None), (2, None), (3, Some(5)), (4, None)] {
            let stat = world.ask(seed, Freshness::Verified).await.unwrap();
            assert_eq!(stat, left, "{seed}");
        }
    }
}

#[tokio::test]
async fn a_length_that_is_not_believed_leaves_no_lease() {
    let world = world(true);
    world.backend.put(&world.link, 0);
    assert_eq!(world.stat().await, (Some(0), CacheStatus::Miss));
    world.finished().await;
    assert_eq!(world.shared.has(&world.link), (true, false));
    assert!(world.is_free(Key::Meta(world.link.digest)).await);
}

#[tokio::test]
async fn a_guard_that_is_dropped_blocks_nobody() {
    let world = world(true);
    let question = Question::Stat(world.link.clone());
    let mut budget = world.core.cache().budget();
    let guard = world.core.guard(&question, false, &mut budget).await;
    assert!(!world.is_free(Key::Meta(world.link.digest)).await);
    drop(guard);
    for key in question.keys() {
        assert!(world.is_free(key).await);
    }

    let question = Question::Meta(link(2).digest);
    world.shared.granted.hold();
    let caller = {
        let (core, question) = (world.core.clone(), question.clone());
        tokio::spawn(async move {
            let mut budget = core.cache().budget();
            core.guard(&question, false, &mut budget).await
        })
    };
    world.shared.granted.arrival().await;
    caller.abort();
    world.shared.granted.release();
    assert!(
        world.is_free(Key::Meta(link(2).digest)).await,
        "before the answer"
    );
}

fn nth(i: u32) -> Digest {
    let mut hash = [9; 32];
    hash[..4].copy_from_slice(&i.to_be_bytes());
    Digest::Sha256(hash)
}

#[tokio::test(start_paused = true)]
async fn more_changes_than_can_be_remembered_empty_redis_and_show() {
    let (world, hits) = counted(|| world_with(true, ChangePolicy::BestEffort));
    world.backend.put(&world.link, 5);
    world.stat().await;
    world.finished().await;
    world.shared.fails.store(true, Ordering::SeqCst);
    let keys = (0..=10_000).map(|i| Key::Meta(nth(i))).collect();
    let call = async { ((), Outcome::Over) };
    let change = world.core.change(ChangeKind::Removal, keys, call);
    change.await.unwrap();
    assert_eq!(hits("retry_queue"), 1);
    world.shared.fails.store(false, Ordering::SeqCst);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.shared.has(&world.link), (false, false));
}

/// Any client can ask for objects that do not exist, also while Redis is away.
#[tokio::test(start_paused = true)]
async fn what_the_backend_denies_while_redis_is_away_never_empties_redis() {
    let (world, hits) = counted(|| world(true));
    world.backend.put(&world.link, 5);
    world.stat().await;
    world.finished().await;
    world.shared.fails.store(true, Ordering::SeqCst);
    assert_eq!(hits("retry_queue"), 0);
    for i in 0..20_000 {
        let (keys, budget) = (vec![Key::Meta(nth(i))], world.core.cache().budget());
        world.core.deny(keys, None, budget).await;
    }
    assert_eq!(hits("retry_queue"), 0, "nobody has cached it");
    assert!(hits("leases") > 0);
    world.shared.fails.store(false, Ordering::SeqCst);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.shared.has(&world.link), (true, true));
    world.core.cache().clear_memory();
    assert_eq!(world.stat().await, (Some(5), CacheStatus::Redis));
}
