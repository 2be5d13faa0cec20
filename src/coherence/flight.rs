//! Decides which load a caller joins. A flight is a load that several callers wait for.
//!
//! A caller never joins a load that started before the caller arrived. Such a load may have read
//! the backend before a change that the caller has already seen acknowledged. The caller waits for
//! the end of that load, looks in memory again, and otherwise joins the next load. At most one load
//! runs per key, and all callers that wait for it share the next one. If the running load hangs,
//! the next load starts anyway.
//!
//! A load needs a permit to start, and keeps it until it ends. This bounds the table and the
//! running loads, whatever the callers ask for. A caller that finds no free permit waits for one,
//! and takes no place in the table meanwhile.

use crate::coherence::limiter::{Limiter, Permit};
use crate::coherence::rules::{Rule, kept};
use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;

/// Holds the latest running load of each key.
#[derive(Debug)]
pub(crate) struct Flights<K, V> {
    started: AtomicU64,
    table: Mutex<Table<K, V>>,
    limiter: Limiter,
}

type Table<K, V> = HashMap<K, Flight<V>, RandomState>;

#[derive(Debug)]
struct Flight<V> {
    number: u64,
    /// Only the sender is kept here, because each receiver counts as a caller that waits.
    answer: Arc<watch::Sender<Option<V>>>,
    silence: Silence,
}

/// Tells whether the shared tier failed to answer a load. A caller that has waited for the load has
/// then waited for the shared tier too.
#[derive(Debug, Clone, Default)]
pub(crate) struct Silence(Arc<AtomicBool>);

impl Silence {
    pub(crate) fn was_met(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Says what a caller does next.
#[derive(Debug)]
pub(crate) enum FlightStep<K: Eq + Hash, V> {
    /// A load started before the caller arrived. The caller waits for its end, looks in memory, and
    /// calls [`Flights::step`] again.
    Wait(LoadEnd<V>),
    /// A load started after the caller arrived. Its answer is the caller's answer.
    Join(Joined<V>),
    /// The caller starts the load, and joins it.
    Start(RunningLoad<K, V>, Joined<V>),
    /// The caller would start the load, but no permit is free. The caller waits for a permit, looks
    /// in memory, and calls [`Flights::step`] again.
    Full,
}

/// Remembers when a caller arrived. The caller joins only loads that start later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Arrival {
    /// The load that was running when the caller arrived.
    left: Option<u64>,
    /// Whether the caller still has to wait for that load.
    patient: bool,
}

/// Compares the latest load of a key with a caller's arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum LatestLoad {
    /// The latest load started before the caller arrived. The caller waits for it, once.
    StartedBefore,
    /// The latest load started after the caller arrived. The caller joins it.
    StartedAfter,
    /// There is no load to join. The caller starts the next one.
    NoneToJoin,
}

impl Arrival {
    /// Returns the arrival of a caller while the load `latest` runs.
    pub(crate) const fn new(latest: Option<u64>) -> Self {
        Self {
            left: latest,
            patient: true,
        }
    }

    /// Compares the load `latest`, which runs now, with this arrival.
    pub(crate) fn latest_load(&mut self, latest: Option<u64>) -> LatestLoad {
        match latest {
            Some(latest)
                if self.left.is_none_or(|left| latest > left)
                    || !kept(Rule::NoReadJoinsAnEarlierLoad) =>
            {
                LatestLoad::StartedAfter
            }
            Some(_) if self.patient => {
                self.patient = false;
                LatestLoad::StartedBefore
            }
            _ => LatestLoad::NoneToJoin,
        }
    }
}

/// Waits for the end of a running load.
#[derive(Debug)]
pub(crate) struct LoadEnd<V>(watch::Receiver<Option<V>>, Silence);

/// Receives the answer of a load that the caller has joined.
#[derive(Debug)]
pub(crate) struct Joined<V>(watch::Receiver<Option<V>>, Silence);

/// A load that holds its permit and runs. The load ends when this is dropped.
#[derive(Debug)]
pub(crate) struct RunningLoad<K: Eq + Hash, V> {
    flights: Arc<Flights<K, V>>,
    key: K,
    number: u64,
    answer: Arc<watch::Sender<Option<V>>>,
    silence: Silence,
    _permit: Permit,
}

impl<K: Eq + Hash + Clone, V> Flights<K, V> {
    /// Returns an empty table. Each of its loads needs a permit of `limiter`.
    pub(crate) fn new(limiter: Limiter) -> Self {
        Self {
            started: AtomicU64::new(0),
            table: Mutex::default(),
            limiter,
        }
    }

