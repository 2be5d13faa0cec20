//! Tests of the core's promises, with a backend and a shared tier that can be held at any step.

mod batcher;
mod changes;
mod counts;
mod limits;
mod races;
mod signed;
mod silence;
mod verifier;

use super::fakes::{FakeBackend, FakeShared};
use super::*;
use crate::cache::MemoryConfig;
use crate::cache::deadline::{Deadline, Patience};
use crate::cache::shared::{Fact, Facts, Found, SharedSettings};
use crate::coherence::change::{ChangeKind, ChangePolicy, Outcome};
use crate::coherence::limiter::Limits;
use crate::registry::{Registry, Repository};
use crate::types::{Link, runtime};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long the nodes of these worlds trust their memory.
const TRUST: Duration = Duration::from_secs(2);

/// How long one read may wait for the shared tier, in all its steps together.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(50);

type Core = ReadThrough;
type Layers = Repository<FakeBackend>;

struct World {
    backend: Arc<FakeBackend>,
    shared: Arc<FakeShared>,
    core: Core,
    layers: Layers,
    link: Link,
}

fn link(seed: u8) -> Link {
    Link::layer("a/b".parse().unwrap(), Digest::Sha256([seed; 32]))
}

/// Returns a deadline that leaves a call enough time.
fn later() -> Deadline {
    Deadline::new(Duration::from_secs(5), Patience::Removal)
}

fn world(with_shared: bool) -> World {
    world_with(with_shared, ChangePolicy::default())
}

fn world_with(with_shared: bool, policy: ChangePolicy) -> World {
    limited(with_shared, policy, Limits::default())
}

fn limited(with_shared: bool, policy: ChangePolicy, limits: Limits) -> World {
    world_of(with_shared, policy, (limits, None))
}

pub(crate) const fn settings(policy: ChangePolicy) -> SharedSettings {
    SharedSettings {
        ttl: Duration::from_secs(3600),
        fence_ttl: Duration::from_secs(30),
        policy,
        trust_timeout: TRUST,
        timeout: TIMEOUT,
        change_timeout: Duration::from_secs(5),
    }
}

fn world_of(
    with_shared: bool,
    policy: ChangePolicy,
    (limits, verifier): (Limits, Option<VerifierConfig>),
) -> World {
    let backend = Arc::new(FakeBackend::default());
    let shared = Arc::new(FakeShared::default());
    let memory = MemoryConfig::default();
    let cache = match with_shared {
        true => {
            let tier = Arc::clone(&shared);
            let coherence = Arc::new(crate::coherence::Coherence::alone());
            let settings = settings(policy);
            TieredCache::with_shared(memory, tier, settings, coherence)
        }
        false => TieredCache::in_memory(memory),
    };
    let core = ReadThrough::new(Arc::clone(&backend) as _, Arc::new(cache), limits, verifier);
    let link = link(1);
    World {
        layers: Registry::over(core.clone(), Arc::clone(&backend))
            .repository(link.repository.clone()),
        backend,
        shared,
        core,
        link,
    }
}

impl World {
    fn registry(&self) -> Registry<FakeBackend> {
        Registry::over(self.core.clone(), Arc::clone(&self.backend))
    }

    /// Returns the length that a stat answers, and the tier that answered.
    async fn stat(&self) -> (Option<u64>, CacheStatus) {
        let answer = self
            .core
            .stat((&self.link).into(), Freshness::Cached)
            .await
            .unwrap();
        (answer.value.map(|meta| meta.length()), answer.status)
    }

    fn stat_task(&self) -> tokio::task::JoinHandle<Option<u64>> {
        let (core, link) = (self.core.clone(), self.link.clone());
        tokio::spawn(async move {
            let answer = core.stat((&link).into(), Freshness::Cached).await.unwrap();
            answer.value.map(|meta| meta.length())
        })
    }

    /// Waits until no load is under way, so that all fills are done.
    async fn finished(&self) {
        while Arc::strong_count(&self.core.inner) > 2 {
            tokio::task::yield_now().await;
        }
    }
}

