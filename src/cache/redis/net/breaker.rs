//! Whether Redis is asked at all: the circuit breaker of one connection.
//!
//! The breaker is a pure state machine, and the connection does what it says. Closed, there is a
//! connection, and all callers use it. Open, there is none, and no read waits for one. In between,
//! one probe connects and asks; an answer in time closes the breaker. When a connection is lost, a
//! probe starts at once, and callers wait for it for a moment: a server that was only restarted
//! costs no miss.
//!
//! A silent server is not asked, but its connection stays up, so that the channel misses no
//! message. An answer in time ends the silence.

use crate::cache::deadline::Patience;
use crate::cache::redis::net::connect_error::ConnectError;
use crate::telemetry::metrics::{OneOf, breaker};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// The longest pause between a failed probe and the next one.
const PAUSE: Duration = Duration::from_secs(1);

/// How long a creation waits for a server that has just become silent: this many times a read's
/// deadline.
const STALL: u32 = 5;

/// How often a waiting removal checks whether the server has its standing back.
const GLANCE: Duration = Duration::from_millis(10);

/// Decides whether a server is asked.
#[derive(Debug)]
pub(crate) struct Breaker<C> {
    state: State<C>,
    /// Why the breaker opened last.
    trouble: Option<Arc<ConnectError>>,
    /// The last change that was logged.
    told: Option<Transition>,
    /// How long a read may take. A read waits this long for a probe that is likely to succeed, and
    /// a server that sends nothing for this long is silent.
    patience: Duration,
    /// Tells waiting callers that something has changed.
    transitioned: watch::Sender<()>,
    /// The state in the metrics.
    shown: OneOf<3>,
}

#[derive(Debug)]
enum State<C> {
    Open {
        probe_at: Instant,
    },
    Probing {
        /// Until when reads wait for the probe, if it is likely to succeed.
        awaited: Option<Instant>,
        /// Dropped if the probe has ended with its runtime.
        task: Weak<()>,
    },
    Closed {
        connection: C,
        number: u64,
        since: Instant,
        /// When the last answer came.
        heard: Instant,
        silence: Option<Silence>,
    },
    /// No connection is made any more.
    Shut,
}

/// The silence of a server.
#[derive(Debug)]
struct Silence {
    since: Instant,
    trouble: Arc<ConnectError>,
    /// Dropped if the task that waits for the end of the silence has ended with its runtime.
    task: Weak<()>,
}

/// What a caller that wants to ask Redis has to do.
#[derive(Debug)]
pub(crate) enum Ask<C> {
    /// Use this connection, which has this number.
    Connected(C, u64),
    /// Wait until something changes, but no longer than until this time; then ask again.
    Wait(watch::Receiver<()>, Option<Instant>),
    /// Start the probe, which keeps this value until it is over; then ask again.
    Probe(Arc<()>),
    /// Start the task that waits for the end of the silence on the connection with this number. The
    /// task keeps this value until it is over. Then ask again.
    Listen(Arc<()>, u64),
    /// Go on without Redis.
    No(Option<Arc<ConnectError>>),
}

/// A change of the breaker that the log reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transition {
    Closed,
    Opened,
}

impl<C: Clone> Breaker<C> {
    pub(crate) fn new(patience: Duration, now: Instant) -> Self {
        let mut new = Self {
            state: State::Shut,
            trouble: None,
            told: None,
            patience,
            transitioned: watch::Sender::new(()),
            shown: breaker(),
        };
        new.enter(State::Open { probe_at: now });
        new
    }

    /// Returns what a caller has to do now. `lapsed` says why the connected server has no standing,
    /// if it has none.
    pub(crate) fn ask(
        &mut self,
        now: Instant,
        patience: Patience,
        lapsed: Option<ConnectError>,
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
                (None, _) => Ask::Connected(connection.clone(), *number),
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
        Ask::Wait(self.transitioned.subscribe(), until)
    }

    fn begin_probe(&mut self, now: Instant) -> Ask<C> {
        // After most failures the next probe is not likely to succeed.
        let trouble = self.trouble.as_ref();
        let is_likely = trouble.is_none_or(|trouble| trouble.may_be_over());
        let task = Arc::new(());
        self.enter(State::Probing {
            awaited: is_likely.then(|| now + self.patience),
            task: Arc::downgrade(&task),
        });
        Ask::Probe(task)
    }

