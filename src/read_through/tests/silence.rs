//! Tests: a shared tier that does not answer, or not in time.

use super::*;
use crate::cache::shared::SharedTier;
use crate::coherence::lease::{Grant, Token};
use crate::telemetry::metrics::counted;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use tokio::time::{Instant, sleep};

type Read = for<'a> fn(&'a World, Freshness) -> BoxFuture<'a, bool>;

const READS: [(&str, Read); 4] = [
    ("stat", |world, freshness| {
        let link = &world.link;
        async move {
            let answer = world.core.stat(link.into(), freshness).await.unwrap();
            answer.value.is_some()
        }
        .boxed()
    }),
    ("contains", |world, freshness| {
        let link = &world.link;
        async move {
            let answer = world.core.contains(link.into(), freshness).await.unwrap();
            answer.value
        }
        .boxed()
    }),
    ("meta", |world, freshness| {
        let digest = &world.link.digest;
        async move {
            let answer = world.core.meta(digest, freshness).await.unwrap();
            answer.value.is_some()
        }
        .boxed()
    }),
    ("stat_many", |world, freshness| {
        let links = (0..200).map(|i| Link::layer(world.link.repository.clone(), nth(i)));
        let links = std::iter::once(world.link.clone()).chain(links).collect();
        async move {
            let answers = world.core.stat_many(links, freshness).await.unwrap();
            answers[0].value.is_some()
        }
        .boxed()
    }),
];

fn nth(i: u32) -> Digest {
    let mut hash = [7; 32];
    hash[..4].copy_from_slice(&i.to_be_bytes());
    Digest::Sha256(hash)
}

impl World {
    fn keys(&self) -> [Key; 2] {
        [Key::Link(self.link.clone()), Key::Meta(self.link.digest)]
    }

    /// Returns whether another node could get the leases of these keys now.
    async fn are_free(&self) -> bool {
        let keys = self.keys();
        let token = Token::random();
        let grants = self.shared.grant(&keys, token, false, later()).await;
        let are_free = grants.unwrap() == [Grant::Granted; 2];
        self.shared.release(&keys, token).await.unwrap();
        are_free
    }
}

