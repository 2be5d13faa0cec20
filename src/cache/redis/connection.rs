//! One multiplexed connection, and what is done when it is lost.

use super::about::Identity;
use super::breaker::{Ask, Breaker, Turn};
use super::in_time::{Late, in_time};
use super::route::{Checked, Located, Route};
use super::session::Node;
use super::shard::Shard;
use super::trouble::{Failure, Trouble, failed};
use crate::Error;
use crate::cache::deadline::{Deadline, Patience};
use crate::coherence::trust::Trust;
use crate::metrics::{Gap, breaker_opened};
use crate::spans;
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
/// How long after too few have said where the primary is they are asked again.
const UNKNOWN: Duration = Duration::from_millis(50);
/// How long it may take until a connection is a node's; it may have to purge.
const GREETING: Duration = Duration::from_secs(60);

/// What a probe brings back.
struct Probed {
    connection: MultiplexedConnection,
    located: Located,
    greeted: Option<Greeted>,
}

/// What is known of a node's server when its connection may be used.
#[derive(Debug)]
pub(super) struct Greeted {
    pub(super) identity: Identity,
}

type Replies = Vec<RedisResult<Value>>;

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
            let _ = self.line.ask(Patience::Read);
        }
    }

    pub(super) const fn of(line: Arc<Line>) -> Self {
        Self { line }
    }

    /// Whether this is the connection that is up.
    pub(super) fn is(&self, session: u64) -> bool {
        self.line.breaker().number() == Some(session)
    }

    /// Which connection is up, if one is.
    pub(super) fn session(&self) -> Option<u64> {
        self.line.breaker().number()
    }

    /// Since when it has been up.
    pub(super) fn since(&self) -> Option<Instant> {
        self.line.breaker().since()
    }

    /// Makes the connection anew, if this one is still up.
    pub(super) fn give_up(&self, session: u64, trouble: Trouble) {
        self.line.lost(session, trouble);
    }

    /// Does this while the connection is up.
    pub(super) fn while_up(&self, session: u64, what: impl FnOnce()) {
        let breaker = self.line.breaker();
        if breaker.number() == Some(session) {
            what();
        }
    }

    /// Whether this is the connection that is up. One whose server has had no standing for as long as
    /// that lasts is made anew.
    pub(super) fn is_alive(&self, session: u64) -> bool {
        self.line.let_go(Instant::now());
        self.is(session)
    }

    /// Sees whether the primary of a cluster is still the one that it was. Says whether to go on.
    pub(super) async fn beat(&self, session: u64, identity: &Identity) -> bool {
        match &self.line.duty {
            Duty::Shard(shard) => shard.beat(self, session, identity).await,
            Duty::Plain | Duty::Channel(_) => false,
        }
    }

    /// Whether connections still go to this server.
    pub(super) async fn check(&self, from: &Located) -> Checked {
        self.line.route.check(from).await
    }

    /// Returns when it is known where the primary is now. If it has moved, the connection to the one
    /// before is made anew.
    pub(super) async fn stays(&self, deadline: Deadline) -> Result<(), Failure> {
        let Duty::Channel(node) = &self.line.duty else {
            return Ok(());
        };
        while let Some((number, located)) = node.located().filter(|(number, _)| self.is(*number)) {
            match timeout_at(deadline.at(), self.check(&located)).await {
                Ok(Checked::Stays) => break,
                Ok(Checked::Moved) => {
                    self.give_up(number, Trouble::Another);
                    break;
                }
                Ok(Checked::Unknown) if !deadline.is_over() => sleep(UNKNOWN).await,
                Ok(Checked::Unknown) | Err(_) => {
                    return Err(Failure::NotAsked(self.line.breaker().trouble()));
                }
            }
        }
        Ok(())
    }

    /// The connection that is up, whatever is known of its server.
    pub(super) fn raw(&self) -> Option<MultiplexedConnection> {
        let breaker = self.line.breaker();
        breaker.connection(breaker.number()?)
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
        let done = self.run_until(deadline, pipeline);
        let done = done.instrument(span.clone()).await;
        spans::failed(&span, done.as_ref().err());
        let done = done.map(|(replies, _)| replies);
        done.map_err(|failure| failed(operation, failure))
    }

    /// As [`run`](Self::run), and says which connection it was. Takes no longer than until `deadline`; what
    /// was sent before may still be executed.
    pub(super) async fn run_until(
        &self,
        deadline: Deadline,
        pipeline: &mut Pipeline,
    ) -> Result<(Replies, u64), Failure> {
        let line = &self.line;
        let (mut connection, number) = line.get(deadline).await?;
        let began = Instant::now();
        let asked = pipeline.ignore_errors().query_async(&mut connection);
        let asked = in_time(deadline.at(), asked);
        let asked = match deadline.patience() {
            Patience::Read => asked.await,
            Patience::Creation | Patience::Removal => line.unless_lost(number, asked).await?,
        };
        match asked {
            Ok(replies) => Ok((line.answered(number, replies)?, number)),
            Err(late) => {
                if late == Late::Silent {
                    line.unanswered(number, began);
                }
                let waited = Duration::from_millis(began.elapsed().as_millis() as u64);
                Err(Failure::Timeout(waited))
            }
        }
    }

    /// Runs a pipeline on the connection that is up, whatever is known of its server, until the
    /// connection is lost: this is how it is found out what is known.
    pub(super) async fn run_on(
        &self,
        session: u64,
        operation: &'static str,
        pipeline: &mut Pipeline,
    ) -> Result<Replies, Failure> {
        let span = spans::redis(operation, pipeline.len());
        let line = &self.line;
        let run = async {
            let connection = line.breaker().connection(session);
            let mut connection = connection.ok_or(Failure::NotAsked(None))?;
            let end = line.lapses_at().unwrap_or_else(|| Instant::now() + CONNECT);
            let asked = pipeline.ignore_errors().query_async(&mut connection);
            let replies = line.unless_lost(session, timeout_at(end, asked)).await?;
            match replies {
                Ok(replies) => line.answered(session, replies),
                Err(_) => {
                    line.let_go(Instant::now());
                    Err(Failure::NotAsked(line.breaker().trouble()))
                }
            }
        };
        let done = run.instrument(span.clone()).await;
        spans::failed(&span, done.as_ref().err());
        done
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

    /// The connection, once there is one that may be asked.
    async fn get(
        self: &Arc<Self>,
        deadline: Deadline,
    ) -> Result<(MultiplexedConnection, u64), Failure> {
        loop {
            match self.ask(deadline.patience()) {
                Ask::Through(connection, number) => return Ok((connection, number)),
                Ask::No(trouble) => return Err(Failure::NotAsked(trouble)),
                Ask::Probe(_) | Ask::Listen(..) => {}
                Ask::Wait(mut turned, until) => {
                    let end = until.map_or(deadline.at(), |until| until.min(deadline.at()));
                    let _ = timeout_at(end, turned.changed()).await;
                    if deadline.is_over() {
                        return Err(Failure::NotAsked(self.breaker().trouble()));
                    }
                }
            }
        }
    }

    /// What a caller does that wants to ask now; what has to be started for it is started here.
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

    /// Why the server that is connected has no standing, if it has none.
    fn lapsed(&self, now: Instant) -> Option<Trouble> {
        let (trust, term) = self.duty.trust()?;
        (!trust.holds(now)).then_some(Trouble::Stale(term))
    }

    /// When the server will have had no standing for as long as that lasts.
    fn lapses_at(&self) -> Option<Instant> {
        let (trust, term) = self.duty.trust()?;
        Some(trust.verified_until()? + term)
    }

    /// Makes a connection anew whose server has had no standing for too long.
    fn let_go(self: &Arc<Self>, now: Instant) {
        let number = self.breaker().number();
        if let (Some(number), Some((trust, term))) = (number, self.duty.trust())
            && let Some(until) = trust.verified_until()
            && until + term <= now
        {
            self.lost(number, Trouble::Stale(term));
        }
    }

    /// Connects, in a task of its own: nobody who gives up waiting takes it along.
    async fn probe(self: Arc<Self>, _task: Arc<()>) {
        let number = fastrand::u64(1..);
        let probed = timeout(CONNECT + GREETING, self.open(number)).await;
        let probed = probed.unwrap_or(Err(Trouble::Slow(GREETING)));
        let mut breaker = self.breaker();
        match probed {
            Ok(probed) => {
                let turn = breaker.probed(probed.connection, number, Instant::now());
                if breaker.number() != Some(number) {
                    drop(breaker);
                    return self.duty.disconnected(number, None);
                }
                drop(breaker);
                Span::current().record("server", field::debug(&probed.located.server));
                if turn.is_some() {
                    tracing::info!(server = ?probed.located.server, "connected to Redis");
                }
                match (&self.duty, probed.greeted) {
                    (Duty::Channel(node), Some(greeted)) => {
                        node.live(&self, number, greeted.identity, probed.located);
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
        let located = timeout(CONNECT, self.route.locate()).await;
        let located = located.unwrap_or(Err(Trouble::Slow(CONNECT)))?;
        let server = match &self.duty {
            Duty::Plain => located.server.clone(),
            Duty::Channel(_) | Duty::Shard(_) => located.server.clone().with_pushes(),
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
            Duty::Channel(node) => {
                let greeting = node.greet(&mut connection, number, &self.route, &located);
                Some(greeting.await?)
            }
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
            located,
            greeted,
        })
    }

    /// Waits for an answer, unless the connection is made anew meanwhile: then it may never come.
    async fn unless_lost<T>(
        &self,
        number: u64,
        asked: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        let mut turned = self.breaker().turns();
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
                _ = turned.changed() => {}
            }
        }
    }

    /// What was answered, and what it says of the connection.
    fn answered(
        self: &Arc<Self>,
        number: u64,
        replies: RedisResult<Replies>,
    ) -> Result<Replies, Failure> {
        match replies {
            Ok(replies) => {
                self.breaker().answered(number, Instant::now());
                if let Some(code) = replies.iter().find_map(demoted) {
                    self.lost(number, Trouble::Demoted(code.to_owned()));
                }
                Ok(replies)
            }
            Err(error) => {
                if error.is_unrecoverable_error() {
                    self.lost(number, Trouble::Lost(error.clone()));
                }
                Err(Failure::Redis(error))
            }
        }
    }

    /// An operation that began then had no answer.
    fn unanswered(self: &Arc<Self>, number: u64, began: Instant) {
        let turn = self.breaker().unanswered(number, began, Instant::now());
        if turn.is_some() {
            self.opened(turn);
            // Begins to listen, whoever asks next or nobody.
            let _ = self.ask(Patience::Read);
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
                    let _ = line.ask(Patience::Read);
                }
            });
        }
    }
}