    /// Closes the breaker: the probe was answered.
    pub(crate) fn probed(
        &mut self,
        connection: C,
        number: u64,
        now: Instant,
    ) -> Option<Transition> {
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
        self.tell(Transition::Closed)
    }

    /// Opens the breaker: the probe has failed. The next one begins after a pause, which `jitter`
    /// makes different on each node.
    pub(crate) fn failed(
        &mut self,
        trouble: ConnectError,
        now: Instant,
        jitter: f64,
    ) -> Option<Transition> {
        if matches!(self.state, State::Shut) {
            return None;
        }
        self.open(trouble, now + PAUSE.mul_f64(1.0 - jitter / 2.0))
    }

    /// Notes that an operation was answered.
    pub(crate) fn answered(&mut self, asked: u64, now: Instant) {
        if let State::Closed { number, heard, .. } = &mut self.state
            && *number == asked
        {
            *heard = now;
        }
    }

    /// Notes that an operation, which began at `began`, had no answer. The server becomes silent if
    /// it has sent nothing at all for as long as a read may take.
    pub(crate) fn unanswered(
        &mut self,
        asked: u64,
        began: Instant,
        now: Instant,
    ) -> Option<Transition> {
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
                let trouble = Arc::new(ConnectError::Silent(silent));
                self.trouble = Some(Arc::clone(&trouble));
                *silence = Some(Silence {
                    since,
                    trouble,
                    task: Weak::new(),
                });
                self.show();
                self.tell(Transition::Opened)
            }
            _ => None,
        }
    }

    /// Ends the silence: the server has answered in time.
    pub(crate) fn resumed(&mut self, asked: u64, now: Instant) -> Option<Transition> {
        match &mut self.state {
            State::Closed {
                number,
                heard,
                silence: silence @ Some(_),
                ..
            } if *number == asked => {
                (*silence, *heard) = (None, now);
                self.show();
                self.tell(Transition::Closed)
            }
            _ => None,
        }
    }

    /// Opens the breaker if this connection is up. Returns whether it was.
    pub(crate) fn lost(&mut self, asked: u64, trouble: ConnectError, now: Instant) -> bool {
        let is_up = self.number() == Some(asked);
        if is_up {
            self.open(trouble, now);
        }
        is_up
    }

    /// Returns the connection that is up, if it has this number, even if its server is silent.
    pub(crate) fn connection(&self, asked: u64) -> Option<C> {
        match &self.state {
            State::Closed {
                connection, number, ..
            } if *number == asked => Some(connection.clone()),
            _ => None,
        }
    }

    /// Returns a receiver that is notified of each change.
    pub(crate) fn transitions(&self) -> watch::Receiver<()> {
        self.transitioned.subscribe()
    }

    /// Returns the number of the connection that is up.
    pub(crate) const fn number(&self) -> Option<u64> {
        match &self.state {
            State::Closed { number, .. } => Some(*number),
            _ => None,
        }
    }

    /// Returns since when the connection has been up.
    pub(crate) const fn since(&self) -> Option<Instant> {
        match &self.state {
            State::Closed { since, .. } => Some(*since),
            _ => None,
        }
    }

    /// Returns when the next probe is due.
    pub(crate) const fn probe_at(&self) -> Option<Instant> {
        match &self.state {
            State::Open { probe_at } => Some(*probe_at),
            _ => None,
        }
    }

    /// Returns why the breaker opened last.
    pub(crate) fn trouble(&self) -> Option<Arc<ConnectError>> {
        self.trouble.clone()
    }

    /// Opens the breaker for good.
    pub(crate) fn shut(&mut self) {
        self.trouble = Some(Arc::new(ConnectError::ShutDown));
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
        self.transitioned.send_replace(());
    }

    fn open(&mut self, trouble: ConnectError, probe_at: Instant) -> Option<Transition> {
        self.trouble = Some(Arc::new(trouble));
        self.enter(State::Open { probe_at });
        self.tell(Transition::Opened)
    }

    fn tell(&mut self, transition: Transition) -> Option<Transition> {
        let is_news = self.told != Some(transition);
        self.told = Some(transition);
        is_news.then_some(transition)
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
        assert_eq!(breaker.probed((), number, now), Some(Transition::Closed));
        (breaker, now)
    }

    /// Returns a breaker whose server has been silent since `now`, and the value that its listener
    /// keeps.
    fn silent() -> (Breaker<()>, Instant, Arc<()>) {
        let (mut breaker, now) = closed(1);
        let transition = breaker.unanswered(1, now, now + PATIENCE);
        assert_eq!(transition, Some(Transition::Opened));
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
        assert!(matches!(read(&mut breaker, until), Ask::Connected((), 1)));
    }

    #[test]
    fn silence_counts_in_time() {
        let (mut breaker, now) = closed(1);
        for _ in 0..100 {
            let transition = breaker.unanswered(1, now, now + PATIENCE - SOON);
            assert_eq!(transition, None, "however many they are");
        }
        breaker.answered(1, now + SOON);
        let transition = breaker.unanswered(1, now, now + PATIENCE);
        assert_eq!(transition, None, "something came back meanwhile");
        breaker.answered(7, now + SOON * 2);
        let transition = breaker.unanswered(7, now, now + PATIENCE * 9);
        assert_eq!(transition, None, "of another connection");
        let transition = breaker.unanswered(1, now, now + SOON + PATIENCE);
        assert_eq!(transition, Some(Transition::Opened));
        let transition = breaker.unanswered(1, now, now + PATIENCE * 2);
        assert_eq!(transition, None, "it is known");
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
        assert_eq!(
            breaker.resumed(1, now + PATIENCE * 3),
            Some(Transition::Closed)
        );
        assert!(matches!(read(&mut breaker, now), Ask::Connected((), 1)));
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
        let Ask::Wait(transitioned, None) = removal else {
            panic!("{removal:?}");
        };
        assert!(!transitioned.has_changed().unwrap());
        breaker.resumed(1, stall);
        assert!(transitioned.has_changed().unwrap());
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
        let lapsed = || Some(ConnectError::Stale(PATIENCE));
        for patience in [Patience::Read, Patience::Creation] {
            let asked = breaker.ask(now, patience, lapsed());
            assert!(matches!(asked, Ask::No(Some(_))), "{asked:?}");
        }
        let removal = breaker.ask(now, Patience::Removal, lapsed());
        assert!(matches!(removal, Ask::Wait(_, Some(until)) if until > now));
        assert!(matches!(read(&mut breaker, now), Ask::Connected((), 1)));
    }

    #[test]
    fn changes_wait_for_a_connection() {
        let (mut breaker, now) = closed(1);
        breaker.lost(1, ConnectError::Closed, now);
        let _task = probe(&mut breaker, now);
        for patience in [Patience::Creation, Patience::Removal] {
            let late = now + PATIENCE * 9;
            let asked = breaker.ask(late, patience, None);
            assert!(matches!(asked, Ask::Wait(_, None)), "{asked:?}");
        }
        breaker.failed(ConnectError::Slow(PATIENCE), now, 0.0);
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
            let transition = breaker.failed(ConnectError::Slow(PATIENCE), now, jitter);
            assert_eq!(transition, Some(Transition::Opened));
            assert_eq!(breaker.probe_at(), Some(now + pause));
            let early = now + pause - SOON;
            assert!(matches!(read(&mut breaker, early), Ask::No(Some(_))));
            let _task = probe(&mut breaker, now + pause);
            let transition = breaker.failed(ConnectError::Slow(PATIENCE), now, jitter);
            assert_eq!(transition, None, "the log was told");
        }
    }

    #[test]
    fn a_lost_connection_is_probed_for_at_once_and_waited_for() {
        let (mut breaker, now) = closed(1);
        assert!(
            !breaker.lost(7, ConnectError::Closed, now),
            "of another connection"
        );
        assert!(breaker.lost(1, ConnectError::Closed, now));
        assert!(!breaker.lost(1, ConnectError::Closed, now), "already");
        let _task = probe(&mut breaker, now);
        assert!(matches!(read(&mut breaker, now), Ask::Wait(..)));
        assert_eq!(breaker.probed((), 2, now), Some(Transition::Closed));
    }

    #[test]
    fn what_is_shut_stays_shut() {
        let (mut breaker, now) = breaker();
        let _task = probe(&mut breaker, now);
        breaker.shut();
        assert_eq!(breaker.probed((), 1, now), None);
        assert_eq!(breaker.failed(ConnectError::Closed, now, 0.0), None);
        assert!(matches!(read(&mut breaker, now + PAUSE * 9), Ask::No(_)));
    }
}
