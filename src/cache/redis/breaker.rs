//! The breaker: whether Redis is asked at all. Pure; the connection does what it says.
//!
//! Closed, there is a connection, and everybody uses it. Open, there is none, and no read waits for
//! one. In between one probe is under way, which connects and asks; that it was answered in time
//! closes the breaker. A connection that is lost is probed for at once, and for a moment the callers
//! wait for it: a server that has only been restarted costs no miss.
//!
//! A server that is silent is not asked, but its connection stays up: its channel misses nothing. An
//! answer that comes in time ends the silence.

use super::trouble::Trouble;
use crate::cache::deadline::Patience;
use crate::metrics::{OneOf, breaker};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long after a probe has failed the next one begins, at most.
const PAUSE: Duration = Duration::from_secs(1);

/// For how many times a read's deadline a creation waits for a server that has just become silent.
const STALL: u32 = 5;

/// How often a waiting caller looks again whether the server has its standing back.
const GLANCE: Duration = Duration::from_millis(10);

/// Whether a server is asked.
#[derive(Debug)]
pub(super) struct Breaker<C> {
    state: State<C>,
    /// Why it was opened last.
    trouble: Option<Arc<Trouble>>,
    /// What the log was told last.
    told: Option<Turn>,
    /// What a read may take. It waits no longer for a probe that is likely to succeed, and a server
    /// that says nothing for so long is silent.
    patience: Duration,
    /// Tells those who wait that something has changed.
    turned: watch::Sender<()>,
    /// What the metrics are told.
    shown: OneOf<3>,
}

#[derive(Debug)]
enum State<C> {
    Open {
        probe_at: Instant,
    },
    Probing {
        /// Until when reads wait for it, if it is likely to succeed.
        awaited: Option<Instant>,
        /// Gone if the probe ended with its runtime.
        task: Weak<()>,
    },
    Closed {
        connection: C,
        number: u64,
        since: Instant,
        /// When something came back last.
        heard: Instant,
        silence: Option<Silence>,
    },
    /// For good.
    Shut,
}

/// A server that is silent.
#[derive(Debug)]
struct Silence {
    since: Instant,
    trouble: Arc<Trouble>,
    /// Gone if the task that listens for its end has ended with its runtime.
    task: Weak<()>,
}

/// What a caller that wants to ask does.
#[derive(Debug)]
pub(super) enum Ask<C> {
    /// Asks through this connection, which has this number.
    Through(C, u64),
    /// Waits until something changes, until then at most; then it asks again.
    Wait(watch::Receiver<()>, Option<Instant>),
    /// Starts the probe, which keeps this until it is over; then it asks again.
    Probe(Arc<()>),
    /// Starts to listen on the connection of this number for the end of the silence, which keeps this
    /// until it is over; then it asks again.
    Listen(Arc<()>, u64),
    /// Does without.
    No(Option<Arc<Trouble>>),
}

/// What the log is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Closed,
    Opened,
}

impl<C: Clone> Breaker<C> {
    pub(super) fn new(patience: Duration, now: Instant) -> Self {
        let mut new = Self {
            state: State::Shut,
            trouble: None,
            told: None,
            patience,
            turned: watch::Sender::new(()),
            shown: breaker(),
        };
        new.enter(State::Open { probe_at: now });
        new
    }

    /// What a caller does that wants to ask now. `lapsed` says why the server that is connected has no
    /// standing, if it has none.
    pub(super) fn ask(
        &mut self,
        now: Instant,
        patience: Patience,
        lapsed: Option<Trouble>,
    ) -> Ask<C> {
        let trouble = self.trouble.clone();
        match &mut self.state {
            State::Closed {
                silence: Some(silence),
                number,
                ..
            } => {
                if silence.task.strong_count() == 0 {
                    let task = Arc::new(());
                    silence.task = Arc::downgrade(&task);
                    return Ask::Listen(task, *number);
                }
                let stall = silence.since + self.patience * STALL;
                match patience {
                    Patience::Creation if now < stall => self.wait(Some(stall)),
                    Patience::Removal => self.wait(None),
                    Patience::Read | Patience::Creation => {
                        Ask::No(Some(Arc::clone(&silence.trouble)))
                    }
                }
            }
            State::Closed {
                connection, number, ..
            } => match (lapsed, patience) {
                (None, _) => Ask::Through(connection.clone(), *number),
                (Some(_), Patience::Removal) => self.wait(Some(now + GLANCE)),
                (Some(trouble), _) => Ask::No(Some(Arc::new(trouble))),
            },
            State::Probing { task, .. } if task.strong_count() == 0 => self.begin_probe(now),
            State::Probing { awaited, .. } => match (patience, *awaited) {
                (Patience::Read, Some(until)) if now < until => self.wait(Some(until)),
                (Patience::Creation, Some(_)) | (Patience::Removal, _) => self.wait(None),
                _ => Ask::No(trouble),
            },
            State::Open { probe_at } if *probe_at <= now => self.begin_probe(now),
            State::Open { probe_at } => match patience {
                Patience::Removal => {
                    let probe_at = *probe_at;
                    self.wait(Some(probe_at))
                }
                Patience::Read | Patience::Creation => Ask::No(trouble),
            },
            State::Shut => Ask::No(trouble),
        }
    }