/// Asks a silent server again and again whether it is there, on the connection that it has, until an
/// answer comes in time.
async fn listen(line: Weak<Line>, number: u64, _task: Arc<()>) {
    loop {
        let Some((mut connection, patience)) = line.upgrade().and_then(|line| {
            let connection = line.breaker().connection(number)?;
            Some((connection, line.deadline))
        }) else {
            return;
        };
        let ping = ::redis::cmd("PING");
        let mut pong = pin!(ping.query_async::<Value>(&mut connection));
        let answer = in_time(Instant::now() + patience, pong.as_mut()).await;
        let is_in_time = answer.is_ok();
        // While one is on its way another one would not be answered sooner.
        let answer = match answer {
            Ok(answer) => answer,
            Err(_) => pong.await,
        };
        let Some(line) = line.upgrade() else { return };
        match answer {
            Ok(_) if is_in_time => {
                let turn = line.breaker().resumed(number, Instant::now());
                if turn.is_some() {
                    tracing::info!("Redis answers again");
                }
                return;
            }
            Ok(_) => {}
            // A node finds out by its heartbeats when a connection is of no use any more.
            Err(error) if error.is_unrecoverable_error() || matches!(line.duty, Duty::Plain) => {
                return line.lost(number, Trouble::Lost(error));
            }
            Err(_) => {}
        }
        drop(line);
        sleep(patience / 2).await;
    }
}

impl Duty {
    /// The standing of the server, and how long each of its proofs is good for.
    fn trust(&self) -> Option<(&Trust, Duration)> {
        match self {
            Self::Plain => None,
            Self::Channel(node) => Some((node.channel.trust(), node.trust)),
            Self::Shard(shard) => Some((&shard.standing, shard.trust())),
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