/// Returns the result of a read, and how long it took.
async fn timed<T>(read: impl Future<Output = T>) -> (T, Duration) {
    let began = Instant::now();
    let value = read.await;
    (value, began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_read_waits_for_a_silent_tier_once() {
    for (what, read) in READS {
        for freshness in [Freshness::Cached, Freshness::Verified] {
            for is_there in [true, false] {
                let world = world(true);
                if is_there {
                    world.backend.put(&world.link, 5);
                }
                world.shared.hangs.store(true, Ordering::SeqCst);
                let (found, time) = timed(read(&world, freshness)).await;
                assert_eq!(found, is_there);
                assert!(time <= TIMEOUT, "{what}, {freshness:?}: {time:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn all_steps_of_a_read_share_one_deadline() {
    for (what, read) in READS {
        let world = world(true);
        world.backend.put(&world.link, 5);
        world.shared.slowness.store(30, Ordering::SeqCst);
        let (found, time) = timed(read(&world, Freshness::Cached)).await;
        assert!(found && time <= TIMEOUT, "{what}: {time:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_that_waits_for_another_node_asks_for_no_longer_than_its_deadline() {
    let world = world(true);
    world.backend.put(&world.link, 5);
    let other = Token::random();
    let keys = world.keys();
    let granted = world.shared.grant(&keys, other, false, later()).await;
    granted.unwrap();
    world.shared.slowness.store(20, Ordering::SeqCst);
    let (_, time) = timed(world.stat()).await;
    // The read also makes the first pause.
    let pause = Duration::from_millis(10);
    assert!(time <= TIMEOUT + pause, "{time:?}");
}

/// The late caller has already waited for Redis, through the load of another caller.
#[tokio::test(start_paused = true)]
async fn one_who_comes_while_another_waits_for_a_silent_tier_does_not_wait_again() {
    let world = world(true);
    world.shared.hangs.store(true, Ordering::SeqCst);
    let first = world.stat_task();
    tokio::task::yield_now().await;
    let late: Vec<_> = (0..3)
        .map(|_| {
            let (core, link) = (world.core.clone(), world.link.clone());
            tokio::spawn(async move { timed(core.stat((&link).into(), Freshness::Cached)).await.1 })
        })
        .collect();
    assert_eq!(first.await.unwrap(), None);
    for time in stream::iter(late)
        .then(|late| late)
        .collect::<Vec<_>>()
        .await
    {
        let time = time.unwrap();
        assert!(time <= TIMEOUT, "{time:?}");
    }
}

/// Redis may execute a `GRANT` whose answer comes too late or never.
#[tokio::test(start_paused = true)]
async fn what_may_have_been_granted_is_given_back() {
    for (what, read) in &READS[..1] {
        for freshness in [Freshness::Cached, Freshness::Verified] {
            let world = world(true);
            // The look-up is in time, but the grant is not.
            world.shared.slowness.store(30, Ordering::SeqCst);
            read(&world, freshness).await;
            world.shared.hangs.store(true, Ordering::SeqCst);
            read(&world, freshness).await;
            sleep(TIMEOUT * 10).await;
            world.shared.hangs.store(false, Ordering::SeqCst);
            world.shared.slowness.store(0, Ordering::SeqCst);
            sleep(Duration::from_secs(3)).await;
            assert!(world.are_free().await, "{what}, {freshness:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_whose_return_failed_is_returned_later() {
    let world = world(true);
    world.backend.read.hold();
    let load = world.stat_task();
    world.backend.read.arrival().await;
    world.shared.hangs.store(true, Ordering::SeqCst);
    world.backend.read.release();
    assert_eq!(load.await.unwrap(), None);
    sleep(Duration::from_secs(1)).await;
    world.shared.hangs.store(false, Ordering::SeqCst);
    sleep(Duration::from_secs(3)).await;
    assert!(world.are_free().await);
}

#[tokio::test(start_paused = true)]
async fn leases_that_cannot_be_returned_are_bounded_and_counted() {
    let (world, hits) = counted(|| world(true));
    world.shared.hangs.store(true, Ordering::SeqCst);
    let ask = |i| {
        let core = world.core.clone();
        async move { core.meta(&nth(i), Freshness::Verified).await.unwrap() }
    };
    let asking = stream::iter(0..20_000).map(ask).buffer_unordered(1000);
    asking.for_each(async |_| ()).await;
    assert!(hits("leases") > 0);
    sleep(Duration::from_secs(60)).await;
    world.shared.unanswered.store(0, Ordering::SeqCst);
    sleep(Duration::from_secs(60)).await;
    let unanswered = world.shared.unanswered.load(Ordering::SeqCst);
    assert_eq!(unanswered, 0, "it is tried a few times only");
}

#[tokio::test(start_paused = true)]
async fn what_was_never_cached_is_nobodys_business() {
    for (what, read) in READS {
        for freshness in [Freshness::Cached, Freshness::Verified] {
            let world = world(true);
            let question = Question::Stat(world.link.clone());
            let read_stamps = world.core.cache().read_stamps(&question);
            for _ in 0..100 {
                assert!(!read(&world, freshness).await);
                world.finished().await;
            }
            let count = |count: &std::sync::atomic::AtomicUsize| count.load(Ordering::SeqCst);
            let told = count(&world.shared.publishes) + count(&world.shared.notified);
            assert_eq!(told, 0, "{what}, {freshness:?}");
            let keys = match what {
                "stat" => 2,
                "stat_many" => 402,
                _ => 1,
            };
            // One script takes the lease, and one returns it.
            let scripts = count(&world.shared.scripts);
            assert!(scripts <= 200 * keys, "{what}, {freshness:?}: {scripts}");
            for (key, read_stamp) in question.keys().with(read_stamps) {
                let is_unchanged = world.core.cache().is_unchanged(&key, read_stamp);
                assert!(is_unchanged, "{what}, {freshness:?}");
            }
        }
    }
}

#[tokio::test]
async fn what_this_memory_or_redis_held_is_taken_away_and_told() {
    for tier in ["memory", "redis", "both"] {
        let world = world(true);
        world.backend.put(&world.link, 5);
        world.stat().await;
        world.finished().await;
        match tier {
            "memory" => world.shared.purge().await.unwrap(),
            "redis" => world.core.cache().clear_memory(),
            _ => {}
        }
        world.backend.forget(&world.link);
        let link = &world.link;
        let denied = world.core.stat(link.into(), Freshness::Verified).await;
        assert_eq!(denied.unwrap().value, None);
        world.finished().await;
        assert_eq!(world.shared.notified.load(Ordering::SeqCst), 1, "{tier}");
        assert_eq!(world.shared.has(link), (false, false));
        assert_eq!(world.stat().await.0, None, "{tier}");
    }
}
