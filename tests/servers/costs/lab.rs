//! A node on a counted store, alone or with a counted Redis.

use layercache::{CachedStore, Digest, Freshness, RedisConfig, Repository, StoreBackend};
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use std::fmt;
use std::time::Duration;
use test_support::meter::Meter;
use test_support::nodes::{LENGTH, SETTLED, TRUST, blob_path, digest, link_path, name};
use test_support::recording::Recording;
use test_support::redis::Redis;

pub(crate) type Bare = Recording<InMemory>;
pub(crate) type Node = CachedStore<Bare>;

/// The cost of one call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cost {
    /// Round trips to Redis, one after the other, that the caller waits for.
    pub(crate) waited: usize,
    /// Round trips that are made after the caller has its answer.
    pub(crate) after: usize,
    /// Calls of the backend.
    pub(crate) calls: usize,
}

/// Returns a cost: round trips that the caller waits for, round trips after the answer, and calls
/// of the backend.
pub(crate) const fn cost(waited: usize, after: usize, calls: usize) -> Cost {
    Cost {
        waited,
        after,
        calls,
    }
}

impl fmt::Debug for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            waited,
            after,
            calls,
        } = self;
        write!(f, "cost({waited}, {after}, {calls})")
    }
}

/// Writes a cost as the guide does: `2 + 1, 2`.
impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} + {}, {}", self.waited, self.after, self.calls)
    }
}

impl Cost {
    /// Returns this cost for a node without Redis.
    pub(crate) const fn alone(self) -> Self {
        cost(0, 0, self.calls)
    }
}

/// A server, and the meter in front of it.
struct Shared {
    redis: Redis,
    meter: Meter,
}

pub(crate) struct Lab {
    pub(crate) node: Node,
    pub(crate) bare: Bare,
    shared: Option<Shared>,
}

impl Lab {
    pub(crate) fn alone() -> Self {
        let bare = Recording::new(InMemory::new());
        Self {
            node: CachedStore::new(bare.clone()),
            bare,
            shared: None,
        }
    }

    /// Makes a node with a Redis that has all the scripts and has known the node for long enough.
    pub(crate) async fn with_redis() -> Self {
        let redis = Redis::start().await;
        let meter = Meter::start(redis.port()).await;
        let bare = Recording::new(InMemory::new());
        let builder = CachedStore::builder(bare.clone()).redis(config(&meter));
        let lab = Self {
            node: builder.build().unwrap(),
            bare,
            shared: Some(Shared { redis, meter }),
        };
        tokio::time::sleep(SETTLED).await;
        lab.load_scripts().await;
        lab
    }

    /// Loads all scripts, because a script costs one more round trip once in the life of a server.
    async fn load_scripts(&self) {
        let (here, absent) = (digest(u32::MAX), digest(u32::MAX - 1));
        self.put(&here).await;
        self.stat(&here).await;
        self.stat(&absent).await;
        let verified = self.layers().stat(&absent, Freshness::Verified).await;
        verified.unwrap();
        self.settled().await;
        self.layers().unlink(&here).await.unwrap();
        self.settled().await;
    }

    /// # Panics
    /// If the node has no Redis. So does [`Self::meter`].
    pub(crate) fn redis(&self) -> &Redis {
        &self.shared.as_ref().expect("a lab with Redis").redis
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.shared.as_ref().expect("a lab with Redis").meter
    }

    pub(crate) fn has_redis(&self) -> bool {
        self.shared.is_some()
    }

    pub(crate) fn layers(&self) -> Repository<StoreBackend> {
        self.node.registry().repository(name())
    }

    /// Puts a blob and its link into the store, without telling any node.
    pub(crate) async fn put(&self, digest: &Digest) {
        let store = self.bare.inner();
        let (blob, link) = (blob_path(digest), link_path(digest));
        store.put(&blob, "content".into()).await.unwrap();
        let text = digest.to_string();
        store.put(&link, text.into()).await.unwrap();
    }

    async fn stat(&self, digest: &Digest) -> Option<u64> {
        let answer = self.layers().stat(digest, Freshness::Cached).await;
        answer.unwrap().value.map(|meta| meta.length())
    }

    /// Puts a blob and reads it, so that memory knows its objects, and Redis, if there is one, both
    /// facts.
    pub(crate) async fn put_known(&self, digest: &Digest) {
        self.put(digest).await;
        assert_eq!(self.stat(digest).await, Some(LENGTH));
        self.settled().await;
    }

    /// Waits until no work is running.
    pub(crate) async fn settled(&self) {
        match &self.shared {
            Some(shared) => shared.meter.settled().await,
            // Without Redis the background work waits for nothing, so a moment suffices.
            None => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }

    /// Measures a call on this lab.
    pub(crate) async fn measure<T>(&self, call: impl Future<Output = T>) -> (T, Measured) {
        measure(
            self.shared.as_ref().map(|shared| &shared.meter),
            || self.bare.calls(),
            call,
        )
        .await
    }
}

/// The counts, and the commands of each round trip.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) cost: Cost,
    pub(crate) trips: Vec<Vec<String>>,
}

impl Measured {
    /// # Panics
    /// If the cost is not the expected one.
    pub(crate) fn assert(&self, expected: Cost, what: impl fmt::Display) {
        assert_eq!(
            self.cost, expected,
            "{what}; the round trips: {:?}",
            self.trips
        );
    }
}

/// Measures a call and the work that it leaves behind.
pub(crate) async fn measure<T>(
    meter: Option<&Meter>,
    calls: impl Fn() -> usize,
    call: impl Future<Output = T>,
) -> (T, Measured) {
    let Some(meter) = meter else {
        let before = calls();
        let value = call.await;
        let cost = cost(0, 0, calls() - before);
        let trips = Vec::new();
        return (value, Measured { cost, trips });
    };
    meter.settled().await;
    meter.reset();
    let before = calls();
    let value = call.await;
    let waited = meter.over();
    meter.settled().await;
    let trips = meter.begun();
    let cost = cost(waited, trips.len() - waited, calls() - before);
    (value, Measured { cost, trips })
}

/// Returns a configuration for a busy machine, because these tests do not test the deadline.
pub(crate) fn config(meter: &Meter) -> RedisConfig {
    let config = RedisConfig::new(meter.url()).with_trust_timeout(TRUST);
    config.with_timeout(Duration::from_secs(5))
}
