//! One multiplexed connection, and what is done when it is lost.

use super::config::RedisConfig;
use super::purge::Identity;
use super::session::Node;
use crate::Error;
use ::redis::aio::MultiplexedConnection;
use ::redis::io::tcp::TcpSettings;
use ::redis::{
    AsyncConnectionConfig, Client, ErrorKind, IntoConnectionInfo, Pipeline, ProtocolVersion,
    PushInfo, RedisError, RedisResult, Value,
};
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// A connection that is made when it is needed.
///
/// redis-rs has a manager that reconnects, but its commands wait for a reconnection outside of any
/// timeout, and it never reconnects after timeouts alone; so this is a state machine of our own.
#[derive(Clone)]
pub(super) struct Connection {
    line: Arc<Line>,
}

pub(super) struct Line {
    client: Client,
    deadline: Duration,
    state: Mutex<State>,
    /// Whose end of the channel the connection is.
    node: Option<Arc<Node>>,
}

enum State {
    /// Nobody has asked yet, or the line was lost; not to be tried again before `retry_at`.
    Down { retry_at: Instant, hopeful: bool },
    /// A task is connecting. Only where that is `hopeful`, because the server has not failed to
    /// answer just before, is it worth waiting for.
    Connecting {
        hopeful: bool,
        done: watch::Receiver<()>,
    },
    /// Connected. Which connection it is, and how many operations in a row had no answer.
    Up {
        connection: MultiplexedConnection,
        number: u64,
        silent: u32,
    },
    /// Not to be connected again.
    Closed,
}

/// How long connecting may take; nobody waits that long for it.
const CONNECT: Duration = Duration::from_secs(2);
/// How long it may take until a connection is a node's end of the channel; it may have to purge.
const GREETING: Duration = Duration::from_secs(60);
/// How long a server that could not be reached is left alone.
const RETRY: Duration = Duration::from_secs(1);
/// A line without an answer to so many operations in a row is half open: it is made anew.
const MOST_SILENT: u32 = 5;

/// Why an operation failed before Redis could answer.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error("no answer within {deadline:?}; is Redis overloaded, or the timeout too short?")]
    Timeout { deadline: Duration },
    #[error("Redis cannot be reached; it is tried again every {RETRY:?}")]
    Unreachable,
}

/// Why an address is refused, without what was found in it: that may be a secret in a wrong place.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct BadAddress(String);

impl From<RedisError> for BadAddress {
    fn from(error: RedisError) -> Self {
        let text = error.to_string();
        let why = match error.detail() {
            Some(detail) => text.strip_suffix(detail).unwrap_or("it cannot be one"),
            None => &text,
        };
        Self(why.trim_end_matches([':', ' ']).to_owned())
    }
}

pub(super) fn failed(
    operation: &'static str,
    source: impl std::error::Error + Send + Sync + 'static,
) -> Error {
    Error::Cache {
        tier: "redis",
        operation,
        source: Box::new(source),
    }
}

impl Connection {
    pub(super) fn new(config: &RedisConfig) -> Result<Self, Error> {
        let setting = |error: RedisError| Error::Setting {
            setting: "redis url",
            source: Box::new(BadAddress::from(error)),
        };
        let info = config
            .url
            .as_str()
            .into_connection_info()
            .map_err(setting)?;
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let client = Client::open(info).map_err(setting)?;
        Ok(Self {
            line: Arc::new(Line {
                client,
                deadline: config.timeout,
                state: Mutex::new(State::Down {
                    retry_at: Instant::now(),
                    hopeful: true,
                }),
                node: None,
            }),
        })
    }

    /// The same line, as a node's end of the channel: by RESP3, which brings what is published in
    /// order with all else. Begins to connect at once where there is a runtime for it.
    pub(super) fn join(&self, node: Arc<Node>) -> Self {
        let info = self.line.client.get_connection_info().clone();
        let settings = info
            .redis_settings()
            .clone()
            .set_protocol(ProtocolVersion::RESP3);
        let client = Client::open(info.clone().set_redis_settings(settings));
        let line = Arc::new(Line {
            // What could be opened once can be opened again.
            client: client.unwrap_or_else(|_| self.line.client.clone()),
            deadline: self.line.deadline,
            state: Mutex::new(State::Down {
                retry_at: Instant::now(),
                hopeful: true,
            }),
            node: Some(node),
        });
        if Handle::try_current().is_ok() {
            line.step();
        }
        Self { line }
    }

