//! [`Connection`]: a connection to Redis that is replaced when it is lost.

mod open;
mod run;

use crate::cache::deadline::{Deadline, Patience};
use crate::cache::redis::net::breaker::{Ask, Breaker, Transition};
use crate::cache::redis::net::connect_error::{ConnectError, Failure};
use crate::cache::redis::net::lifecycle::Lifecycle;
use crate::cache::redis::net::resolve::{Checked, Located, Resolve};
use crate::coherence::rules::{Rule, kept};
use crate::coherence::trust::Trust;
use crate::telemetry::metrics::{Gap, breaker_opened};
use crate::telemetry::spans;
use crate::types::runtime;
use ::redis::aio::MultiplexedConnection;
use metrics::Counter;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tracing::Instrument;

/// A connection that is made when it is first needed, to the server that it resolves to then.
///
/// redis-rs has a manager that reconnects. Its commands, however, wait for a reconnection outside
/// of any timeout, and timeouts alone never make it reconnect. So the [`Breaker`] decides here.
#[derive(Clone)]
pub(crate) struct Connection {
    inner: Arc<Inner>,
}

struct Inner {
    resolve: Box<dyn Resolve>,
    /// `None` for operations alone, without a node.
    lifecycle: Option<Arc<dyn Lifecycle<Connection>>>,
    deadline: Duration,
    breaker: Mutex<Breaker<MultiplexedConnection>>,
    opened: Counter,
}

/// A connection that another one keeps alive.
#[derive(Clone)]
pub(crate) struct WeakConnection {
    inner: Weak<Inner>,
}

/// How long to wait before asking the sentinels again, when too few of them have answered.
const UNKNOWN: Duration = Duration::from_millis(50);

impl Connection {
    pub(crate) fn new(
        resolve: impl Resolve + 'static,
        lifecycle: Option<Arc<dyn Lifecycle<Self>>>,
        deadline: Duration,
    ) -> Self {
        let inner = Arc::new(Inner {
            resolve: Box::new(resolve),
            lifecycle,
            deadline,
            breaker: Mutex::new(Breaker::new(deadline, Instant::now())),
            opened: breaker_opened(),
        });
        Self { inner }
    }

    pub(crate) fn downgrade(&self) -> WeakConnection {
        WeakConnection {
            inner: Arc::downgrade(&self.inner),
        }
    }

    /// Begins to connect, if there is a runtime.
    pub(crate) fn begin(&self) {
        if runtime::check().is_ok() {
            let _ = self.inner.ask(Patience::Read, Instant::now());
        }
    }

    /// Checks whether this session's connection is up.
    pub(crate) fn is(&self, session: u64) -> bool {
        self.inner.breaker().number() == Some(session)
    }

    /// Returns the session number of the connection that is up.
    pub(crate) fn session(&self) -> Option<u64> {
        self.inner.breaker().number()
    }

    /// Returns since when the connection has been up.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.inner.breaker().since()
    }

    /// Gives up the connection of this session, if it is still up. A new one is made.
    pub(crate) fn give_up(&self, session: u64, error: ConnectError) {
        self.inner.lost(session, error);
    }

    /// Runs `action` if this session's connection is up, which it stays meanwhile.
    pub(crate) fn while_up(&self, session: u64, action: impl FnOnce()) {
        let breaker = self.inner.breaker();
        if breaker.number() == Some(session) {
            action();
        }
    }

    /// Checks whether this session's connection is up. Gives it up first if its server has had no
    /// standing for one term of trust.
    pub(crate) fn is_alive(&self, session: u64) -> bool {
        self.inner.give_up_if_stale(Instant::now());
        self.is(session)
    }

    /// Checks whether connections still go to this server.
    pub(crate) async fn check(&self, from: &Located) -> Checked {
        self.inner.resolve.check(from).await
    }

    /// Waits until the sentinels have said where the primary is now. If it has moved, gives up the
    /// connection to the old one.
    pub(crate) async fn check_primary(&self, deadline: Deadline) -> Result<(), Failure> {
        let Some(lifecycle) = &self.inner.lifecycle else {
            return Ok(());
        };
        let named = || lifecycle.named().filter(|(number, _)| self.is(*number));
        while let Some((number, located)) = named() {
            match timeout_at(deadline.at(), self.check(&located)).await {
                Ok(Checked::Stays) => break,
                Ok(Checked::Moved) => {
                    self.give_up(number, ConnectError::Another);
                    break;
                }
                Ok(Checked::Unknown) if !deadline.is_over() => sleep(UNKNOWN).await,
                Ok(Checked::Unknown) | Err(_) => return Err(self.inner.not_asked()),
            }
        }
        Ok(())
    }

    /// Returns the connection that is up, even if its server has no standing.
    pub(crate) fn raw(&self) -> Option<MultiplexedConnection> {
        let breaker = self.inner.breaker();
        breaker.connection(breaker.number()?)
    }

    /// Closes the connection for good.
    pub(crate) fn close(&self) {
        self.inner.breaker().shut();
    }
}

impl WeakConnection {
    pub(crate) fn upgrade(&self) -> Option<Connection> {
        let inner = self.inner.upgrade()?;
        Some(Connection { inner })
    }
}

