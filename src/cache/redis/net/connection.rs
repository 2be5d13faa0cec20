//! How one connection to Redis is made, used, and replaced when it is lost.

use crate::cache::deadline::{Deadline, Patience};
use crate::cache::redis::net::breaker::{Ask, Breaker, Transition};
use crate::cache::redis::net::connect_error::{ConnectError, Failure, failed};
use crate::cache::redis::net::in_time::{Late, in_time};
use crate::cache::redis::net::lifecycle::Lifecycle;
use crate::cache::redis::net::resolve::{Checked, Located, Resolve};
use crate::cache::redis::net::server_info::Identity;
use crate::coherence::trust::Trust;
use crate::telemetry::metrics::{Gap, breaker_opened};
use crate::telemetry::spans;
use crate::types::Error;
use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Pipeline, PushInfo, RedisResult, Value};
use metrics::Counter;
use std::convert::Infallible;
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tracing::{Instrument, Span, field};

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
    lifecycle: Option<Arc<dyn Lifecycle>>,
    deadline: Duration,
    breaker: Mutex<Breaker<MultiplexedConnection>>,
    opened: Counter,
}

/// A connection that another one keeps alive.
#[derive(Clone)]
pub(crate) struct WeakConnection {
    inner: Weak<Inner>,
}

/// How long connecting may take. Callers wait only until their own deadlines.
const CONNECT: Duration = Duration::from_secs(2);
/// How long to wait before asking the sentinels again, when too few of them have answered.
const UNKNOWN: Duration = Duration::from_millis(50);
/// How long a handshake may take. A node may have to purge the server during it.
const HANDSHAKE: Duration = Duration::from_secs(60);

/// The result of a successful probe.
struct Probed {
    connection: MultiplexedConnection,
    located: Located,
    identity: Option<Identity>,
}

type Replies = Vec<RedisResult<Value>>;

