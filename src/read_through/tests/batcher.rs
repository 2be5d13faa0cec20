//! Tests: loads that share a round trip to Redis.

use super::*;
use futures::FutureExt;
use tokio::time::{sleep, timeout};

/// Makes a world whose shared tier knows this many blobs. No memory knows them.
fn known(count: u8) -> World {
    let world = world(true);
    for seed in 1..=count {
        let meta = LayerMeta::new("a/data", u64::from(seed)).unwrap();
        let meta = Fact::meta(link(seed).digest, meta);
        world.shared.add(Facts::two(Fact::member(link(seed)), meta));
    }
    world
}

impl World {
    async fn told(&self, seed: u8) -> (Option<u64>, CacheStatus) {
        let link = link(seed);
        let answer = self.core.stat((&link).into(), Freshness::Cached).await;
        let answer = answer.unwrap();
        (answer.value.map(|meta| meta.length()), answer.status)
    }

    fn look_ups(&self) -> usize {
        self.shared.look_ups.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn those_who_ask_while_another_is_asked_are_asked_for_together() {
    let world = Arc::new(known(60));
    world.shared.looked_up.hold();
    let ask = |seed| {
        let world = Arc::clone(&world);
        tokio::spawn(async move { world.told(seed).await })
    };
    let alone = ask(1);
    world.shared.looked_up.arrival().await;
    let others: Vec<_> = (2..=60).map(ask).collect();
    while world.look_ups() < 9 {
        tokio::task::yield_now().await;
    }
    world.shared.looked_up.release();
    for (asked, seed) in std::iter::once(alone).chain(others).zip(1..) {
        assert_eq!(asked.await.unwrap(), (Some(seed), CacheStatus::Redis));
    }
    assert_eq!(world.look_ups(), 9, "one, and eight for the other 59");
    assert_eq!(world.backend.calls(), (0, 0));
}

#[tokio::test]
async fn what_one_of_them_misses_is_loaded_and_keeps_none_waiting() {
    let world = Arc::new(known(3));
    world.backend.put(&link(9), 9);
    world.backend.read.hold();
    let missed = {
        let world = Arc::clone(&world);
        tokio::spawn(async move { world.told(9).await })
    };
    world.backend.read.arrival().await;
    for seed in 1..=3 {
        let told = (Some(u64::from(seed)), CacheStatus::Redis);
        assert_eq!(world.told(seed).await, told);
    }
    world.backend.read.release();
    assert_eq!(missed.await.unwrap(), (Some(9), CacheStatus::Miss));
}

/// Otherwise the caller would block all other callers of its key, and keep its permit.
#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_or_does_not_poll_keeps_nobody_waiting() {
    for goes_away in [true, false] {
        let world = known(1);
        world.shared.looked_up.hold();
        let mut call = Some(Box::pin(world.told(1)));
        assert!(call.as_mut().unwrap().now_or_never().is_none());
        if goes_away {
            call = None;
        }
        world.shared.looked_up.release();
        let other = timeout(Duration::from_millis(100), world.told(1));
        assert_eq!(other.await.map(|told| told.0), Ok(Some(1)));
        // Memory was filled, whichever caller started the load.
        assert_eq!(world.told(1).await.1, CacheStatus::Memory);
        if let Some(call) = call {
            assert_eq!(call.await, (Some(1), CacheStatus::Redis));
        }
        assert_eq!(world.look_ups(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_nobody_polls_does_not_keep_others_from_going_together() {
    let world = known(3);
    world.shared.looked_up.hold();
    let mut call = Box::pin(world.told(1));
    assert!((&mut call).now_or_never().is_none());
    world.shared.looked_up.release();
    sleep(Duration::from_millis(100)).await;
    for seed in [2, 3] {
        assert_eq!(world.told(seed).await.1, CacheStatus::Redis);
    }
    assert_eq!(call.await.1, CacheStatus::Redis);
}

#[tokio::test]
async fn very_many_questions_of_one_caller_are_several_look_ups() {
    let world = known(1);
    let links = vec![link(1); 1030];
    let answers = world.core.stat_many(links, Freshness::Cached).await;
    let answers = answers.unwrap();
    assert_eq!(answers.len(), 1030);
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == CacheStatus::Redis)
    );
    assert_eq!(world.look_ups(), 3, "512, 512 and 6");
}
