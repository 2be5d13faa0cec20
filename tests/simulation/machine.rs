//! [`Machine`]: one process of the cluster, on a runtime and a clock of its own.

use super::busy::Busy;
use super::outbox::{Emission, Outbox};
use super::store::SimStore;
use super::stream::SimConnector;
use layercache::{CachedStore, MemoryConfig, RedisCache, RedisConfig, TieredCache, VerifierConfig};
use object_store::memory::InMemory;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, RngSeed, Runtime};
use tokio::time::{Instant, advance, sleep_until};

/// The time since a run began.
pub(crate) type Time = Duration;

/// How the node of each machine is configured.
#[derive(Debug, Clone)]
pub(crate) struct NodeConfig {
    pub(crate) redis: RedisConfig,
    /// How many of the hits the node checks, if it checks any.
    pub(crate) verified: Option<f64>,
    /// Whether two stores share the node's cache.
    pub(crate) is_shared: bool,
}

/// One process of the cluster. Its clock stands still while its runtime does not run, and no other
/// machine shares the runtime. So a machine can freeze, and can die at any moment.
#[derive(Debug)]
pub(crate) struct Machine {
    /// The stores of the node: one, or two that share a cache.
    pub(crate) stores: Vec<CachedStore<SimStore>>,
    cache: Option<Arc<TieredCache>>,
    pub(crate) busy: Busy,
    pub(crate) outbox: Outbox,
    runtime: Option<Runtime>,
    /// When the machine was started, by the clock of the run and by its own.
    began: (Time, Instant),
    /// How far the machine has run.
    pub(crate) now: Time,
    /// Whether something has arrived since the machine ran last.
    pub(crate) is_woken: bool,
    /// Until when the machine stands still.
    pub(crate) frozen_until: Time,
}

impl Machine {
    /// Starts a process with a node on this backend and this Redis.
    pub(crate) fn start(now: Time, backend: &Arc<InMemory>, config: &NodeConfig) -> Self {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .rng_seed(RngSeed::from_bytes(&fastrand::u64(..).to_le_bytes()))
            .build()
            .expect("a runtime");
        let outbox = Outbox::default();
        let busy = Busy::default();
        let inner = SimStore {
            store: Arc::clone(backend),
            outbox: outbox.clone(),
            busy: busy.clone(),
        };
        let connector = SimConnector {
            outbox: outbox.clone(),
        };
        let redis = config.redis.clone().with_connector(Arc::new(connector));
        let (stores, cache, began) = runtime.block_on(async {
            let builder = || {
                let builder = CachedStore::builder(inner.clone());
                match config.verified {
                    Some(share) => builder.verifier(VerifierConfig::default().with_hits(share)),
                    None => builder,
                }
            };
            let (builders, cache) = match config.is_shared {
                false => (vec![builder().redis(redis)], None),
                true => {
                    let redis = RedisCache::new(redis).expect("a configuration");
                    let cache = TieredCache::with_redis(MemoryConfig::default(), redis);
                    let cache = Arc::new(cache);
                    let builders = ["a", "b"].map(|name| builder().cache(Arc::clone(&cache), name));
                    (Vec::from(builders), Some(cache))
                }
            };
            let stores = builders.into_iter();
            let stores = stores.map(|builder| builder.build().expect("a configuration"));
            (stores.collect(), cache, Instant::now())
        });
        Self {
            stores,
            cache,
            busy,
            outbox,
            runtime: Some(runtime),
            began: (now, began),
            now,
            is_woken: true,
            frozen_until: Time::ZERO,
        }
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it is dropped last")
    }

    /// Starts a task of the process.
    pub(crate) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime().spawn(task);
        self.is_woken = true;
    }

    /// The node leaves the other nodes.
    pub(crate) fn leave(&mut self) {
        let (stores, cache) = (self.stores.clone(), self.cache.clone());
        self.spawn(async move {
            match cache {
                Some(cache) => cache.shutdown().await,
                None => stores[0].shutdown().await,
            }
        });
    }

    /// Drops the node. Its tasks have to end then.
    pub(crate) fn drop_node(&mut self) {
        let (stores, cache) = (std::mem::take(&mut self.stores), self.cache.take());
        self.spawn(async move { drop((stores, cache)) });
    }

    /// Counts the tasks that have not ended.
    pub(crate) fn tasks(&self) -> usize {
        self.runtime().metrics().num_alive_tasks()
    }

    /// Returns this moment of the machine's own clock as the time of the run.
    fn time_of(&self, at: Instant) -> Time {
        self.began.0 + (at - self.began.1)
    }

    /// Runs the process until `until`, or until it has sent something. Returns what it has sent.
    pub(crate) fn run(&mut self, until: Time) -> Vec<(Time, Emission)> {
        self.is_woken = false;
        let end = self.began.1 + until.saturating_sub(self.began.0);
        let outbox = &self.outbox;
        let now = self.runtime().block_on(async {
            tokio::select! {
                biased;
                () = outbox.emitted() => {}
                () = sleep_until(end) => {}
            }
            Instant::now()
        });
        self.now = self.time_of(now);
        let emissions = self.outbox.take().into_iter();
        let emissions: Vec<_> = emissions.map(|(at, it)| (self.time_of(at), it)).collect();
        // Other tasks may be ready at this moment.
        self.is_woken |= !emissions.is_empty();
        emissions
    }

    /// Moves the machine's clock, as when the process was stopped and goes on now. All timers of
    /// the time between end at once.
    pub(crate) fn jump(&mut self, until: Time) {
        let time = until.saturating_sub(self.now);
        if self.frozen_until > self.now {
            self.busy.stood_still(time);
        }
        self.runtime().block_on(advance(time));
        self.now = until.max(self.now);
        self.is_woken = true;
    }
}

/// Ends the process as a power failure does: its tasks do not run again.
impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
