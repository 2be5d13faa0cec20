//! Tests of the verifier: its verdicts, their times and their cost.

use super::*;
use crate::telemetry::metrics::metered;
use tokio::runtime::Handle;
use tokio::time::sleep;

const ALL: VerifierConfig = VerifierConfig {
    hits: 1.0,
    deletes: true,
    queue: 64,
};

/// Makes a world with a verifier, and a function that reads its metrics.
fn audited(with_shared: bool, config: VerifierConfig) -> (World, impl Fn(&str) -> u64) {
    metered(move || {
        let options = (Limits::default(), Some(config));
        world_of(with_shared, ChangePolicy::Strict, options)
    })
}

fn series(cause: &str, age: &str, tier: &str, result: &str) -> String {
    let labels = format!("cause=\"{cause}\",age=\"{age}\",tier=\"{tier}\",result=\"{result}\"");
    format!("layercache_verifications_total{{{labels}}}")
}

/// Returns the verifier's counts of `ok`, `stale` and `unknown`.
fn verdicts(get: &impl Fn(&str) -> u64, cause: &str, age: &str, tier: &str) -> [u64; 3] {
    ["ok", "stale", "unknown"].map(|result| get(&series(cause, age, tier, result)))
}

const fn status_of(tier: &str) -> CacheStatus {
    match tier.as_bytes() {
        b"memory" => CacheStatus::Memory,
        _ => CacheStatus::Redis,
    }
}

/// Fills memory and Redis with the link. For `redis`, clears memory afterwards.
async fn known_to(world: &World, tier: &str) {
    world.backend.put(&world.link, 7);
    world.stat().await;
    // Wait until the tiers are filled and the verifier has checked all samples.
    sleep(TRUST * 2).await;
    if tier == "redis" {
        world.core.cache().clear_memory();
    }
}

impl World {
    /// Changes both facts, as a message from another node would.
    async fn change_elsewhere(&self) {
        let keys = [Key::Link(self.link.clone()), Key::Meta(self.link.digest)];
        let call = async { ((), crate::coherence::change::Outcome::Over) };
        let changed = self.core.change(ChangeKind::Removal, keys.into(), call);
        changed.await.unwrap();
    }
}

/// Each tier, and whether its world has a shared tier.
const TIERS: [(&str, bool); 3] = [("memory", false), ("memory", true), ("redis", true)];