/// A check makes a timer, so a read must not check again in each of its steps.
#[tokio::test]
async fn a_read_checks_its_runtime_once_if_it_leaves_memory() {
    for with_shared in [false, true] {
        let world = world(with_shared);
        world.backend.put(&world.link, 5);
        let reads = async |expected| {
            let before = runtime::checks();
            assert_eq!(world.stat().await, (Some(5), expected));
            world.finished().await;
            runtime::checks() - before
        };
        assert_eq!(reads(CacheStatus::Miss).await, 1);
        assert_eq!(reads(CacheStatus::Memory).await, 0);
        if with_shared {
            world.core.cache().clear_memory();
            assert_eq!(reads(CacheStatus::Redis).await, 1);
        }
    }
}

#[tokio::test]
async fn a_miss_asks_for_both_facts_and_fills_both_tiers() {
    let world = world(true);
    world.backend.put(&world.link, 5);
    assert_eq!(world.stat().await, (Some(5), CacheStatus::Miss));
    world.finished().await;
    assert_eq!(world.stat().await, (Some(5), CacheStatus::Memory));
    assert_eq!(world.shared.has(&world.link), (true, true));
    assert_eq!(world.backend.calls(), (1, 1));

    world.core.cache().clear_memory();
    assert_eq!(world.stat().await, (Some(5), CacheStatus::Redis));
    world.finished().await;
    assert_eq!(world.stat().await, (Some(5), CacheStatus::Memory));
    assert_eq!(world.backend.calls(), (1, 1));
}

#[tokio::test]
async fn what_a_tier_knows_is_not_asked_again() {
    let world = world(true);
    world.backend.put(&world.link, 5);
    let fact = Fact::member(world.link.clone());
    world.shared.add(Facts::one(fact));
    assert_eq!(world.stat().await, (Some(5), CacheStatus::Miss));
    assert_eq!(world.backend.calls(), (0, 1));
}

#[tokio::test]
async fn a_blob_that_is_no_member_is_not_spoken_of() {
    let world = world(true);
    world.backend.put(&world.link, 5);
    let stranger = Link::layer("a/c".parse().unwrap(), world.link.digest);
    assert_eq!(world.stat().await.0, Some(5));
    world.finished().await;
    for _ in 0..2 {
        let answer = world
            .core
            .stat((&stranger).into(), Freshness::Cached)
            .await
            .unwrap();
        assert_eq!(answer.value, None);
        world.finished().await;
    }
    let meta = world.core.meta(&world.link.digest, Freshness::Cached).await;
    assert_eq!(meta.unwrap().value.unwrap().length(), 5, "it is cached");
}

#[tokio::test]
async fn absence_is_not_stored() {
    let world = world(true);
    assert_eq!(world.stat().await, (None, CacheStatus::Miss));
    world.finished().await;
    world.backend.put(&world.link, 5);
    assert_eq!(world.stat().await, (Some(5), CacheStatus::Miss));
}

#[tokio::test]
async fn an_error_reaches_all_who_wait_and_is_not_stored() {
    let world = world(false);
    world.backend.put(&world.link, 5);
    world.backend.fails.store(true, Ordering::SeqCst);
    world.backend.read.hold();
    let ask = || {
        let (core, link) = (world.core.clone(), world.link.clone());
        tokio::spawn(async move { core.stat((&link).into(), Freshness::Cached).await })
    };
    let tasks = [ask(), ask(), ask()];
    world.backend.read.arrival().await;
    world.backend.read.release();
    for task in tasks {
        let error = task.await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "backend: the backend is down");
    }
    world.backend.fails.store(false, Ordering::SeqCst);
    assert_eq!(world.stat().await.0, Some(5));
}

