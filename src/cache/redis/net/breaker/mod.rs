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
    last_error: Option<Arc<ConnectError>>,
    /// The last change that was logged.
    logged: Option<Transition>,
    /// How long a read may take. A read waits this long for a probe that is likely to succeed, and
    /// a server that sends nothing for this long is silent.
    patience: Duration,
    /// Tells waiting callers that something has changed.
    transitioned: watch::Sender<()>,
    /// The state in the metrics.
    gauge: OneOf<3>,
}

#[derive(Debug)]
enum State<C> {
    Open {
        probe_at: Instant,
    },
    Probing {
        /// Until when reads wait for the probe, if it is likely to succeed.
        reads_wait_until: Option<Instant>,
        /// Dropped if the probe has ended with its runtime.
        task: Weak<()>,
    },
    Closed {
        connection: C,
        number: u64,
        since: Instant,
        /// When the last answer came.
        last_answer: Instant,
        silence: Option<ServerSilence>,
    },
    /// No connection is made any more.
    Shut,
}

/// The silence of a server.
#[derive(Debug)]
struct ServerSilence {
    since: Instant,
    error: Arc<ConnectError>,
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
            last_error: None,
            logged: None,
            patience,
            transitioned: watch::Sender::new(()),
            gauge: breaker(),
        };
        new.enter(State::Open { probe_at: now });
        new
    }

    /// Returns what a caller has to do now. `stale` is the error if the connected server
    /// has no standing.
    pub(crate) fn ask(
        &mut self,
        now: Instant,
        patience: Patience,
        stale: Option<ConnectError>,
    ) -> Ask<C> {
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
                        Ask::No(Some(Arc::clone(&silence.error)))
                    }
                }
            }
            State::Closed {
                connection, number, ..
            } => match (stale, patience) {
                (None, _) => Ask::Connected(connection.clone(), *number),
                (Some(_), Patience::Removal) => self.wait(Some(now + GLANCE)),
                (Some(error), _) => Ask::No(Some(Arc::new(error))),
            },
            State::Probing { task, .. } if task.strong_count() == 0 => self.begin_probe(now),
            State::Probing {
                reads_wait_until, ..
            } => match (patience, *reads_wait_until) {
                (Patience::Read, Some(until)) if now < until => self.wait(Some(until)),
                (Patience::Creation, Some(_)) | (Patience::Removal, _) => self.wait(None),
                _ => Ask::No(self.last_error.clone()),
            },
            State::Open { probe_at } if *probe_at <= now => self.begin_probe(now),
            State::Open { probe_at } => match patience {
                Patience::Removal => {
                    let probe_at = *probe_at;
                    self.wait(Some(probe_at))
                }
                Patience::Read | Patience::Creation => Ask::No(self.last_error.clone()),
            },
            State::Shut => Ask::No(self.last_error.clone()),
        }
    }

    fn wait(&self, until: Option<Instant>) -> Ask<C> {
        Ask::Wait(self.transitioned.subscribe(), until)
    }

    fn begin_probe(&mut self, now: Instant) -> Ask<C> {
        // After most failures the next probe is not likely to succeed.
        let error = self.last_error.as_ref();
        let is_likely = error.is_none_or(|error| error.may_be_over());
        let task = Arc::new(());
        self.enter(State::Probing {
            reads_wait_until: is_likely.then(|| now + self.patience),
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
            last_answer: now,
            silence: None,
        });
        self.log_once(Transition::Closed)
    }

    /// Opens the breaker: the probe has failed. The next one begins after a pause, which `jitter`
    /// makes different on each node.
    pub(crate) fn failed(
        &mut self,
        error: ConnectError,
        now: Instant,
        jitter: f64,
    ) -> Option<Transition> {
        if matches!(self.state, State::Shut) {
            return None;
        }
        self.open(error, now + PAUSE.mul_f64(1.0 - jitter / 2.0))
    }

    /// Notes that an operation was answered.
    pub(crate) fn answered(&mut self, session: u64, now: Instant) {
        if let State::Closed {
            number,
            last_answer,
            ..
        } = &mut self.state
            && *number == session
        {
            *last_answer = now;
        }
    }

    /// Notes that an operation, which began at `began`, had no answer. The server becomes silent if
    /// it has sent nothing at all for as long as a read may take.
    pub(crate) fn unanswered(
        &mut self,
        session: u64,
        began: Instant,
        now: Instant,
    ) -> Option<Transition> {
        let patience = self.patience;
        match &mut self.state {
            State::Closed {
                number,
                last_answer,
                silence: silence @ None,
                ..
            } if *number == session => {
                let since = began.max(*last_answer);
                let silent = now.saturating_duration_since(since);
                if silent < patience {
                    return None;
                }
                let error = Arc::new(ConnectError::Silent(silent));
                self.last_error = Some(Arc::clone(&error));
                *silence = Some(ServerSilence {
                    since,
                    error,
                    task: Weak::new(),
                });
                self.show();
                self.log_once(Transition::Opened)
            }
            _ => None,
        }
    }

    /// Ends the silence: the server has answered in time.
    pub(crate) fn resumed(&mut self, session: u64, now: Instant) -> Option<Transition> {
        match &mut self.state {
            State::Closed {
                number,
                last_answer,
                silence: silence @ Some(_),
                ..
            } if *number == session => {
                (*silence, *last_answer) = (None, now);
                self.show();
                self.log_once(Transition::Closed)
            }
            _ => None,
        }
    }

    /// Opens the breaker if this connection is up. Returns whether it was.
    pub(crate) fn lost(&mut self, session: u64, error: ConnectError, now: Instant) -> bool {
        let is_up = self.number() == Some(session);
        if is_up {
            self.open(error, now);
        }
        is_up
    }

    /// Returns the connection that is up, if it has this number, even if its server is silent.
    pub(crate) fn connection(&self, session: u64) -> Option<C> {
        match &self.state {
            State::Closed {
                connection, number, ..
            } if *number == session => Some(connection.clone()),
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
    pub(crate) fn last_error(&self) -> Option<Arc<ConnectError>> {
        self.last_error.clone()
    }

    /// Opens the breaker for good.
    pub(crate) fn shut(&mut self) {
        self.last_error = Some(Arc::new(ConnectError::ShutDown));
        self.enter(State::Shut);
    }

    fn enter(&mut self, state: State<C>) {
        self.state = state;
        self.show();
    }

    fn show(&mut self) {
        self.gauge.enter(match self.state {
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

    fn open(&mut self, error: ConnectError, probe_at: Instant) -> Option<Transition> {
        self.last_error = Some(Arc::new(error));
        self.enter(State::Open { probe_at });
        self.log_once(Transition::Opened)
    }

    /// Returns the transition if the log has not reported it yet.
    fn log_once(&mut self, transition: Transition) -> Option<Transition> {
        let is_news = self.logged != Some(transition);
        self.logged = Some(transition);
        is_news.then_some(transition)
    }
}

#[cfg(test)]
mod tests;
