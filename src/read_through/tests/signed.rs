//! Tests: which keys a signed URL keeps out of the caches, for how long, and at what cost.

use super::*;
use crate::cache::deadline::{Deadline, Patience};
use crate::cache::shared::SharedTier;
use crate::coherence::lease::{Grant, Token};
use crate::telemetry::metrics::counted;
use crate::types::link::Key;
use tokio::runtime::Builder;
use tokio::time::sleep;

const HOUR: Duration = Duration::from_secs(3600);

/// How soon a lost fence is put up again: a third of a fence's TTL, plus the interval of the
/// checks.
const SOON: Duration = Duration::from_secs(11);

fn key(seed: u32) -> Key {
    let mut hash = [0; 32];
    hash[..4].copy_from_slice(&seed.to_be_bytes());
    Key::Meta(Digest::Sha256(hash))
}

impl World {
    async fn open(&self, seeds: &[u32], time: Duration) {
        let keys = seeds.iter().map(|seed| key(*seed)).collect();
        let opened = self
            .core
            .cache()
            .open_signed(ChangeKind::Creation, keys, time);
        opened.await.unwrap();
    }

    /// Returns the answer to another node that asks for the lease.
    async fn asked(&self, seed: u32) -> Grant {
        let deadline = Deadline::new(Duration::from_secs(1), Patience::Read);
        let (key, token) = ([key(seed)], Token::random());
        let grants = self.shared.grant(&key, token, true, deadline).await;
        self.shared.release(&key, token).await.unwrap();
        grants.unwrap()[0]
    }

    /// Returns whether this node may fill its memory.
    fn may_fill(&self, seed: u32) -> bool {
        let Key::Meta(digest) = key(seed) else {
            unreachable!("it is one")
        };
        let question = crate::types::question::Question::Meta(digest);
        !self.core.cache().read_stamps(&question).is_empty()
    }