#[tokio::test]
async fn many_who_ask_for_what_is_there_cost_one_call() {
    let world = world(true);
    world.backend.put(&world.link, 5);
    world.backend.read.hold();
    let tasks: Vec<_> = (0..32).map(|_| world.stat_task()).collect();
    world.backend.read.arrival().await;
    world.backend.read.release();
    for task in tasks {
        assert_eq!(task.await.unwrap(), Some(5));
    }
    assert_eq!(world.backend.calls(), (1, 1));
}

#[tokio::test]
async fn many_who_ask_for_what_is_not_there_cost_two_calls() {
    let world = world(true);
    world.backend.read.hold();
    let tasks: Vec<_> = (0..32).map(|_| world.stat_task()).collect();
    world.backend.read.arrival().await;
    world.backend.read.release();
    for task in tasks {
        assert_eq!(task.await.unwrap(), None);
    }
    assert_eq!(
        world.backend.calls(),
        (2, 2),
        "the one that had left, and the next"
    );
}

#[tokio::test]
async fn a_dropped_caller_leaves_its_load_to_the_tiers() {
    let world = world(true);
    world.backend.put(&world.link, 5);
    world.backend.read.hold();
    let caller = world.stat_task();
    world.backend.read.arrival().await;
    caller.abort();
    world.backend.read.release();
    world.finished().await;
    assert_eq!(world.stat().await, (Some(5), CacheStatus::Memory));
    assert_eq!(world.backend.calls(), (1, 1));
}

#[tokio::test]
async fn a_shared_tier_that_is_down_costs_reads_nothing_and_refuses_changes() {
    let world = world(true);
    world.backend.put(&world.link, 5);
    world.shared.fails.store(true, Ordering::SeqCst);
    assert_eq!(world.stat().await, (Some(5), CacheStatus::Miss));
    world.finished().await;
    let filled = world.core.cache().get(&Question::Stat(world.link.clone()));
    assert_eq!(
        filled,
        Found::default(),
        "memory is not filled without the stamp"
    );

    let error = world.layers.unlink(&world.link.digest).await.unwrap_err();
    assert!(matches!(error, Error::ChangeRefused { .. }), "{error}");
    assert_eq!(world.stat().await.0, Some(5), "the backend was not touched");

    world.shared.fails.store(false, Ordering::SeqCst);
    world.layers.unlink(&world.link.digest).await.unwrap();
    assert_eq!(world.stat().await.0, None);
}