    pub(super) const fn of(line: Arc<Line>) -> Self {
        Self { line }
    }

    /// Whether this is the connection that is up.
    pub(super) fn is(&self, session: u64) -> bool {
        matches!(&*self.line.state(), State::Up { number, .. } if *number == session)
    }

    /// Which connection is up; 0 if none is.
    pub(super) fn session(&self) -> u64 {
        match &*self.line.state() {
            State::Up { number, .. } => *number,
            _ => 0,
        }
    }

    /// Makes the connection anew, if this one is still up.
    pub(super) fn give_up(&self, session: u64) {
        self.line.give_up(session);
    }

    /// Connects no more.
    pub(super) fn close(&self) {
        *self.line.state() = State::Closed;
    }

    /// The connection itself, for what takes longer than the deadline.
    pub(super) async fn get(
        &self,
        operation: &'static str,
    ) -> Result<MultiplexedConnection, Error> {
        let connection = timeout(self.line.deadline, self.line.get()).await;
        match connection {
            Ok(Some((connection, _))) => Ok(connection),
            _ => Err(failed(operation, Unanswered::Unreachable)),
        }
    }

    /// Runs a pipeline, whose commands fail or succeed one by one. Never takes longer than the
    /// deadline; what was sent before it passed may still be executed.
    pub(super) async fn run(
        &self,
        operation: &'static str,
        pipeline: &mut Pipeline,
    ) -> Result<Vec<RedisResult<Value>>, Error> {
        let deadline = self.line.deadline;
        let mut asked = None;
        let answer = timeout(deadline, async {
            let Some((mut connection, number)) = self.line.get().await else {
                return Err(failed(operation, Unanswered::Unreachable));
            };
            asked = Some(number);
            let replies: RedisResult<Vec<RedisResult<Value>>> =
                pipeline.ignore_errors().query_async(&mut connection).await;
            replies.map_err(|error| self.line.lost(number, operation, error))
        });
        match answer.await {
            Ok(answer) => {
                if let (Ok(replies), Some(number)) = (&answer, asked) {
                    self.line.answered(number);
                    if let Some(code) = replies.iter().find_map(demoted) {
                        tracing::warn!(code, "Redis is no primary that can be written to");
                        self.line.give_up(number);
                    }
                }
                answer
            }
            Err(_) => {
                if let Some(number) = asked {
                    self.line.unanswered(number);
                }
                Err(failed(operation, Unanswered::Timeout { deadline }))
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
    fn state(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two of its changes, whoever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection, once there is one. `None` where none can be had.
    async fn get(self: &Arc<Self>) -> Option<(MultiplexedConnection, u64)> {
        let mut done = match self.step() {
            Step::Go(connection, number) => return Some((connection, number)),
            Step::Wait(done) => done,
            Step::GiveUp => return None,
        };
        let _ = done.changed().await;
        match &*self.state() {
            State::Up {
                connection, number, ..
            } => Some((connection.clone(), *number)),
            _ => None,
        }
    }

    fn step(self: &Arc<Self>) -> Step {
        let mut state = self.state();
        match &*state {
            State::Up {
                connection, number, ..
            } => Step::Go(connection.clone(), *number),
            State::Connecting {
                hopeful: true,
                done,
            } => Step::Wait(done.clone()),
            State::Connecting { hopeful: false, .. } | State::Closed => Step::GiveUp,
            State::Down { retry_at, .. } if Instant::now() < *retry_at => Step::GiveUp,
            State::Down { hopeful, .. } => {
                let hopeful = *hopeful;
                let (sender, done) = watch::channel(());
                *state = State::Connecting {
                    hopeful,
                    done: done.clone(),
                };
                tokio::spawn(Arc::clone(self).connect(sender));
                if hopeful {
                    Step::Wait(done)
                } else {
                    Step::GiveUp
                }
            }
        }
    }

    /// Connects, in a task of its own: nobody who gives up waiting takes it along.
    async fn connect(self: Arc<Self>, _done: watch::Sender<()>) {
        let number = fastrand::u64(..);
        let connected = timeout(CONNECT + GREETING, self.open(number)).await;
        let mut state = self.state();
        if matches!(*state, State::Closed) {
            self.leave(number);
            return;
        }
        *state = match connected {
            Ok(Ok((connection, server))) => {
                tracing::info!("connected to Redis");
                if let (Some(node), Some(server)) = (&self.node, server) {
                    node.live(&self, number, server);
                }
                State::Up {
                    connection,
                    number,
                    silent: 0,
                }
            }
            failed => {
                match failed {
                    Ok(Err(error)) => tracing::warn!(%error, "Redis cannot be reached"),
                    _ => tracing::warn!("Redis does not answer while connecting"),
                }
                self.leave(number);
                State::Down {
                    retry_at: Instant::now() + RETRY,
                    hopeful: false,
                }
            }
        };
    }

    async fn open(
        self: &Arc<Self>,
        number: u64,
    ) -> RedisResult<(MultiplexedConnection, Option<Identity>)> {
        // A network that fails while a node greets would otherwise be found out after a minute;
        // operations have a deadline of their own, which is the sooner one.
        let answer = CONNECT.max(self.deadline);
        let mut config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(answer));
        if let Some(node) = &self.node {
            let (channel, line) = (Arc::clone(&node.channel), Arc::downgrade(self));
            config = config.set_push_sender(move |push: PushInfo| {
                if channel.push(number, &push)
                    && let Some(line) = line.upgrade()
                {
                    line.give_up(number);
                }
                Ok::<_, Infallible>(())
            });
        }
        let client = &self.client;
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let timed_out = |_| RedisError::from((ErrorKind::Io, "no answer while connecting"));
        let mut connection = timeout(CONNECT, connecting).await.map_err(timed_out)??;
        let server = match &self.node {
            Some(node) => Some(node.greet(&mut connection, number).await?),
            None => None,
        };
        Ok((connection, server))
    }

    /// A connection is the node's no more.
    fn leave(&self, number: u64) {
        if let Some(node) = &self.node {
            node.channel.disconnected(number);
        }
    }

    fn answered(&self, asked: u64) {
        if let State::Up { number, silent, .. } = &mut *self.state()
            && *number == asked
        {
            *silent = 0;
        }
    }

    fn unanswered(&self, asked: u64) {
        let mut state = self.state();
        if let State::Up { number, silent, .. } = &mut *state
            && *number == asked
        {
            *silent += 1;
            if *silent >= MOST_SILENT {
                tracing::warn!("Redis has stopped answering");
                self.leave(asked);
                *state = State::Down {
                    retry_at: Instant::now(),
                    hopeful: false,
                };
            }
        }
    }

    fn lost(self: &Arc<Self>, asked: u64, operation: &'static str, error: RedisError) -> Error {
        if error.is_unrecoverable_error() {
            self.give_up(asked);
        }
        failed(operation, error)
    }

    /// Makes the connection anew when somebody needs it, if this one is still up; a node of others
    /// needs it at once.
    fn give_up(self: &Arc<Self>, session: u64) {
        let mut state = self.state();
        if !matches!(&*state, State::Up { number, .. } if *number == session) {
            return;
        }
        tracing::warn!("the connection to Redis was lost");
        self.leave(session);
        *state = State::Down {
            retry_at: Instant::now(),
            hopeful: true,
        };
    }
}

enum Step {
    Go(MultiplexedConnection, u64),
    Wait(watch::Receiver<()>),
    GiveUp,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client knows the password.
        f.debug_struct("Connection")
            .field("deadline", &self.line.deadline)
            .finish_non_exhaustive()
    }
}