    /// Returns the arrival of a caller that asks for this key now.
    pub(crate) fn ask(&self, key: &K) -> Arrival {
        Arrival::new(self.table().get(key).map(|flight| flight.number))
    }

    /// Returns what the caller does next. A caller waits for a running load at most once: the step
    /// after a [`FlightStep::Wait`] is a different one. If the caller passes a permit and does not
    /// need it, the permit is released.
    pub(crate) fn step(
        self: &Arc<Self>,
        key: &K,
        arrival: &mut Arrival,
        permit: Option<Permit>,
    ) -> FlightStep<K, V> {
        let mut table = self.table();
        let latest = table.get(key);
        match (
            arrival.latest_load(latest.map(|flight| flight.number)),
            latest,
        ) {
            (LatestLoad::StartedAfter, Some(flight)) => {
                let silence = flight.silence.clone();
                return FlightStep::Join(Joined(flight.answer.subscribe(), silence));
            }
            (LatestLoad::StartedBefore, Some(flight)) => {
                let silence = flight.silence.clone();
                return FlightStep::Wait(LoadEnd(flight.answer.subscribe(), silence));
            }
            _ => {}
        }
        let Some(permit) = permit.or_else(|| self.limiter.try_take()) else {
            return FlightStep::Full;
        };
        let (sender, receiver) = watch::channel(None);
        let sender = Arc::new(sender);
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let silence = Silence::default();
        let flight = Flight {
            number,
            answer: Arc::clone(&sender),
            silence: silence.clone(),
        };
        table.insert(key.clone(), flight);
        let running = RunningLoad {
            flights: Arc::clone(self),
            key: key.clone(),
            number,
            answer: sender,
            silence: silence.clone(),
            _permit: permit,
        };
        FlightStep::Start(running, Joined(receiver, silence))
    }
}

impl<K: Send, V: Send + Sync> Flights<K, V> {
    /// Waits for a permit to start the next load.
    pub(crate) async fn permit(&self) -> Permit {
        self.limiter.take().await
    }
}

impl<K: Eq + Hash, V> Flights<K, V> {
    fn table(&self) -> MutexGuard<'_, Table<K, V>> {
        // Each operation leaves the table whole, so a poisoned lock is harmless.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash, V> RunningLoad<K, V> {
    /// Gives the answer to all callers that joined. The load goes on until this is dropped.
    pub(crate) fn answer(&self, value: V) {
        self.answer.send_replace(Some(value));
    }

    /// Records that the shared tier did not answer this load.
    pub(crate) fn met_silence(&self) {
        self.silence.0.store(true, Ordering::Release);
    }

    /// Removes the load from the table, so that no more callers join it.
    fn remove_from_table(&self, table: &mut Table<K, V>) {
        let latest = table.get(&self.key).map(|flight| flight.number);
        if latest == Some(self.number) {
            table.remove(&self.key);
        }
    }
}

impl<K: Eq + Hash + Send + Sync, V: Send + Sync> RunningLoad<K, V> {
    /// Returns when no caller waits for this load and no caller can join it any more, and not
    /// before `patience` is over.
    pub(crate) async fn abandoned(&self, patience: Duration) {
        sleep(patience).await;
        loop {
            self.answer.closed().await;
            let mut table = self.flights.table();
            // Callers join under the same lock.
            if self.answer.receiver_count() == 0 {
                self.remove_from_table(&mut table);
                return;
            }
        }
    }
}

impl<K: Eq + Hash, V> Drop for RunningLoad<K, V> {
    fn drop(&mut self) {
        self.remove_from_table(&mut self.flights.table());
    }
}

impl<V: Clone + Send + Sync> Joined<V> {
    /// Returns the flag that the load sets when the shared tier does not answer it.
    pub(crate) fn silence(&self) -> Silence {
        self.1.clone()
    }

    /// Waits for the load's answer. Returns `None` if the load ended without one.
    pub(crate) async fn answer(mut self) -> Option<V> {
        let answer = self.0.wait_for(Option::is_some).await.ok()?;
        answer.clone()
    }
}

