//! Flights: loads that several callers wait for.
//!
//! Nobody boards a load that has left. A load that is under way may have read before the caller's
//! question, so its answer may be older than a change that the caller has already seen acknowledged.
//! A caller that finds one waits for its end, looks in memory again, and otherwise boards the one
//! next load. One runs and one waits per key, however many ask; if the running one hangs, the next
//! starts anyway.
//!
//! A load leaves with a turn, and has it until it ends: the table and what is under way are bounded,
//! whoever asks for what. Where there is none its caller waits for one, which takes no place here.

use crate::turns::{Turn, Turns};
use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;

/// The loads that are under way, one per key.
#[derive(Debug)]
pub(crate) struct Flights<K, V> {
    departures: AtomicU64,
    board: Mutex<Board<K, V>>,
    turns: Turns,
}

type Board<K, V> = HashMap<K, Flight<V>, RandomState>;

#[derive(Debug)]
struct Flight<V> {
    number: u64,
    /// No receiver: who has one waits for the load.
    answer: Arc<watch::Sender<Option<V>>>,
    silence: Silence,
}

/// Whether a load has met a shared tier that did not answer: whoever has waited for the load has
/// waited for that tier.
#[derive(Debug, Clone, Default)]
pub(crate) struct Silence(Arc<AtomicBool>);

impl Silence {
    pub(crate) fn was_met(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// What a caller does next.
#[derive(Debug)]
pub(crate) enum Step<K: Eq + Hash, V> {
    /// A load left before the question: wait for it to end, look in memory, ask again.
    Wait(Ended<V>),
    /// A load left after the question: its answer is the caller's.
    Board(Boarded<V>),
    /// The caller is to start the load, and boards it.
    Depart(Departure<K, V>, Boarded<V>),
    /// The caller would start the load, and there is no turn for it: wait for one, look in memory,
    /// ask again.
    Full,
}

/// When a caller asked: it boards only loads that leave later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ticket {
    /// The load that was under way when the caller asked.
    left: Option<u64>,
    /// Whether that one is still to be waited for.
    patient: bool,
}

/// Where a caller stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Stand {
    /// The latest load left before the question: it is waited for, once.
    Late,
    /// The latest load left after the question.
    InTime,
    /// The next load is the caller's to start.
    First,
}

impl Ticket {
    /// For one who asks while `latest` is under way.
    pub(crate) const fn new(latest: Option<u64>) -> Self {
        Self {
            left: latest,
            patient: true,
        }
    }

    /// Where its holder stands while `latest` is under way.
    pub(crate) fn stand(&mut self, latest: Option<u64>) -> Stand {
        match latest {
            Some(latest) if self.left.is_none_or(|left| latest > left) => Stand::InTime,
            Some(_) if self.patient => {
                self.patient = false;
                Stand::Late
            }
            _ => Stand::First,
        }
    }
}

/// Sees a running load's end.
#[derive(Debug)]
pub(crate) struct Ended<V>(watch::Receiver<Option<V>>, Silence);

/// A place on a load.
#[derive(Debug)]
pub(crate) struct Boarded<V>(watch::Receiver<Option<V>>, Silence);

/// A load that was given leave to start. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Departure<K: Eq + Hash, V> {
    flights: Arc<Flights<K, V>>,
    key: K,
    number: u64,
    answer: Arc<watch::Sender<Option<V>>>,
    silence: Silence,
    _turn: Turn,
}

impl<K: Eq + Hash + Clone, V> Flights<K, V> {
    /// A table of loads that leave when it is their turn.
    pub(crate) fn new(turns: Turns) -> Self {
        Self {
            departures: AtomicU64::new(0),
            board: Mutex::default(),
            turns,
        }
    }

    /// Remembers which load is under way now.
    pub(crate) fn ask(&self, key: &K) -> Ticket {
        Ticket::new(self.board().get(key).map(|flight| flight.number))
    }