    fn published(&self) -> usize {
        self.shared.publishes.load(Ordering::SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_is_kept_away_until_its_last_url_expires() {
    for with_shared in [true, false] {
        let world = world(with_shared);
        world.open(&[1, 2], HOUR).await;
        world.open(&[1], 2 * HOUR).await;
        world.open(&[1], HOUR).await;
        if with_shared {
            assert_eq!(world.shared.fences(&key(1)), 1, "one for each key");
            assert_eq!(world.published(), 1);
        }
        sleep(HOUR - Duration::from_secs(1)).await;
        assert!(!world.may_fill(1) && !world.may_fill(2));
        sleep(Duration::from_secs(2)).await;
        assert!(!world.may_fill(1) && world.may_fill(2));
        if with_shared {
            assert_eq!(world.published(), 2, "all nodes are told of the end");
            assert_eq!(world.asked(1).await, Grant::Blocked);
            assert_eq!(world.asked(2).await, Grant::Granted);
        }
        sleep(HOUR).await;
        assert!(world.may_fill(1));
        if with_shared {
            assert_eq!(world.asked(1).await, Grant::Granted);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_fence_that_is_lost_is_put_up_again_and_told() {
    let world = world(true);
    world.open(&[1, 2], HOUR).await;
    let told = world.published();
    for _ in 0..3 {
        // As after a restart or an eviction.
        world.shared.purge().await.unwrap();
        assert_eq!(world.asked(1).await, Grant::Granted);
        sleep(SOON).await;
        assert_eq!(world.asked(1).await, Grant::Blocked);
        assert_eq!(world.asked(2).await, Grant::Blocked);
    }
    assert_eq!(world.published(), told + 3);
    // The connection was replaced. The new one cannot prove that the fence stood all the time.
    world.shared.session.fetch_add(1, Ordering::SeqCst);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.published(), told + 4);
    assert_eq!(world.asked(1).await, Grant::Blocked);
}

/// A fence that was seen before the connection was replaced proves nothing.
#[tokio::test(start_paused = true)]
async fn a_url_that_is_signed_after_a_restart_puts_up_its_fence_at_once() {
    let world = world(true);
    world.open(&[1], HOUR).await;
    world.shared.purge().await.unwrap();
    world.shared.session.fetch_add(1, Ordering::SeqCst);
    world.open(&[1], HOUR).await;
    assert_eq!(world.asked(1).await, Grant::Blocked);
}

/// A replica has just replaced the server, so a fence may stand only at the old one. Another node may
/// then still cache the object at the new one.
#[tokio::test(start_paused = true)]
async fn a_url_is_signed_when_its_fence_stands_at_a_confirmed_server() {
    for is_open in [false, true] {
        let world = world(true);
        if is_open {
            world.open(&[1], HOUR).await;
        }
        let told = world.published();
        // The node finds out when it asks.
        world.shared.replaced.store(true, Ordering::SeqCst);
        world.open(&[1], HOUR).await;
        assert_eq!(world.asked(1).await, Grant::Blocked, "open: {is_open}");
        assert_eq!(world.published(), told + if is_open { 1 } else { 2 });
    }
}

/// The key's fence is just being removed.
#[tokio::test(start_paused = true)]
async fn a_key_that_is_signed_again_as_its_last_url_expires_is_kept_away_again_soon() {
    const SHORT: Duration = Duration::from_secs(60);
    let world = world(true);
    world.open(&[1], SHORT).await;
    // The call that ends the fence takes 3 s. The calls that confirm and renew it take no time.
    world.shared.slowness.store(3000, Ordering::SeqCst);
    sleep(SHORT + Duration::from_secs(1)).await;
    world.open(&[1], HOUR).await;
    assert_eq!(world.shared.fences(&key(1)), 1, "it stands still");
    world.shared.slowness.store(0, Ordering::SeqCst);
    sleep(Duration::from_secs(4)).await;
    assert_eq!(world.asked(1).await, Grant::Blocked);
    assert!(!world.may_fill(1));
}

#[tokio::test(start_paused = true)]
async fn any_number_of_urls_holds_up_no_change() {
    let limits = Limits::default().with_changes(1);
    let world = limited(true, ChangePolicy::Strict, limits);
    for seed in 0..2000 {
        world.open(&[seed], HOUR).await;
    }
    world.layers.unlink(&world.link.digest).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn urls_of_more_keys_than_are_watched_are_counted_and_expire_all_the_same() {
    const SHORT: Duration = Duration::from_secs(10);
    let (world, hits) = counted(|| world(false));
    let seeds: Vec<_> = (0..70_000).collect();
    world.open(&seeds, SHORT).await;
    assert_eq!(hits("signed"), 70_000 - 65_536);
    assert!(seeds.iter().all(|seed| !world.may_fill(*seed)));
    sleep(SHORT + Duration::from_secs(1)).await;
    assert!(seeds.iter().all(|seed| world.may_fill(*seed)));
}

#[tokio::test(start_paused = true)]
async fn without_redis_a_url_is_refused_or_fenced_as_soon_as_that_can_be() {
    let strict = world_with(true, ChangePolicy::Strict);
    strict.shared.fails.store(true, Ordering::SeqCst);
    let cache = strict.core.cache();
    let refused = cache
        .open_signed(ChangeKind::Creation, vec![key(1)], HOUR)
        .await;
    assert!(matches!(
        refused,
        Err(crate::types::Error::ChangeRefused { .. })
    ));
    assert!(strict.may_fill(1));

    let world = world_with(true, ChangePolicy::BestEffort);
    world.shared.fails.store(true, Ordering::SeqCst);
    world.open(&[1], HOUR).await;
    assert!(!world.may_fill(1));
    sleep(SOON).await;
    world.shared.fails.store(false, Ordering::SeqCst);
    sleep(SOON).await;
    assert_eq!(world.asked(1).await, Grant::Blocked);
    sleep(HOUR).await;
    assert_eq!(world.asked(1).await, Grant::Granted);
    assert!(world.may_fill(1));
}

#[test]
fn another_runtime_goes_on_where_the_first_one_ended() {
    let runtime = || {
        let mut builder = Builder::new_current_thread();
        builder.enable_all().start_paused(true).build().unwrap()
    };
    let (first, second) = (runtime(), runtime());
    let world = first.block_on(async {
        let world = world(true);
        world.open(&[1], HOUR).await;
        world
    });
    drop(first);
    second.block_on(async {
        assert!(!world.may_fill(1));
        let cache = world.core.cache();
        let Key::Meta(digest) = key(3) else {
            unreachable!("it is one")
        };
        let question = crate::types::question::Question::Meta(digest);
        let (mut guard, mut budget) = (cache.guard([&question]), cache.budget());
        let keys = [key(3)];
        let granted = cache.grant(&mut guard, &keys, false, &mut budget);
        assert_eq!(granted.await.unwrap(), [Grant::Granted]);
        drop(guard);
        sleep(2 * HOUR).await;
        assert!(world.may_fill(1));
        assert_eq!(world.asked(1).await, Grant::Granted);
    });
}