impl<V: Send + Sync> LoadEnd<V> {
    /// Waits until the load has ended, with or without an answer. Returns whether the shared tier
    /// failed to answer it.
    pub(crate) async fn wait(mut self) -> Silence {
        while self.0.changed().await.is_ok() {}
        self.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Table = Arc<Flights<&'static str, u32>>;

    fn table() -> Table {
        Arc::new(Flights::new(Limiter::new("test", 2)))
    }

    fn start(
        table: &Table,
        arrival: &mut Arrival,
    ) -> (RunningLoad<&'static str, u32>, Joined<u32>) {
        match table.step(&"key", arrival, None) {
            FlightStep::Start(running, joined) => (running, joined),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_load_that_has_started_is_not_joined() {
        let table = table();
        let (running, _) = start(&table, &mut table.ask(&"key"));

        let mut late = table.ask(&"key");
        let FlightStep::Wait(ended) = table.step(&"key", &mut late, None) else {
            panic!("the caller joined a load that had started before it arrived");
        };
        running.answer(1);
        drop(running);
        ended.wait().await;
        let (next, joined) = start(&table, &mut late);
        next.answer(2);
        assert_eq!(joined.answer().await, Some(2));
    }

    #[tokio::test]
    async fn all_callers_that_waited_share_the_next_load() {
        let table = table();
        let (running, _) = start(&table, &mut table.ask(&"key"));
        let mut waiting: Vec<_> = (0..5).map(|_| table.ask(&"key")).collect();
        for arrival in &mut waiting {
            assert!(matches!(
                table.step(&"key", arrival, None),
                FlightStep::Wait(_)
            ));
        }
        drop(running);
        let (next, _) = start(&table, &mut waiting[0]);
        let joined: Vec<_> = waiting[1..]
            .iter_mut()
            .map(|arrival| match table.step(&"key", arrival, None) {
                FlightStep::Join(joined) => joined,
                other => panic!("{other:?}"),
            })
            .collect();
        next.answer(7);
        drop(next);
        for joined in joined {
            assert_eq!(joined.answer().await, Some(7));
        }
        assert!(table.table().is_empty());
    }

    #[test]
    fn a_load_that_hangs_does_not_stop_the_next() {
        let table = table();
        let (hanging, _) = start(&table, &mut table.ask(&"key"));
        let mut second = table.ask(&"key");
        assert!(matches!(
            table.step(&"key", &mut second, None),
            FlightStep::Wait(_)
        ));
        // The second caller no longer waits, although the first load still runs.
        let (next, _) = start(&table, &mut second);
        drop(hanging);
        assert_eq!(
            table.table().len(),
            1,
            "the first load removed the second one from the table"
        );
        drop(next);
        assert!(table.table().is_empty());
    }

    #[tokio::test]
    async fn a_load_that_ends_without_an_answer_ends_its_callers_wait() {
        let table = table();
        let (running, joined) = start(&table, &mut table.ask(&"key"));
        drop(running);
        assert_eq!(joined.answer().await, None);
        assert!(table.table().is_empty());
    }

    #[tokio::test]
    async fn a_load_without_a_permit_takes_no_place_in_the_table() {
        let table = table();
        let start = |key| match table.step(&key, &mut table.ask(&key), None) {
            FlightStep::Start(running, _) => running,
            other => panic!("{other:?}"),
        };
        let (first, _second) = (start("first"), start("second"));
        let mut late = table.ask(&"key");
        assert!(matches!(
            table.step(&"key", &mut late, None),
            FlightStep::Full
        ));
        let mut joins = Arrival::new(None);
        let step = table.step(&"first", &mut joins, None);
        assert!(
            matches!(step, FlightStep::Join(_)),
            "a caller joins without a permit"
        );
        assert_eq!(table.table().len(), 2);

        drop(first);
        let permit = table.permit().await;
        assert!(matches!(
            table.step(&"other", &mut late, None),
            FlightStep::Full
        ));
        let step = table.step(&"key", &mut late, Some(permit));
        assert!(matches!(step, FlightStep::Start(..)));
        drop(step);
        let _ = table.permit().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_load_is_abandoned_when_no_caller_waits_for_it_and_not_before() {
        const PATIENCE: Duration = Duration::from_secs(1);
        let table = table();
        let (running, joined) = start(&table, &mut table.ask(&"key"));
        let is_abandoned = || tokio::time::timeout(PATIENCE * 2, running.abandoned(PATIENCE));
        assert!(is_abandoned().await.is_err(), "a caller has joined it");
        let FlightStep::Wait(ended) = table.step(&"key", &mut table.ask(&"key"), None) else {
            panic!("the load runs");
        };
        drop(joined);
        assert!(is_abandoned().await.is_err(), "a caller waits for its end");
        drop(ended);
        let early = tokio::time::timeout(PATIENCE / 2, running.abandoned(PATIENCE));
        assert!(early.await.is_err(), "the load has time to fill the cache");
        assert!(is_abandoned().await.is_ok());
        assert!(table.table().is_empty(), "no caller can join the load now");
    }
}
