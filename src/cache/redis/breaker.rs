//! The breaker: whether Redis is asked at all. Pure; the connection does what it says.
//!
//! Closed, there is a connection, and everybody uses it. Open, there is none, and nobody waits for
//! one. In between one probe is under way, which connects and asks; that it was answered in time
//! closes the breaker. A connection that is lost is probed for at once, and for a moment the callers
//! wait for it: a server that has only been restarted costs no miss.

use super::trouble::Trouble;
use crate::metrics::{OneOf, breaker};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// So many operations in a row without an answer open it: the connection is half open, or its server
/// hangs.
pub(super) const MOST_SILENT: u32 = 5;

/// How long after a probe has failed the next one begins, at most.
const PAUSE: Duration = Duration::from_secs(1);

/// Whether a server is asked.
#[derive(Debug)]
pub(super) struct Breaker<C> {
    state: State<C>,
    /// Why it was opened last.
    trouble: Option<Arc<Trouble>>,
    /// What the log was told last.
    told: Option<Turn>,
    /// How long callers wait for a probe that is likely to succeed.
    patience: Duration,
    /// What the metrics are told.
    shown: OneOf<3>,
}

#[derive(Debug)]
enum State<C> {
    Open {
        probe_at: Instant,
    },
    Probing {
        /// Until when callers wait for it.
        awaited: Option<Instant>,
        done: watch::Receiver<()>,
    },
    Closed {
        connection: C,
        number: u64,
        since: Instant,
        silent: u32,
        /// Until when it is believed to be what it was, where that has to be renewed.
        believed: Option<Instant>,
    },
    /// For good.
    Shut,
}