    /// What the caller does next. It waits for the running load at most once: the step after a
    /// [`Step::Wait`] is another one. A turn that it has and does not need is given back.
    pub(crate) fn step(
        self: &Arc<Self>,
        key: &K,
        ticket: &mut Ticket,
        turn: Option<Turn>,
    ) -> Step<K, V> {
        let mut board = self.board();
        let latest = board.get(key);
        match (ticket.stand(latest.map(|flight| flight.number)), latest) {
            (Stand::InTime, Some(flight)) => {
                let silence = flight.silence.clone();
                return Step::Board(Boarded(flight.answer.subscribe(), silence));
            }
            (Stand::Late, Some(flight)) => {
                let silence = flight.silence.clone();
                return Step::Wait(Ended(flight.answer.subscribe(), silence));
            }
            _ => {}
        }
        let Some(turn) = turn.or_else(|| self.turns.try_take()) else {
            return Step::Full;
        };
        let (sender, receiver) = watch::channel(None);
        let sender = Arc::new(sender);
        let number = self.departures.fetch_add(1, Ordering::Relaxed);
        let silence = Silence::default();
        let flight = Flight {
            number,
            answer: Arc::clone(&sender),
            silence: silence.clone(),
        };
        board.insert(key.clone(), flight);
        let departure = Departure {
            flights: Arc::clone(self),
            key: key.clone(),
            number,
            answer: sender,
            silence: silence.clone(),
            _turn: turn,
        };
        Step::Depart(departure, Boarded(receiver, silence))
    }
}

impl<K: Send, V: Send + Sync> Flights<K, V> {
    /// A turn for the next load, as soon as it is the caller's.
    pub(crate) async fn turn(&self) -> Turn {
        self.turns.take().await
    }
}

impl<K: Eq + Hash, V> Flights<K, V> {
    fn board(&self) -> MutexGuard<'_, Board<K, V>> {
        // The table is whole between any two of its operations, whoever panicked.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash, V> Departure<K, V> {
    /// Gives the answer to all who boarded. The load goes on until this is dropped.
    pub(crate) fn answer(&self, value: V) {
        self.answer.send_replace(Some(value));
    }

    /// The shared tier did not answer this load.
    pub(crate) fn meets_silence(&self) {
        self.silence.0.store(true, Ordering::Release);
    }

    /// Lets nobody board any more.
    fn take_off(&self, board: &mut Board<K, V>) {
        let latest = board.get(&self.key).map(|flight| flight.number);
        if latest == Some(self.number) {
            board.remove(&self.key);
        }
    }
}

impl<K: Eq + Hash + Send + Sync, V: Send + Sync> Departure<K, V> {
    /// Returns when nobody waits for this load, and nobody can board it any more; after `patience`
    /// at the earliest.
    pub(crate) async fn forsaken(&self, patience: Duration) {
        sleep(patience).await;
        loop {
            self.answer.closed().await;
            let mut board = self.flights.board();
            // Those who board do so under the same lock.
            if self.answer.receiver_count() == 0 {
                self.take_off(&mut board);
                return;
            }
        }
    }
}

impl<K: Eq + Hash, V> Drop for Departure<K, V> {
    fn drop(&mut self) {
        self.take_off(&mut self.flights.board());
    }
}

impl<V: Clone + Send + Sync> Boarded<V> {
    /// What the load meets.
    pub(crate) fn silence(&self) -> Silence {
        self.1.clone()
    }

    /// The load's answer, or `None` if the load died without one.
    pub(crate) async fn answer(mut self) -> Option<V> {
        let answer = self.0.wait_for(Option::is_some).await.ok()?;
        answer.clone()
    }
}

