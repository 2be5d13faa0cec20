//! One multiplexed connection, and what is done when it is lost.

use super::about::Identity;
use super::address::Server;
use super::breaker::{Ask, Breaker, Turn};
use super::route::Route;
use super::session::Node;
use super::shard::Shard;
use super::trouble::{Failure, Trouble, failed};
use crate::Error;
use crate::cache::deadline::{Deadline, Patience};
use crate::metrics::{Gap, breaker_opened};
use crate::spans;
use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Pipeline, PushInfo, RedisResult, Value};
use metrics::Counter;
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tracing::{Instrument, Span, field};

/// A connection that is made when it is needed, to whatever server its route names then.
///
/// redis-rs has a manager that reconnects, but its commands wait for a reconnection outside of any
/// timeout, and it never reconnects after timeouts alone; so the [`Breaker`] decides here.
#[derive(Clone)]
pub(super) struct Connection {
    line: Arc<Line>,
}

pub(super) struct Line {
    route: Route,
    duty: Duty,
    deadline: Duration,
    breaker: Mutex<Breaker<MultiplexedConnection>>,
    opened: Counter,
}

/// What a connection is for, and so what has to be done before it is used.
#[derive(Debug)]
pub(super) enum Duty {
    /// Operations alone.
    Plain,
    /// Operations, and a node's end of the channel.
    Channel(Arc<Node>),
    /// Operations of a node on one primary of a cluster, whose channel is elsewhere.
    Shard(Shard),
}

/// How long connecting may take; nobody waits that long for it.
const CONNECT: Duration = Duration::from_secs(2);
/// How long it may take until a connection is a node's; it may have to purge.
const GREETING: Duration = Duration::from_secs(60);

/// What a probe brings back.
struct Probed {
    connection: MultiplexedConnection,
    server: Server,
    greeted: Option<Greeted>,
}

/// What is known of a node's server when its connection may be used.
#[derive(Debug)]
pub(super) struct Greeted {
    pub(super) identity: Identity,
    /// When it was still known to be a primary.
    pub(super) seen: Instant,
}

impl Connection {
    pub(super) fn new(route: Route, duty: Duty, deadline: Duration) -> Self {
        let line = Arc::new(Line {
            route,
            duty,
            deadline,
            breaker: Mutex::new(Breaker::new(deadline, Instant::now())),
            opened: breaker_opened(),
        });
        Self { line }
    }

    /// Begins to connect where there is a runtime for it.
    pub(super) fn begin(&self) {
        if Handle::try_current().is_ok() {
            let _ = self.line.ask();
        }
    }

    pub(super) const fn of(line: Arc<Line>) -> Self {
        Self { line }
    }

    /// Whether this is the connection that is up.
    pub(super) fn is(&self, session: u64) -> bool {
        self.line.breaker().number() == Some(session)
    }

    /// Which connection is up; 0 if none is.
    pub(super) fn session(&self) -> u64 {
        self.line.breaker().number().unwrap_or(0)
    }

    /// Since when it has been up.
    pub(super) fn since(&self) -> Option<Instant> {
        self.line.breaker().since()
    }

    /// Makes the connection anew, if this one is still up.
    pub(super) fn give_up(&self, session: u64, trouble: Trouble) {
        self.line.lost(session, trouble);
    }

    /// The server has shown itself to be what it was; it is believed until then.
    pub(super) fn believe(&self, session: u64, until: Instant) {
        self.line.breaker().believe(session, until);
    }

    /// Sees whether the primary of a cluster is still the one that it was. Says whether to go on.
    pub(super) async fn beat(&self, session: u64, identity: &Identity) -> bool {
        match &self.line.duty {
            Duty::Shard(shard) => shard.beat(self, session, identity).await,
            Duty::Plain | Duty::Channel(_) => false,
        }
    }

    /// Whether connections now go to another server than to this one.
    pub(super) async fn has_moved(&self, from: &Server) -> bool {
        self.line.route.has_moved(from).await
    }

    /// Connects no more.
    pub(super) fn close(&self) {
        self.line.breaker().shut();
    }

    /// When an operation that begins now has to be over.
    fn deadline(&self) -> Deadline {
        Deadline::new(self.line.deadline, Patience::Read)
    }

    /// The connection itself, for what takes longer than the deadline.
    pub(super) async fn get(&self) -> Result<MultiplexedConnection, Failure> {
        let (connection, _) = self.line.get(self.deadline()).await?;
        Ok(connection)
    }

    /// Runs a pipeline, whose commands fail or succeed one by one.
    pub(super) async fn run(
        &self,
        operation: &'static str,
        pipeline: &mut Pipeline,
    ) -> Result<Vec<RedisResult<Value>>, Error> {
        self.run_within(operation, pipeline, self.deadline()).await
    }