#[tokio::test(start_paused = true)]
async fn best_effort_makes_changes_and_asks_redis_nothing_until_it_was_told() {
    let world = world_with(true, ChangePolicy::BestEffort);
    world.backend.put(&world.link, 5);
    world.stat().await;
    world.finished().await;
    world.shared.fails.store(true, Ordering::SeqCst);
    world.layers.unlink(&world.link.digest).await.unwrap();
    assert!(
        world.shared.has(&world.link).0,
        "it could not be taken away"
    );

    world.shared.fails.store(false, Ordering::SeqCst);
    let stat = world.stat().await;
    assert_eq!(
        stat,
        (None, CacheStatus::Miss),
        "Redis has the old positive"
    );
    let end = tokio::time::Instant::now() + Duration::from_secs(5);
    while world.shared.has(&world.link).0 {
        assert!(tokio::time::Instant::now() < end, "never made up for");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.backend.put(&world.link, 5);
    world.stat().await;
    world.finished().await;
    world.core.cache().clear_memory();
    assert_eq!(world.stat().await, (Some(5), CacheStatus::Redis));
}

#[tokio::test]
async fn a_key_that_a_change_names_twice_is_published_once() {
    let world = world(true);
    let key = Key::Meta(world.link.digest);
    let keys = vec![key.clone(), Key::Link(world.link.clone()), key];
    let call = async { ((), Outcome::Over) };
    let change = world.core.change(ChangeKind::Removal, keys, call);
    change.await.unwrap();
    assert_eq!(world.shared.publishes.load(Ordering::SeqCst), 1);
}

/// A call that timed out may still happen. A value that was read meanwhile must not stay cached
/// after it.
#[tokio::test(start_paused = true)]
async fn what_may_still_be_deleted_is_not_cached() {
    for with_shared in [false, true] {
        let world = world(with_shared);
        world.backend.put(&world.link, 5);
        world.backend.fails.store(true, Ordering::SeqCst);
        let error = world.layers.unlink(&world.link.digest).await.unwrap_err();
        assert!(matches!(error, Error::Backend { .. }), "{error}");
        world.backend.fails.store(false, Ordering::SeqCst);
        for _ in 0..2 {
            assert_eq!(world.stat().await, (Some(5), CacheStatus::Miss));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        // The fence in memory expires. The fake tier's fence never does; a fence in Redis would
        // expire too.
        tokio::time::sleep(Duration::from_secs(31)).await;
        world.stat().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let expected = if with_shared {
            CacheStatus::Miss
        } else {
            CacheStatus::Memory
        };
        assert_eq!(world.stat().await, (Some(5), expected));
    }
}

#[tokio::test]
async fn verified_asks_the_backend_and_takes_away_what_it_denies() {
    let world = world(true);
    world.backend.put(&world.link, 5);
    world.stat().await;
    world.finished().await;
    world.backend.forget(&world.link);
    assert_eq!(
        world.stat().await.0,
        Some(5),
        "collected behind the cache's back"
    );

    let verified = world
        .core
        .stat((&world.link).into(), Freshness::Verified)
        .await;
    assert_eq!(verified.unwrap().value, None);
    world.finished().await;
    assert_eq!(world.shared.has(&world.link), (false, false));
    assert_eq!(world.stat().await.0, None);
}

#[tokio::test]
async fn mount_asks_the_backend_of_the_source() {
    let world = world(false);
    world.backend.put(&world.link, 5);
    let target = world.registry().repository("c/d".parse().unwrap());
    let (from, digest) = (&world.link.repository, &world.link.digest);
    let mounted = target.mount(from, digest).await.unwrap();
    assert_eq!(mounted.unwrap().length(), 5);
    let stat = target.stat(digest, Freshness::Cached).await.unwrap();
    assert_eq!(stat.value.unwrap().length(), 5);

    world.backend.forget(&world.link);
    assert_eq!(
        world.stat().await.0,
        Some(5),
        "collected behind the cache's back"
    );
    let other = world.registry().repository("e/f".parse().unwrap());
    assert_eq!(other.mount(from, digest).await.unwrap(), None);
    assert!(
        !other
            .contains(digest, Freshness::Verified)
            .await
            .unwrap()
            .value
    );
}

#[tokio::test]
async fn stat_many_is_one_round_trip_and_keeps_its_order() {
    let world = world(true);
    let digests: Vec<_> = (1..=100).map(|seed| Digest::Sha256([seed; 32])).collect();
    for digest in &digests[..90] {
        let length = u64::from(digest.as_bytes()[0]);
        world
            .backend
            .put(&Link::layer(world.link.repository.clone(), *digest), length);
    }
    let lengths = async || {
        let answers = world
            .layers
            .stat_many(&digests, Freshness::Cached)
            .await
            .unwrap();
        answers
            .into_iter()
            .map(|answer| answer.value.map(|meta| meta.length()))
            .collect::<Vec<_>>()
    };
    let expected: Vec<_> = (1..=100)
        .map(|length| (length <= 90).then_some(length))
        .collect();
    assert_eq!(lengths().await, expected);
    world.finished().await;
    assert_eq!(
        lengths().await,
        expected,
        "from memory and, for the absent, the backend"
    );
    world.finished().await;

    world.core.cache().clear_memory();
    world.shared.look_ups.store(0, Ordering::SeqCst);
    let present = &digests[..90];
    let answers = world
        .layers
        .stat_many(present, Freshness::Cached)
        .await
        .unwrap();
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == CacheStatus::Redis)
    );
    assert_eq!(world.shared.look_ups.load(Ordering::SeqCst), 1);
}