    fn wait(&self, until: Option<Instant>) -> Ask<C> {
        Ask::Wait(self.turned.subscribe(), until)
    }

    fn begin_probe(&mut self, now: Instant) -> Ask<C> {
        // One that was opened by a failure is not likely to be closed by the next probe.
        let trouble = self.trouble.as_ref();
        let is_likely = trouble.is_none_or(|trouble| trouble.may_be_over());
        let task = Arc::new(());
        self.enter(State::Probing {
            awaited: is_likely.then(|| now + self.patience),
            task: Arc::downgrade(&task),
        });
        Ask::Probe(task)
    }

    /// The probe was answered.
    pub(super) fn probed(&mut self, connection: C, number: u64, now: Instant) -> Option<Turn> {
        if matches!(self.state, State::Shut) {
            return None;
        }
        self.enter(State::Closed {
            connection,
            number,
            since: now,
            heard: now,
            silence: None,
        });
        self.tell(Turn::Closed)
    }

    /// The probe has failed. The next one is not before a pause, whose length differs from node to
    /// node.
    pub(super) fn failed(&mut self, trouble: Trouble, now: Instant, jitter: f64) -> Option<Turn> {
        if matches!(self.state, State::Shut) {
            return None;
        }
        self.open(trouble, now + PAUSE.mul_f64(1.0 - jitter / 2.0))
    }

    /// An operation was answered.
    pub(super) fn answered(&mut self, asked: u64, now: Instant) {
        if let State::Closed { number, heard, .. } = &mut self.state
            && *number == asked
        {
            *heard = now;
        }
    }

    /// An operation that began then had no answer. Says whether the server has become silent by that:
    /// it has said nothing at all for as long as a read may take.
    pub(super) fn unanswered(&mut self, asked: u64, began: Instant, now: Instant) -> Option<Turn> {
        let patience = self.patience;
        match &mut self.state {
            State::Closed {
                number,
                heard,
                silence: silence @ None,
                ..
            } if *number == asked => {
                let since = began.max(*heard);
                let silent = now.saturating_duration_since(since);
                if silent < patience {
                    return None;
                }
                let trouble = Arc::new(Trouble::Silent(silent));
                self.trouble = Some(Arc::clone(&trouble));
                *silence = Some(Silence {
                    since,
                    trouble,
                    task: Weak::new(),
                });
                self.show();
                self.tell(Turn::Opened)
            }
            _ => None,
        }
    }

    /// A silent server has answered in time.
    pub(super) fn resumed(&mut self, asked: u64, now: Instant) -> Option<Turn> {
        match &mut self.state {
            State::Closed {
                number,
                heard,
                silence: silence @ Some(_),
                ..
            } if *number == asked => {
                (*silence, *heard) = (None, now);
                self.show();
                self.tell(Turn::Closed)
            }
            _ => None,
        }
    }

    /// A connection is of no use any more. Says whether it was the one that is up.
    pub(super) fn lost(&mut self, asked: u64, trouble: Trouble, now: Instant) -> bool {
        let is_up = self.number() == Some(asked);
        if is_up {
            self.open(trouble, now);
        }
        is_up
    }

    /// The connection that is up, if it has this number, whether its server is silent or not.
    pub(super) fn connection(&self, asked: u64) -> Option<C> {
        match &self.state {
            State::Closed {
                connection, number, ..
            } if *number == asked => Some(connection.clone()),
            _ => None,
        }
    }

    /// Tells when something has changed.
    pub(super) fn turns(&self) -> watch::Receiver<()> {
        self.turned.subscribe()
    }

    /// Which connection is up.
    pub(super) const fn number(&self) -> Option<u64> {
        match &self.state {
            State::Closed { number, .. } => Some(*number),
            _ => None,
        }
    }

    /// Since when it is.
    pub(super) const fn since(&self) -> Option<Instant> {
        match &self.state {
            State::Closed { since, .. } => Some(*since),
            _ => None,
        }
    }

    /// When the next probe is due.
    pub(super) const fn probe_at(&self) -> Option<Instant> {
        match &self.state {
            State::Open { probe_at } => Some(*probe_at),
            _ => None,
        }
    }

    /// Why it is open.
    pub(super) fn trouble(&self) -> Option<Arc<Trouble>> {
        self.trouble.clone()
    }