    /// The same, within a deadline of the caller's.
    pub(super) async fn run_within(
        &self,
        operation: &'static str,
        pipeline: &mut Pipeline,
        deadline: Deadline,
    ) -> Result<Vec<RedisResult<Value>>, Error> {
        let span = spans::redis(operation, pipeline.len());
        let done = self.run_until(deadline, 1, pipeline);
        let done = done.instrument(span.clone()).await;
        spans::failed(&span, done.as_ref().err());
        done.map_err(|failure| failed(operation, failure))
    }

    /// As [`run`](Self::run), for so many operations. Takes no longer; what was sent before may still
    /// be executed.
    pub(super) async fn run_until(
        &self,
        deadline: Deadline,
        operations: u32,
        pipeline: &mut Pipeline,
    ) -> Result<Vec<RedisResult<Value>>, Failure> {
        let line = &self.line;
        let (mut connection, number) = line.get(deadline).await?;
        let asked = pipeline.ignore_errors().query_async(&mut connection);
        let replies: RedisResult<Vec<RedisResult<Value>>> =
            match timeout_at(deadline.at(), asked).await {
                Ok(replies) => replies,
                Err(_) => {
                    line.unanswered(number, operations);
                    return Err(Failure::Timeout(line.deadline));
                }
            };
        match replies {
            Ok(replies) => {
                line.breaker().answered(number);
                if let Some(code) = replies.iter().find_map(demoted) {
                    line.lost(number, Trouble::Demoted(code.to_owned()));
                }
                Ok(replies)
            }
            Err(error) => {
                if error.is_unrecoverable_error() {
                    line.lost(number, Trouble::Lost(error.clone()));
                }
                Err(Failure::Redis(error))
            }
        }
    }
}

/// Whether a reply says that this server should not be asked now, for reads neither: what it has may
/// be older than what its primary has, or than what it once had itself.
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

impl Line {
    fn breaker(&self) -> MutexGuard<'_, Breaker<MultiplexedConnection>> {
        // It is whole between any two of its changes, whoever panicked.
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection, once there is one.
    async fn get(
        self: &Arc<Self>,
        deadline: Deadline,
    ) -> Result<(MultiplexedConnection, u64), Failure> {
        loop {
            match self.ask() {
                Ask::Through(connection, number) => return Ok((connection, number)),
                Ask::No(trouble) => return Err(Failure::NotAsked(trouble)),
                Ask::Probe(_) => {}
                Ask::Wait(mut done, until) => {
                    let _ = timeout_at(until.min(deadline.at()), done.changed()).await;
                    if deadline.is_over() {
                        return Err(Failure::NotAsked(self.breaker().trouble()));
                    }
                }
            }
        }
    }

    /// What one does who wants to ask now; the probe is started here.
    fn ask(self: &Arc<Self>) -> Ask<MultiplexedConnection> {
        let now = Instant::now();
        let mut breaker = self.breaker();
        if let Some(number) = breaker.number()
            && breaker.is_stale(now)
        {
            drop(breaker);
            let trust = self.duty.trust().unwrap_or_default();
            self.lost(number, Trouble::Stale(trust));
            breaker = self.breaker();
        }
        match breaker.ask(now) {
            Ask::Probe(done) => {
                tokio::spawn(Arc::clone(self).probe(done).instrument(spans::connect()));
                breaker.ask(now)
            }
            asked => asked,
        }
    }

    /// Connects, in a task of its own: nobody who gives up waiting takes it along.
    async fn probe(self: Arc<Self>, _done: watch::Sender<()>) {
        let number = fastrand::u64(1..);
        let probed = timeout(CONNECT + GREETING, self.open(number)).await;
        let probed = probed.unwrap_or(Err(Trouble::Slow(GREETING)));
        let mut breaker = self.breaker();
        match probed {
            Ok(probed) => {
                let seen = probed.greeted.as_ref().map(|greeted| greeted.seen);
                let believed = seen
                    .zip(self.duty.trust())
                    .map(|(seen, trust)| seen + trust);
                let turn = breaker.probed(probed.connection, number, Instant::now(), believed);
                if breaker.number() != Some(number) {
                    drop(breaker);
                    return self.duty.disconnected(number, None);
                }
                drop(breaker);
                Span::current().record("server", field::debug(&probed.server));
                if turn.is_some() {
                    tracing::info!(server = ?probed.server, "connected to Redis");
                }
                match (&self.duty, probed.greeted) {
                    (Duty::Channel(node), Some(greeted)) => {
                        node.live(&self, number, greeted.identity, probed.server);
                    }
                    (Duty::Shard(shard), Some(greeted)) => {
                        shard.live(&self, number, greeted.identity);
                    }
                    _ => {}
                }
            }
            Err(trouble) => {
                spans::failed(&Span::current(), Some(&trouble));
                tracing::debug!(error = %trouble, "Redis was probed in vain");
                let turn = breaker.failed(trouble, Instant::now(), fastrand::f64());
                drop(breaker);
                self.duty.disconnected(number, Some(Gap::Failed));
                self.opened(turn);
            }
        }
    }