#[tokio::test(start_paused = true)]
async fn what_is_there_is_ok() {
    for (tier, with_shared) in TIERS {
        let (world, get) = audited(with_shared, ALL);
        known_to(&world, tier).await;
        let [before, ..] = verdicts(&get, "hit", "0s", tier);
        assert_eq!(world.stat().await, (Some(7), status_of(tier)));
        sleep(TRUST * 2).await;
        assert_eq!(verdicts(&get, "hit", "0s", tier), [before + 1, 0, 0]);
        let calls = world.backend.calls();
        world
            .core
            .stat((&world.link).into(), Freshness::Verified)
            .await
            .unwrap();
        sleep(TRUST * 2).await;
        assert_eq!(world.backend.calls(), (calls.0 + 1, calls.1 + 1), "no hit");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_behind_the_back_is_stale_and_taken_away() {
    for (tier, with_shared) in TIERS {
        let (world, get) = audited(with_shared, ALL);
        known_to(&world, tier).await;
        world.backend.forget(&world.link);
        assert_eq!(world.stat().await, (Some(7), status_of(tier)));
        sleep(TRUST * 2).await;
        let [_, stale, unknown] = verdicts(&get, "hit", "0s", tier);
        assert_eq!((stale, unknown), (1, 0), "{tier}");
        assert_eq!(world.stat().await, (None, CacheStatus::Miss), "repaired");
        assert_eq!(world.shared.has(&world.link), (false, false));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_changed_meanwhile_is_unknown() {
    for (tier, with_shared) in TIERS {
        let (world, get) = audited(with_shared, ALL);
        known_to(&world, tier).await;
        world.backend.forget(&world.link);
        world.backend.read.hold();
        assert_eq!(world.stat().await, (Some(7), status_of(tier)));
        world.backend.read.arrival().await;
        // A change after the hit may be the reason for the backend's denial.
        world.change_elsewhere().await;
        world.backend.read.release();
        sleep(TRUST * 2).await;
        let [_, stale, unknown] = verdicts(&get, "hit", "0s", tier);
        assert_eq!((stale, unknown), (0, 1), "{tier}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_heard_of_only_after_the_denial_is_unknown() {
    let (world, get) = audited(true, ALL);
    known_to(&world, "memory").await;
    world.backend.forget(&world.link);
    assert_eq!(world.stat().await, (Some(7), CacheStatus::Memory));
    // By now the backend has denied the link. The message of the node that deletes it is still
    // under way.
    sleep(TRUST / 2).await;
    world.change_elsewhere().await;
    sleep(TRUST * 2).await;
    let [_, stale, unknown] = verdicts(&get, "hit", "0s", "memory");
    assert_eq!((stale, unknown), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_fails_is_unknown() {
    let (world, get) = audited(false, ALL);
    known_to(&world, "memory").await;
    world.backend.fails.store(true, Ordering::SeqCst);
    assert_eq!(world.stat().await, (Some(7), CacheStatus::Memory));
    sleep(TRUST).await;
    let [_, stale, unknown] = verdicts(&get, "hit", "0s", "memory");
    assert_eq!((stale, unknown), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn deletes_through_the_cache_are_ok_at_all_ages() {
    for with_shared in [false, true] {
        let (world, get) = audited(with_shared, ALL);
        known_to(&world, "memory").await;
        world.layers.unlink(&world.link.digest).await.unwrap();
        let backend = Arc::clone(&world.backend) as _;
        let deleted = world.core.delete_blob(backend, world.link.digest);
        deleted.await.unwrap();
        for (age, after) in [("0.1s", 200), ("1s", 1100), ("60s", 60_000)] {
            assert_eq!(verdicts(&get, "delete", age, "memory"), [0, 0, 0], "{age}");
            sleep(Duration::from_millis(after)).await;
            assert_eq!(verdicts(&get, "delete", age, "memory"), [2, 0, 0], "{age}");
            let redis = if with_shared { [2, 0, 0] } else { [0, 0, 0] };
            assert_eq!(verdicts(&get, "delete", age, "redis"), redis, "{age}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_filled_after_its_delete_is_stale_and_what_is_put_again_is_ok() {
    for is_put_again in [false, true] {
        let (world, get) = audited(true, ALL);
        known_to(&world, "memory").await;
        world.layers.unlink(&world.link.digest).await.unwrap();
        if is_put_again {
            world.backend.put(&world.link, 7);
        }
        // As a fill without a fence would do.
        let fact = Fact::member(world.link.clone());
        world.shared.add(Facts::one(fact));
        sleep(Duration::from_millis(900) + TRUST).await;
        let expected = if is_put_again { [1, 0, 0] } else { [0, 1, 0] };
        assert_eq!(verdicts(&get, "delete", "0.1s", "redis"), expected);
        assert_eq!(world.shared.has(&world.link).0, is_put_again);
    }
}

#[tokio::test(start_paused = true)]
async fn the_queues_are_bounded_and_what_is_dropped_is_counted() {
    let dropped = "layercache_limit_hits_total{limit=\"verifier\"}";
    let (world, get) = audited(false, ALL.with_queue(2));
    known_to(&world, "memory").await;
    world.backend.read.hold();
    assert_eq!(world.stat().await.1, CacheStatus::Memory);
    world.backend.read.arrival().await;
    for _ in 0..10 {
        assert_eq!(world.stat().await.1, CacheStatus::Memory, "nobody waits");
    }
    assert_eq!(get(dropped), 8, "one is looked at, two wait");
    world.backend.read.release();
    sleep(Duration::from_secs(1)).await;
    let before = get(dropped);
    for _ in 0..5 {
        world.layers.unlink(&world.link.digest).await.unwrap();
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(get(dropped), before + 3, "two wait for their time");
}

#[tokio::test(start_paused = true)]
async fn without_a_verifier_there_is_no_task_and_with_one_none_stays() {
    let alive = || Handle::current().metrics().num_alive_tasks();
    let world = world(false);
    known_to(&world, "memory").await;
    assert_eq!(world.stat().await.1, CacheStatus::Memory);
    world.layers.unlink(&world.link.digest).await.unwrap();
    assert_eq!(alive(), 0);

    let (world, _) = audited(false, ALL);
    assert_eq!(alive(), 0, "it begins with the first sample");
    known_to(&world, "memory").await;
    assert_eq!(world.stat().await.1, CacheStatus::Memory);
    world.layers.unlink(&world.link.digest).await.unwrap();
    assert_eq!(alive(), 2);
    drop(world);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(alive(), 0, "and ends with the cache");
}

#[tokio::test(start_paused = true)]
async fn a_share_of_the_hits_is_looked_at() {
    let (world, get) = audited(false, ALL.with_hits(0.25).with_queue(4096));
    known_to(&world, "memory").await;
    let [before, ..] = verdicts(&get, "hit", "0s", "memory");
    for _ in 0..4000 {
        assert_eq!(world.stat().await.1, CacheStatus::Memory);
    }
    sleep(Duration::from_secs(1)).await;
    let [after, ..] = verdicts(&get, "hit", "0s", "memory");
    assert!(
        (800..1200).contains(&(after - before)),
        "{}",
        after - before
    );
}