    /// Opens it for good.
    pub(super) fn shut(&mut self) {
        self.trouble = Some(Arc::new(Trouble::Left));
        self.enter(State::Shut);
    }

    fn enter(&mut self, state: State<C>) {
        self.state = state;
        self.show();
    }

    fn show(&mut self) {
        self.shown.enter(match self.state {
            State::Closed { silence: None, .. } => Some(0),
            State::Probing { .. } => Some(1),
            State::Open { .. }
            | State::Closed {
                silence: Some(_), ..
            } => Some(2),
            State::Shut => None,
        });
        self.turned.send_replace(());
    }

    fn open(&mut self, trouble: Trouble, probe_at: Instant) -> Option<Turn> {
        self.trouble = Some(Arc::new(trouble));
        self.enter(State::Open { probe_at });
        self.tell(Turn::Opened)
    }

    fn tell(&mut self, turn: Turn) -> Option<Turn> {
        let is_news = self.told != Some(turn);
        self.told = Some(turn);
        is_news.then_some(turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(50);
    const SOON: Duration = Duration::from_millis(1);

    fn breaker() -> (Breaker<()>, Instant) {
        let now = Instant::now();
        (Breaker::new(PATIENCE, now), now)
    }

    fn read(breaker: &mut Breaker<()>, now: Instant) -> Ask<()> {
        breaker.ask(now, Patience::Read, None)
    }

    /// Starts the probe that is due.
    fn probe(breaker: &mut Breaker<()>, now: Instant) -> Arc<()> {
        match read(breaker, now) {
            Ask::Probe(task) => task,
            other => panic!("{other:?}"),
        }
    }

    fn closed(number: u64) -> (Breaker<()>, Instant) {
        let (mut breaker, now) = breaker();
        let _task = probe(&mut breaker, now);
        assert_eq!(breaker.probed((), number, now), Some(Turn::Closed));
        (breaker, now)
    }

    /// One whose server has been silent since `now`, and what listens to it.
    fn silent() -> (Breaker<()>, Instant, Arc<()>) {
        let (mut breaker, now) = closed(1);
        let turn = breaker.unanswered(1, now, now + PATIENCE);
        assert_eq!(turn, Some(Turn::Opened));
        match read(&mut breaker, now) {
            Ask::Listen(task, 1) => (breaker, now, task),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_probes_and_the_others_wait_for_a_moment() {
        let (mut breaker, now) = breaker();
        let _task = probe(&mut breaker, now);
        let until = now + PATIENCE;
        assert!(matches!(read(&mut breaker, now), Ask::Wait(_, Some(at)) if at == until));
        assert!(
            matches!(read(&mut breaker, until), Ask::No(None)),
            "waited enough"
        );
        breaker.probed((), 1, now);
        assert!(matches!(read(&mut breaker, until), Ask::Through((), 1)));
    }

    #[test]
    fn silence_counts_in_time() {
        let (mut breaker, now) = closed(1);
        for _ in 0..100 {
            let turn = breaker.unanswered(1, now, now + PATIENCE - SOON);
            assert_eq!(turn, None, "however many they are");
        }
        breaker.answered(1, now + SOON);
        let turn = breaker.unanswered(1, now, now + PATIENCE);
        assert_eq!(turn, None, "something came back meanwhile");
        breaker.answered(7, now + SOON * 2);
        let turn = breaker.unanswered(7, now, now + PATIENCE * 9);
        assert_eq!(turn, None, "of another connection");
        let turn = breaker.unanswered(1, now, now + SOON + PATIENCE);
        assert_eq!(turn, Some(Turn::Opened));
        let turn = breaker.unanswered(1, now, now + PATIENCE * 2);
        assert_eq!(turn, None, "it is known");
    }

    #[test]
    fn a_silent_server_keeps_its_connection_and_is_asked_again_when_it_answers_in_time() {
        let (mut breaker, now, _task) = silent();
        assert!(matches!(read(&mut breaker, now), Ask::No(Some(_))));
        assert_eq!(
            (breaker.number(), breaker.connection(1)),
            (Some(1), Some(()))
        );
        breaker.answered(1, now + PATIENCE * 2);
        assert!(
            matches!(read(&mut breaker, now), Ask::No(Some(_))),
            "an answer that came late"
        );
        assert_eq!(breaker.resumed(7, now), None, "of another connection");
        assert_eq!(breaker.resumed(1, now + PATIENCE * 3), Some(Turn::Closed));
        assert!(matches!(read(&mut breaker, now), Ask::Through((), 1)));
        assert_eq!(breaker.resumed(1, now), None);
    }

    #[test]
    fn changes_wait_for_a_silent_server() {
        let (mut breaker, now, _task) = silent();
        let stall = now + PATIENCE * STALL;
        let creation = breaker.ask(now, Patience::Creation, None);
        assert!(matches!(creation, Ask::Wait(_, Some(until)) if until == stall));
        let creation = breaker.ask(stall, Patience::Creation, None);
        assert!(matches!(creation, Ask::No(Some(_))), "it is away");
        let removal = breaker.ask(stall, Patience::Removal, None);
        let Ask::Wait(turned, None) = removal else {
            panic!("{removal:?}");
        };
        assert!(!turned.has_changed().unwrap());
        breaker.resumed(1, stall);
        assert!(turned.has_changed().unwrap());
    }

    #[test]
    fn what_ends_with_its_runtime_is_begun_again() {
        let (mut breaker, now, task) = silent();
        drop(task);
        assert!(matches!(read(&mut breaker, now), Ask::Listen(_, 1)));
        let (mut breaker, now) = self::breaker();
        drop(probe(&mut breaker, now));
        let _task = probe(&mut breaker, now);
        assert!(matches!(read(&mut breaker, now), Ask::Wait(..)));
    }

    #[test]
    fn a_server_without_standing_is_not_asked() {
        let (mut breaker, now) = closed(1);
        let lapsed = || Some(Trouble::Stale(PATIENCE));
        for patience in [Patience::Read, Patience::Creation] {
            let asked = breaker.ask(now, patience, lapsed());
            assert!(matches!(asked, Ask::No(Some(_))), "{asked:?}");
        }
        let removal = breaker.ask(now, Patience::Removal, lapsed());
        assert!(matches!(removal, Ask::Wait(_, Some(until)) if until > now));
        assert!(matches!(read(&mut breaker, now), Ask::Through((), 1)));
    }

    #[test]
    fn changes_wait_for_a_connection() {
        let (mut breaker, now) = closed(1);
        breaker.lost(1, Trouble::Closed, now);
        let _task = probe(&mut breaker, now);
        for patience in [Patience::Creation, Patience::Removal] {
            let late = now + PATIENCE * 9;
            let asked = breaker.ask(late, patience, None);
            assert!(matches!(asked, Ask::Wait(_, None)), "{asked:?}");
        }
        breaker.failed(Trouble::Slow(PATIENCE), now, 0.0);
        let creation = breaker.ask(now, Patience::Creation, None);
        assert!(matches!(creation, Ask::No(Some(_))), "it is away");
        let removal = breaker.ask(now, Patience::Removal, None);
        assert!(matches!(removal, Ask::Wait(_, Some(until)) if until == now + PAUSE));
        let later = now + PAUSE;
        let Ask::Probe(_task) = breaker.ask(later, Patience::Removal, None) else {
            panic!("{breaker:?}");
        };
        let creation = breaker.ask(later, Patience::Creation, None);
        assert!(matches!(creation, Ask::No(Some(_))), "it is away still");
        let removal = breaker.ask(later, Patience::Removal, None);
        assert!(matches!(removal, Ask::Wait(_, None)));
        breaker.shut();
        let removal = breaker.ask(later, Patience::Removal, None);
        assert!(matches!(removal, Ask::No(Some(_))));
    }

    #[test]
    fn a_failed_probe_is_repeated_after_a_pause_that_differs() {
        for (jitter, pause) in [(0.0, PAUSE), (1.0, PAUSE / 2)] {
            let (mut breaker, now) = breaker();
            let _task = probe(&mut breaker, now);
            let turn = breaker.failed(Trouble::Slow(PATIENCE), now, jitter);
            assert_eq!(turn, Some(Turn::Opened));
            assert_eq!(breaker.probe_at(), Some(now + pause));
            let early = now + pause - SOON;
            assert!(matches!(read(&mut breaker, early), Ask::No(Some(_))));
            let _task = probe(&mut breaker, now + pause);
            let turn = breaker.failed(Trouble::Slow(PATIENCE), now, jitter);
            assert_eq!(turn, None, "the log was told");
        }
    }

    #[test]
    fn a_lost_connection_is_probed_for_at_once_and_waited_for() {
        let (mut breaker, now) = closed(1);
        assert!(
            !breaker.lost(7, Trouble::Closed, now),
            "of another connection"
        );
        assert!(breaker.lost(1, Trouble::Closed, now));
        assert!(!breaker.lost(1, Trouble::Closed, now), "already");
        let _task = probe(&mut breaker, now);
        assert!(matches!(read(&mut breaker, now), Ask::Wait(..)));
        assert_eq!(breaker.probed((), 2, now), Some(Turn::Closed));
    }

    #[test]
    fn what_is_shut_stays_shut() {
        let (mut breaker, now) = breaker();
        let _task = probe(&mut breaker, now);
        breaker.shut();
        assert_eq!(breaker.probed((), 1, now), None);
        assert_eq!(breaker.failed(Trouble::Closed, now, 0.0), None);
        assert!(matches!(read(&mut breaker, now + PAUSE * 9), Ask::No(_)));
    }
}