    async fn open(self: &Arc<Self>, number: u64) -> Result<Probed, Trouble> {
        let server = timeout(CONNECT, self.route.server()).await;
        let server = server.unwrap_or(Err(Trouble::Slow(CONNECT)))?;
        let server = match &self.duty {
            Duty::Plain => server,
            Duty::Channel(_) | Duty::Shard(_) => server.with_pushes(),
        };
        // A network that fails while a node greets would otherwise be found out after a minute;
        // operations have a deadline of their own, which is the sooner one.
        let answer = CONNECT.max(self.deadline);
        let mut config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(answer));
        if !matches!(self.duty, Duty::Plain) {
            let line = Arc::downgrade(self);
            config = config.set_push_sender(move |push: PushInfo| {
                if let Some(line) = line.upgrade()
                    && line.duty.is_over(number, &push)
                {
                    line.lost(number, Trouble::Closed);
                }
                Ok::<_, Infallible>(())
            });
        }
        let client = server.client().map_err(Trouble::Connecting)?;
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let connected = timeout(CONNECT, connecting).await;
        let connected = connected.map_err(|_| Trouble::Slow(CONNECT))?;
        let mut connection = connected.map_err(Trouble::Connecting)?;
        let greeted = match &self.duty {
            Duty::Plain => None,
            Duty::Channel(node) => Some(node.greet(&mut connection, number, &self.route).await?),
            Duty::Shard(shard) => Some(shard.greet(&mut connection, &self.route).await?),
        };
        // Whoever answers too slowly for operations is left alone.
        let ping = ::redis::cmd("PING");
        let ping = ping.query_async::<Value>(&mut connection);
        let pong = timeout(self.deadline, ping).await;
        pong.map_err(|_| Trouble::Slow(self.deadline))?
            .map_err(Trouble::Connecting)?;
        Ok(Probed {
            connection,
            server,
            greeted,
        })
    }

    fn unanswered(self: &Arc<Self>, asked: u64, operations: u32) {
        let is_open = self.breaker().unanswered(asked, operations, Instant::now());
        if is_open {
            self.duty.disconnected(asked, Some(Gap::Silent));
            self.opened(Some(Turn::Opened));
        }
    }

    /// Makes the connection anew, if this one is still up.
    fn lost(self: &Arc<Self>, session: u64, trouble: Trouble) {
        let gap = trouble.gap();
        let was_up = self.breaker().lost(session, trouble, Instant::now());
        if was_up {
            self.duty.disconnected(session, Some(gap));
            self.opened(Some(Turn::Opened));
        }
    }

    /// A node needs its connection whether it is asked or not: the next probe is arranged for.
    fn opened(self: &Arc<Self>, turn: Option<Turn>) {
        let (probe_at, trouble) = {
            let breaker = self.breaker();
            (breaker.probe_at(), breaker.trouble())
        };
        if turn == Some(Turn::Opened) {
            self.opened.increment(1);
            if let Some(trouble) = &trouble {
                tracing::warn!(error = %trouble, "Redis is not asked until it answers again");
            }
        }
        if let (Some(at), false, Ok(runtime)) = (
            probe_at,
            matches!(self.duty, Duty::Plain),
            Handle::try_current(),
        ) {
            let line = Arc::downgrade(self);
            runtime.spawn(async move {
                sleep_until(at).await;
                if let Some(line) = line.upgrade() {
                    let _ = line.ask();
                }
            });
        }
    }
}

impl Duty {
    /// For how long the connection is believed after its server was seen to be a primary.
    fn trust(&self) -> Option<Duration> {
        match self {
            Self::Plain => None,
            Self::Channel(node) => Some(node.channel.term().trust),
            Self::Shard(shard) => Some(shard.trust()),
        }
    }

    /// A connection is no longer up. With a gap, messages may be missed from here on.
    fn disconnected(&self, number: u64, gap: Option<Gap>) {
        match self {
            Self::Plain => {}
            Self::Channel(node) => node.channel.disconnected(number, gap),
            Self::Shard(shard) => shard.disconnected(),
        }
    }

    /// Takes what came by itself; says whether it means that the connection is lost.
    fn is_over(&self, number: u64, push: &PushInfo) -> bool {
        match self {
            Self::Plain => false,
            Self::Channel(node) => node.channel.push(number, push),
            Self::Shard(_) => push.kind == ::redis::PushKind::Disconnection,
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("route", &self.line.route)
            .field("deadline", &self.line.deadline)
            .finish_non_exhaustive()
    }
}