impl<V: Send + Sync> Ended<V> {
    /// Returns when the load has ended, however it did, and says what it has met.
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
        Arc::new(Flights::new(Turns::new("test", 2)))
    }

    fn depart(table: &Table, ticket: &mut Ticket) -> (Departure<&'static str, u32>, Boarded<u32>) {
        match table.step(&"key", ticket, None) {
            Step::Depart(departure, boarded) => (departure, boarded),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn nobody_boards_a_load_that_has_left() {
        let table = table();
        let (running, _) = depart(&table, &mut table.ask(&"key"));

        let mut late = table.ask(&"key");
        let Step::Wait(ended) = table.step(&"key", &mut late, None) else {
            panic!("a load that left before the question was boarded");
        };
        running.answer(1);
        drop(running);
        ended.wait().await;
        let (next, boarded) = depart(&table, &mut late);
        next.answer(2);
        assert_eq!(boarded.answer().await, Some(2));
    }

    #[tokio::test]
    async fn those_who_waited_share_the_one_next_load() {
        let table = table();
        let (running, _) = depart(&table, &mut table.ask(&"key"));
        let mut waiting: Vec<_> = (0..5).map(|_| table.ask(&"key")).collect();
        for ticket in &mut waiting {
            assert!(matches!(table.step(&"key", ticket, None), Step::Wait(_)));
        }
        drop(running);
        let (next, _) = depart(&table, &mut waiting[0]);
        let boarded: Vec<_> = waiting[1..]
            .iter_mut()
            .map(|ticket| match table.step(&"key", ticket, None) {
                Step::Board(boarded) => boarded,
                other => panic!("{other:?}"),
            })
            .collect();
        next.answer(7);
        drop(next);
        for boarded in boarded {
            assert_eq!(boarded.answer().await, Some(7));
        }
        assert!(table.board().is_empty());
    }

    #[test]
    fn a_load_that_hangs_does_not_stop_the_next() {
        let table = table();
        let (hanging, _) = depart(&table, &mut table.ask(&"key"));
        let mut second = table.ask(&"key");
        assert!(matches!(
            table.step(&"key", &mut second, None),
            Step::Wait(_)
        ));
        // Its patience is over, and the first still runs.
        let (next, _) = depart(&table, &mut second);
        drop(hanging);
        assert_eq!(table.board().len(), 1, "the first took the second off");
        drop(next);
        assert!(table.board().is_empty());
    }

    #[tokio::test]
    async fn a_load_that_dies_leaves_nobody_waiting() {
        let table = table();
        let (departure, boarded) = depart(&table, &mut table.ask(&"key"));
        drop(departure);
        assert_eq!(boarded.answer().await, None);
        assert!(table.board().is_empty());
    }

    #[tokio::test]
    async fn a_load_that_has_no_turn_takes_no_place() {
        let table = table();
        let depart = |key| match table.step(&key, &mut table.ask(&key), None) {
            Step::Depart(departure, _) => departure,
            other => panic!("{other:?}"),
        };
        let (first, _second) = (depart("first"), depart("second"));
        let mut late = table.ask(&"key");
        assert!(matches!(table.step(&"key", &mut late, None), Step::Full));
        let mut boards = Ticket::new(None);
        let step = table.step(&"first", &mut boards, None);
        assert!(matches!(step, Step::Board(_)), "to board needs no turn");
        assert_eq!(table.board().len(), 2);

        drop(first);
        let turn = table.turn().await;
        assert!(matches!(table.step(&"other", &mut late, None), Step::Full));
        let step = table.step(&"key", &mut late, Some(turn));
        assert!(matches!(step, Step::Depart(..)));
        drop(step);
        let _ = table.turn().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_load_is_forsaken_when_nobody_waits_for_it_and_not_before() {
        const PATIENCE: Duration = Duration::from_secs(1);
        let table = table();
        let (running, boarded) = depart(&table, &mut table.ask(&"key"));
        let is_forsaken = || tokio::time::timeout(PATIENCE * 2, running.forsaken(PATIENCE));
        assert!(is_forsaken().await.is_err(), "one has boarded it");
        let Step::Wait(ended) = table.step(&"key", &mut table.ask(&"key"), None) else {
            panic!("it runs");
        };
        drop(boarded);
        assert!(is_forsaken().await.is_err(), "one waits for its end");
        drop(ended);
        let early = tokio::time::timeout(PATIENCE / 2, running.forsaken(PATIENCE));
        assert!(early.await.is_err(), "there has to be time to fill");
        assert!(is_forsaken().await.is_ok());
        assert!(table.board().is_empty(), "nobody may board it now");
    }
}
