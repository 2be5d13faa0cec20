//! [`Machine`]: one process of the cluster, on a runtime and a clock of its own.

use super::outbox::{Emission, Outbox};
use super::store::SimStore;
use super::stream::SimConnector;
use layercache::{CachedStore, RedisConfig};
use object_store::memory::InMemory;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, RngSeed, Runtime};
use tokio::time::{Instant, advance, sleep_until};

/// The time since a run began.
pub(crate) type Time = Duration;

/// One process of the cluster. Its clock stands still while its runtime does not run, and no other
/// machine shares the runtime. So a machine can freeze, and can die at any moment.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) store: CachedStore<SimStore>,
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
    pub(crate) fn start(now: Time, backend: &Arc<InMemory>, config: &RedisConfig) -> Self {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .rng_seed(RngSeed::from_bytes(&fastrand::u64(..).to_le_bytes()))
            .build()
            .expect("a runtime");
        let outbox = Outbox::default();
        let inner = SimStore {
            store: Arc::clone(backend),
            outbox: outbox.clone(),
        };
        let connector = SimConnector {
            outbox: outbox.clone(),
        };
        let config = config.clone().with_connector(Arc::new(connector));
        let (store, began) = runtime.block_on(async {
            let store = CachedStore::builder(inner).redis(config).build();
            (store.expect("a configuration"), Instant::now())
        });
        Self {
            store,
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