/// What one who wants to ask does.
#[derive(Debug)]
pub(super) enum Ask<C> {
    /// Asks through this connection, which has this number.
    Through(C, u64),
    /// Waits for the probe that is under way, until then at most.
    Wait(watch::Receiver<()>, Instant),
    /// Starts the probe, and drops this when it is over; then it asks again.
    Probe(watch::Sender<()>),
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
            shown: breaker(),
        };
        new.enter(State::Open { probe_at: now });
        new
    }

    /// What one does who wants to ask now.
    pub(super) fn ask(&mut self, now: Instant) -> Ask<C> {
        match &self.state {
            State::Closed {
                connection, number, ..
            } => Ask::Through(connection.clone(), *number),
            State::Probing {
                awaited: Some(until),
                done,
            } if now < *until => Ask::Wait(done.clone(), *until),
            State::Open { probe_at } if *probe_at <= now => {
                // One that was opened by a failure is not likely to be closed by the next probe.
                let is_likely = self
                    .trouble
                    .as_ref()
                    .is_none_or(|trouble| trouble.may_be_over());
                let (sender, done) = watch::channel(());
                self.enter(State::Probing {
                    awaited: is_likely.then(|| now + self.patience),
                    done,
                });
                Ask::Probe(sender)
            }
            State::Probing { .. } | State::Open { .. } | State::Shut => {
                Ask::No(self.trouble.clone())
            }
        }
    }

    /// The probe was answered.
    pub(super) fn probed(
        &mut self,
        connection: C,
        number: u64,
        now: Instant,
        believed: Option<Instant>,
    ) -> Option<Turn> {
        if matches!(self.state, State::Shut) {
            return None;
        }
        self.enter(State::Closed {
            connection,
            number,
            since: now,
            silent: 0,
            believed,
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
    pub(super) fn answered(&mut self, asked: u64) {
        if let State::Closed { number, silent, .. } = &mut self.state
            && *number == asked
        {
            *silent = 0;
        }
    }

    /// So many operations had no answer. Says whether that has opened it.
    pub(super) fn unanswered(&mut self, asked: u64, operations: u32, now: Instant) -> bool {
        match &mut self.state {
            State::Closed { number, silent, .. } if *number == asked => {
                *silent = silent.saturating_add(operations);
                *silent >= MOST_SILENT && self.lost(asked, Trouble::Silent(MOST_SILENT), now)
            }
            _ => false,
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

    /// Its server has shown itself to be what it was.
    pub(super) fn believe(&mut self, asked: u64, until: Instant) {
        if let State::Closed {
            number, believed, ..
        } = &mut self.state
            && *number == asked
        {
            *believed = Some(until);
        }
    }

    /// Whether the connection that is up has not been heard of for too long.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        matches!(&self.state, State::Closed { believed: Some(until), .. } if *until <= now)
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
        self.enter(State::Shut);
    }

    fn enter(&mut self, state: State<C>) {
        self.state = state;
        self.shown.enter(match self.state {
            State::Closed { .. } => Some(0),
            State::Probing { .. } => Some(1),
            State::Open { .. } => Some(2),
            State::Shut => None,
        });
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

    fn breaker() -> (Breaker<()>, Instant) {
        let now = Instant::now();
        (Breaker::new(PATIENCE, now), now)
    }

    /// Starts the probe that is due.
    fn probe(breaker: &mut Breaker<()>, now: Instant) {
        assert!(matches!(breaker.ask(now), Ask::Probe(_)), "{breaker:?}");
    }

    fn closed(number: u64) -> (Breaker<()>, Instant) {
        let (mut breaker, now) = breaker();
        probe(&mut breaker, now);
        assert_eq!(breaker.probed((), number, now, None), Some(Turn::Closed));
        (breaker, now)
    }

    #[test]
    fn one_probes_and_the_others_wait_for_a_moment() {
        let (mut breaker, now) = breaker();
        probe(&mut breaker, now);
        assert!(matches!(breaker.ask(now), Ask::Wait(_, until) if until == now + PATIENCE));
        let late = now + PATIENCE;
        assert!(matches!(breaker.ask(late), Ask::No(None)), "waited enough");
        breaker.probed((), 1, now, None);
        assert!(matches!(breaker.ask(late), Ask::Through((), 1)));
    }

    #[test]
    fn silence_in_a_row_opens_it() {
        let (mut breaker, now) = closed(1);
        for _ in 0..3 {
            for _ in 1..MOST_SILENT {
                assert!(!breaker.unanswered(1, 1, now));
            }
            breaker.answered(1);
        }
        assert!(!breaker.unanswered(7, 9, now), "of another connection");
        for _ in 1..MOST_SILENT {
            assert!(!breaker.unanswered(1, 1, now));
        }
        assert!(breaker.unanswered(1, 1, now));
        assert_eq!(breaker.number(), None);
        probe(&mut breaker, now);
        let refused = breaker.ask(now);
        assert!(
            matches!(refused, Ask::No(Some(_))),
            "nobody waits for one that hangs"
        );
    }

    #[test]
    fn operations_that_went_together_are_silent_together() {
        let (mut breaker, now) = closed(1);
        assert!(!breaker.unanswered(1, MOST_SILENT - 1, now));
        assert!(breaker.unanswered(1, 1, now));
        let (mut breaker, now) = closed(1);
        assert!(breaker.unanswered(1, u32::MAX, now));
    }

    #[test]
    fn a_failed_probe_is_repeated_after_a_pause_that_differs() {
        for (jitter, pause) in [(0.0, PAUSE), (1.0, PAUSE / 2)] {
            let (mut breaker, now) = breaker();
            probe(&mut breaker, now);
            let turn = breaker.failed(Trouble::Slow(PATIENCE), now, jitter);
            assert_eq!(turn, Some(Turn::Opened));
            assert_eq!(breaker.probe_at(), Some(now + pause));
            let early = now + pause - Duration::from_millis(1);
            assert!(matches!(breaker.ask(early), Ask::No(Some(_))));
            probe(&mut breaker, now + pause);
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
        probe(&mut breaker, now);
        assert!(matches!(breaker.ask(now), Ask::Wait(..)));
        assert_eq!(breaker.probed((), 2, now, None), Some(Turn::Closed));
    }

    #[test]
    fn belief_has_to_be_renewed() {
        let (mut breaker, now) = breaker();
        probe(&mut breaker, now);
        let long = Duration::from_secs(2);
        breaker.probed((), 1, now, Some(now + long));
        assert!(!breaker.is_stale(now) && breaker.is_stale(now + long));
        breaker.believe(7, now + long * 3);
        assert!(breaker.is_stale(now + long), "of another connection");
        breaker.believe(1, now + long * 2);
        assert!(!breaker.is_stale(now + long) && breaker.is_stale(now + long * 2));
    }

    #[test]
    fn what_is_shut_stays_shut() {
        let (mut breaker, now) = breaker();
        probe(&mut breaker, now);
        breaker.shut();
        assert_eq!(breaker.probed((), 1, now, None), None);
        assert_eq!(breaker.failed(Trouble::Closed, now, 0.0), None);
        assert!(matches!(breaker.ask(now + PAUSE * 9), Ask::No(_)));
    }
}