impl Connection {
    pub(crate) fn new(
        resolve: impl Resolve + 'static,
        lifecycle: Option<Arc<dyn Lifecycle>>,
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
        if Handle::try_current().is_ok() {
            let _ = self.inner.ask(Patience::Read);
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
    pub(crate) fn give_up(&self, session: u64, trouble: ConnectError) {
        self.inner.lost(session, trouble);
    }

    /// Runs `what` if this session's connection is up, which it stays meanwhile.
    pub(crate) fn while_up(&self, session: u64, what: impl FnOnce()) {
        let breaker = self.inner.breaker();
        if breaker.number() == Some(session) {
            what();
        }
    }

    /// Checks whether this session's connection is up. Gives it up first if its server has had no
    /// standing for one term of trust.
    pub(crate) fn is_alive(&self, session: u64) -> bool {
        self.inner.let_go(Instant::now());
        self.is(session)
    }

    /// Checks whether connections still go to this server.
    pub(crate) async fn check(&self, from: &Located) -> Checked {
        self.inner.resolve.check(from).await
    }

    /// Waits until the sentinels have said where the primary is now. If it has moved, gives up the
    /// connection to the old one.
    pub(crate) async fn stays(&self, deadline: Deadline) -> Result<(), Failure> {
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
                Ok(Checked::Unknown) | Err(_) => {
                    return Err(Failure::NotAsked(self.inner.breaker().trouble()));
                }
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

    /// Returns the deadline of a read that begins now.
    fn deadline(&self) -> Deadline {
        Deadline::new(self.inner.deadline, Patience::Read)
    }

    /// Returns the connection itself, for work that takes longer than the deadline.
    pub(crate) async fn get(&self) -> Result<MultiplexedConnection, Failure> {
        let (connection, _) = self.inner.get(self.deadline()).await?;
        Ok(connection)
    }

    /// Runs a pipeline within the deadline of a read. Each command fails or succeeds by itself.
    pub(crate) async fn run(
        &self,
        operation: &'static str,
        pipeline: &mut Pipeline,
    ) -> Result<Vec<RedisResult<Value>>, Error> {
        self.run_within(operation, pipeline, self.deadline()).await
    }

    /// Runs a pipeline as [`run`](Self::run) does, within the caller's deadline.
    pub(crate) async fn run_within(
        &self,
        operation: &'static str,
        pipeline: &mut Pipeline,
        deadline: Deadline,
    ) -> Result<Vec<RedisResult<Value>>, Error> {
        let span = spans::redis(operation, pipeline.len());
        let done = self.run_until(deadline, pipeline);
        let done = done.instrument(span.clone()).await;
        spans::failed(&span, done.as_ref().err());
        let done = done.map(|(replies, _)| replies);
        done.map_err(|failure| failed(operation, failure))
    }

    /// Runs a pipeline as [`run`](Self::run) does, and returns the number of the connection, too.
    /// Takes no longer than until `deadline`; a command that was sent before may still be executed.
    pub(crate) async fn run_until(
        &self,
        deadline: Deadline,
        pipeline: &mut Pipeline,
    ) -> Result<(Replies, u64), Failure> {
        let inner = &self.inner;
        let (mut connection, number) = inner.get(deadline).await?;
        let began = Instant::now();
        let asked = pipeline.ignore_errors().query_async(&mut connection);
        let asked = in_time(deadline.at(), asked);
        let asked = match deadline.patience() {
            Patience::Read => asked.await,
            Patience::Creation | Patience::Removal => inner.unless_lost(number, asked).await?,
        };
        match asked {
            Ok(replies) => Ok((inner.answered(number, replies)?, number)),
            Err(late) => {
                if late == Late::Silent {
                    inner.unanswered(number, began);
                }
                let waited = Duration::from_millis(began.elapsed().as_millis() as u64);
                Err(Failure::Timeout(waited))
            }
        }
    }

    /// Runs a pipeline on this session's connection, even if its server has no standing: heartbeats
    /// need this, because they give the standing. Waits until the connection is given up.
    pub(crate) async fn run_on(
        &self,
        session: u64,
        operation: &'static str,
        pipeline: &mut Pipeline,
    ) -> Result<Replies, Failure> {
        let span = spans::redis(operation, pipeline.len());
        let inner = &self.inner;
        let run = async {
            let connection = inner.breaker().connection(session);
            let mut connection = connection.ok_or(Failure::NotAsked(None))?;
            let end = inner
                .lapses_at()
                .unwrap_or_else(|| Instant::now() + CONNECT);
            let asked = pipeline.ignore_errors().query_async(&mut connection);
            let replies = inner.unless_lost(session, timeout_at(end, asked)).await?;
            match replies {
                Ok(replies) => inner.answered(session, replies),
                Err(_) => {
                    inner.let_go(Instant::now());
                    Err(Failure::NotAsked(inner.breaker().trouble()))
                }
            }
        };
        let done = run.instrument(span.clone()).await;
        spans::failed(&span, done.as_ref().err());
        done
    }
}

/// Returns the error code of a reply that says this server must not be asked now, not even by
/// reads: its data may be older than its primary's, or than its own once was.
fn demoted(reply: &RedisResult<Value>) -> Option<&str> {
    let code = reply.as_ref().err()?.code()?;
    let codes = [
        "READONLY",
        "LOADING",
        "MASTERDOWN",
        "CLUSTERDOWN",
        "NOREPLICAS",
    ];
    codes.contains(&code).then_some(code)
}

impl Inner {
    fn breaker(&self) -> MutexGuard<'_, Breaker<MultiplexedConnection>> {
        // Each change of it is complete, so a panic in another thread leaves it valid.
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the connection, as soon as there is one that may be asked.
    async fn get(
        self: &Arc<Self>,
        deadline: Deadline,
    ) -> Result<(MultiplexedConnection, u64), Failure> {
        loop {
            match self.ask(deadline.patience()) {
                Ask::Connected(connection, number) => return Ok((connection, number)),
                Ask::No(trouble) => return Err(Failure::NotAsked(trouble)),
                Ask::Probe(_) | Ask::Listen(..) => {}
                Ask::Wait(mut transitions, until) => {
                    let end = until.map_or(deadline.at(), |until| until.min(deadline.at()));
                    let _ = timeout_at(end, transitions.changed()).await;
                    if deadline.is_over() {
                        return Err(Failure::NotAsked(self.breaker().trouble()));
                    }
                }
            }
        }
    }

    /// Returns what a caller has to do now. Starts the probe or the listener that is due.
    fn ask(self: &Arc<Self>, patience: Patience) -> Ask<MultiplexedConnection> {
        let now = Instant::now();
        let lapsed = self.lapsed(now);
        if lapsed.is_some() {
            self.let_go(now);
        }
        loop {
            let asked = self.breaker().ask(now, patience, lapsed.clone());
            match asked {
                Ask::Probe(task) => {
                    tokio::spawn(Arc::clone(self).probe(task).instrument(spans::connect()));
                }
                Ask::Listen(task, number) => {
                    tokio::spawn(listen(Arc::downgrade(self), number, task));
                }
                asked => return asked,
            }
        }
    }

    /// Returns the standing of the server, and how long each of its proofs is valid.
    fn standing(&self) -> Option<(&Trust, Duration)> {
        self.lifecycle
            .as_ref()
            .map(|lifecycle| lifecycle.standing())
    }

    fn down(&self, number: u64, gap: Option<Gap>) {
        if let Some(lifecycle) = &self.lifecycle {
            lifecycle.down(number, gap);
        }
    }

    /// Returns an error if the connected server has no standing.
    fn lapsed(&self, now: Instant) -> Option<ConnectError> {
        let (trust, term) = self.standing()?;
        (!trust.holds(now)).then_some(ConnectError::Stale(term))
    }

    /// Returns when the connection has to be given up: one term of trust after the standing of its
    /// server ends.
    fn lapses_at(&self) -> Option<Instant> {
        let (trust, term) = self.standing()?;
        Some(trust.verified_until()? + term)
    }

    /// Gives up a connection whose server has had no standing for one term of trust.
    fn let_go(self: &Arc<Self>, now: Instant) {
        let number = self.breaker().number();
        if let (Some(number), Some((trust, term))) = (number, self.standing())
            && let Some(until) = trust.verified_until()
            && until + term <= now
        {
            self.lost(number, ConnectError::Stale(term));
        }
    }

    /// Connects. Runs in a task of its own, so a caller that gives up waiting does not end it.
    async fn probe(self: Arc<Self>, _task: Arc<()>) {
        let number = fastrand::u64(1..);
        let probed = timeout(CONNECT + HANDSHAKE, self.open(number)).await;
        let probed = probed.unwrap_or(Err(ConnectError::Slow(HANDSHAKE)));
        let mut breaker = self.breaker();
        match probed {
            Ok(probed) => {
                let transition = breaker.probed(probed.connection, number, Instant::now());
                if breaker.number() != Some(number) {
                    drop(breaker);
                    return self.down(number, None);
                }
                drop(breaker);
                Span::current().record("server", field::debug(&probed.located.server));
                if transition.is_some() {
                    tracing::info!(server = ?probed.located.server, "connected to Redis");
                }
                if let (Some(lifecycle), Some(identity)) = (&self.lifecycle, probed.identity) {
                    let connection = Connection {
                        inner: Arc::clone(&self),
                    };
                    let lifecycle = Arc::clone(lifecycle);
                    lifecycle.up(&connection, number, identity, probed.located);
                }
            }
            Err(trouble) => {
                spans::failed(&Span::current(), Some(&trouble));
                tracing::debug!(error = %trouble, "Redis was probed in vain");
                let transition = breaker.failed(trouble, Instant::now(), fastrand::f64());
                drop(breaker);
                self.down(number, Some(Gap::Failed));
                self.opened(transition);
            }
        }
    }

    async fn open(self: &Arc<Self>, number: u64) -> Result<Probed, ConnectError> {
        let located = timeout(CONNECT, self.resolve.locate()).await;
        let located = located.unwrap_or(Err(ConnectError::Slow(CONNECT)))?;
        let server = match &self.lifecycle {
            None => located.server.clone(),
            Some(_) => located.server.clone().with_pushes(),
        };
        // Bounds each answer in the handshake: a network that fails there would otherwise be
        // noticed only after a minute. Operations have deadlines of their own, which come earlier.
        let answer = CONNECT.max(self.deadline);
        let mut config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(answer));
        if let Some(lifecycle) = &self.lifecycle {
            let (inner, lifecycle) = (Arc::downgrade(self), Arc::downgrade(lifecycle));
            config = config.set_push_sender(move |push: PushInfo| {
                if let (Some(inner), Some(lifecycle)) = (inner.upgrade(), lifecycle.upgrade())
                    && lifecycle.push(number, &push)
                {
                    inner.lost(number, ConnectError::Closed);
                }
                Ok::<_, Infallible>(())
            });
        }
        let client = server.client().map_err(ConnectError::Connecting)?;
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let connected = timeout(CONNECT, connecting).await;
        let connected = connected.map_err(|_| ConnectError::Slow(CONNECT))?;
        let mut connection = connected.map_err(ConnectError::Connecting)?;
        let identity = match &self.lifecycle {
            None => None,
            Some(lifecycle) => {
                let resolve = self.resolve.as_ref();
                let handshake = lifecycle.handshake(&mut connection, number, resolve, &located);
                Some(handshake.await?)
            }
        };
        // A server that answers too slowly for operations is not used.
        let ping = ::redis::cmd("PING");
        let ping = ping.query_async::<Value>(&mut connection);
        let pong = timeout(self.deadline, ping).await;
        pong.map_err(|_| ConnectError::Slow(self.deadline))?
            .map_err(ConnectError::Connecting)?;
        Ok(Probed {
            connection,
            located,
            identity,
        })
    }

    /// Waits for an answer until the connection is given up: then the answer may never come.
    async fn unless_lost<T>(
        &self,
        number: u64,
        asked: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        let mut transitions = self.breaker().transitions();
        let mut asked = pin!(asked);
        loop {
            let is_lost = {
                let breaker = self.breaker();
                (breaker.number() != Some(number)).then(|| breaker.trouble())
            };
            if let Some(trouble) = is_lost {
                return Err(Failure::Lost(trouble));
            }
            tokio::select! {
                biased;
                answer = &mut asked => return Ok(answer),
                _ = transitions.changed() => {}
            }
        }
    }

    /// Returns the replies, and notes what they say about the connection.
    fn answered(
        self: &Arc<Self>,
        number: u64,
        replies: RedisResult<Replies>,
    ) -> Result<Replies, Failure> {
        match replies {
            Ok(replies) => {
                self.breaker().answered(number, Instant::now());
                if let Some(code) = replies.iter().find_map(demoted) {
                    self.lost(number, ConnectError::Demoted(code.to_owned()));
                }
                Ok(replies)
            }
            Err(error) => {
                if error.is_unrecoverable_error() {
                    self.lost(number, ConnectError::Lost(error.clone()));
                }
                Err(Failure::Redis(error))
            }
        }
    }

    /// Notes that an operation, which began at `began`, had no answer.
    fn unanswered(self: &Arc<Self>, number: u64, began: Instant) {
        let transition = self.breaker().unanswered(number, began, Instant::now());
        if transition.is_some() {
            self.opened(transition);
            // Starts the listener now instead of at the next call.
            let _ = self.ask(Patience::Read);
        }
    }

    /// Gives up the connection of this session, if it is still up. A new one is made.
    fn lost(self: &Arc<Self>, session: u64, trouble: ConnectError) {
        let gap = trouble.gap();
        let was_up = self.breaker().lost(session, trouble, Instant::now());
        if was_up {
            self.down(session, Some(gap));
            self.opened(Some(Transition::Opened));
        }
    }

    /// Reports that the breaker has opened, and schedules the next probe: a node needs its
    /// connection even if no caller asks.
    fn opened(self: &Arc<Self>, transition: Option<Transition>) {
        let (probe_at, trouble) = {
            let breaker = self.breaker();
            (breaker.probe_at(), breaker.trouble())
        };
        if transition == Some(Transition::Opened) {
            self.opened.increment(1);
            if let Some(trouble) = &trouble {
                tracing::warn!(error = %trouble, "Redis is not asked until it answers again");
            }
        }
        if let (Some(at), false, Ok(runtime)) =
            (probe_at, self.lifecycle.is_none(), Handle::try_current())
        {
            let inner = Arc::downgrade(self);
            runtime.spawn(async move {
                sleep_until(at).await;
                if let Some(inner) = inner.upgrade() {
                    let _ = inner.ask(Patience::Read);
                }
            });
        }
    }
}

/// Sends `PING` to a silent server, on the connection that there is, until an answer comes in time.
async fn listen(inner: Weak<Inner>, number: u64, _task: Arc<()>) {
    loop {
        let Some((mut connection, patience)) = inner.upgrade().and_then(|inner| {
            let connection = inner.breaker().connection(number)?;
            Some((connection, inner.deadline))
        }) else {
            return;
        };
        let ping = ::redis::cmd("PING");
        let mut pong = pin!(ping.query_async::<Value>(&mut connection));
        let answer = in_time(Instant::now() + patience, pong.as_mut()).await;
        let is_in_time = answer.is_ok();
        // A second `PING` would not be answered before this one.
        let answer = match answer {
            Ok(answer) => answer,
            Err(_) => pong.await,
        };
        let Some(inner) = inner.upgrade() else { return };
        match answer {
            Ok(_) if is_in_time => {
                let transition = inner.breaker().resumed(number, Instant::now());
                if transition.is_some() {
                    tracing::info!("Redis answers again");
                }
                return;
            }
            Ok(_) => {}
            // The heartbeats of a node find out when its connection has to be given up for other
            // errors.
            Err(error) if error.is_unrecoverable_error() || inner.lifecycle.is_none() => {
                return inner.lost(number, ConnectError::Lost(error));
            }
            Err(_) => {}
        }
        drop(inner);
        sleep(patience / 2).await;
    }
}

impl WeakConnection {
    pub(crate) fn upgrade(&self) -> Option<Connection> {
        let inner = self.inner.upgrade()?;
        Some(Connection { inner })
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