impl Inner {
    fn breaker(&self) -> MutexGuard<'_, Breaker<MultiplexedConnection>> {
        // Each change of it is complete, so a panic in another thread leaves it valid.
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the failure of an operation that had no connection.
    fn not_asked(&self) -> Failure {
        Failure::NotAsked(self.breaker().last_error())
    }

    /// Returns what a caller has to do at `now`. Starts the probe or the listener that is due.
    fn ask(self: &Arc<Self>, patience: Patience, now: Instant) -> Ask<MultiplexedConnection> {
        let stale = self.stale(now);
        if stale.is_some() {
            self.give_up_if_stale(now);
        }
        let ask = self.breaker().ask(now, patience, stale.clone());
        match ask {
            Ask::Probe(task) => {
                tokio::spawn(Arc::clone(self).probe(task).instrument(spans::connect()));
            }
            Ask::Listen(task, number) => {
                tokio::spawn(open::listen(Arc::downgrade(self), number, task));
            }
            ask => return ask,
        }
        let mut breaker = self.breaker();
        match breaker.ask(now, patience, stale) {
            // A runtime that shuts down ends the new task at once. Another task would end so, too.
            Ask::Probe(_) | Ask::Listen(..) => Ask::No(breaker.last_error()),
            ask => ask,
        }
    }

    /// Returns the standing of the server, and how long each of its proofs is valid.
    fn standing(&self) -> Option<(&Trust, Duration)> {
        self.lifecycle
            .as_ref()
            .map(|lifecycle| lifecycle.standing())
    }

    /// Returns an error if the connected server has no standing.
    fn stale(&self, now: Instant) -> Option<ConnectError> {
        let (trust, term) = self.standing()?;
        let holds = trust.holds(now) || !kept(Rule::NoReadWithoutStanding);
        (!holds).then_some(ConnectError::Stale(term))
    }

    /// Returns when the connection has to be given up: one term of trust after the standing of its
    /// server ends.
    fn stale_at(&self) -> Option<Instant> {
        let (trust, term) = self.standing()?;
        Some(trust.verified_until()? + term)
    }

    /// Gives up a connection whose server has had no standing for one term of trust.
    fn give_up_if_stale(self: &Arc<Self>, now: Instant) {
        let number = self.breaker().number();
        if let (Some(number), Some((trust, term))) = (number, self.standing())
            && let Some(until) = trust.verified_until()
            && until + term <= now
        {
            self.lost(number, ConnectError::Stale(term));
        }
    }

    /// Gives up the connection of this session, if it is still up. A new one is made.
    fn lost(self: &Arc<Self>, session: u64, error: ConnectError) {
        let gap = error.gap();
        let was_up = self.breaker().lost(session, error, Instant::now());
        if was_up {
            self.down(session, Some(gap));
            self.opened(Some(Transition::Opened));
        }
    }

    fn down(&self, number: u64, gap: Option<Gap>) {
        if let Some(lifecycle) = &self.lifecycle {
            lifecycle.down(number, gap);
        }
    }

    /// Reports that the breaker has opened, and schedules the next probe: a node needs its
    /// connection even if no caller asks.
    fn opened(self: &Arc<Self>, transition: Option<Transition>) {
        let (probe_at, error) = {
            let breaker = self.breaker();
            (breaker.probe_at(), breaker.last_error())
        };
        if transition == Some(Transition::Opened) {
            self.opened.increment(1);
            if let Some(error) = &error {
                tracing::warn!(%error, "Redis is not asked until it answers again");
            }
        }
        if let (Some(at), false, Ok(runtime)) =
            (probe_at, self.lifecycle.is_none(), Handle::try_current())
        {
            let inner = Arc::downgrade(self);
            runtime.spawn(async move {
                sleep_until(at).await;
                if let Some(inner) = inner.upgrade() {
                    let _ = inner.ask(Patience::Read, Instant::now());
                }
            });
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("resolve", &self.inner.resolve)
            .field("deadline", &self.inner.deadline)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::redis::net::address::Address;
    use std::future::pending;
    use std::sync::mpsc;
    use std::thread;
    use tokio::runtime::Builder;

    /// Asks for the connection when it is dropped, as a node's task may do while its runtime shuts
    /// down.
    struct AskOnDrop(Connection);

    impl Drop for AskOnDrop {
        fn drop(&mut self) {
            let _ = self.0.inner.ask(Patience::Read, Instant::now());
        }
    }

    #[test]
    fn a_runtime_that_shuts_down_is_not_kept_by_a_probe() {
        let Ok(Address::One(server)) = Address::parse("redis://127.0.0.1:1") else {
            panic!("an address of one server");
        };
        let (ended, end) = mpsc::channel();
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let connection = Connection::new(server, None, Duration::from_millis(50));
            let task = AskOnDrop(connection);
            runtime.spawn(async move {
                pending::<()>().await;
                drop(task);
            });
            drop(runtime);
            ended.send(()).unwrap();
        });
        let patience = Duration::from_secs(20);
        end.recv_timeout(patience).expect("the runtime ends");
    }
}
