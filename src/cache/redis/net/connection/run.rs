//! How commands run on a connection, and what their answers say about it.

use super::open::CONNECT;
use super::{Connection, Inner};
use crate::cache::deadline::{Deadline, Patience};
use crate::cache::redis::net::breaker::Ask;
use crate::cache::redis::net::connect_error::{ConnectError, Failure, failed};
use crate::cache::redis::net::in_time::{Late, in_time};
use crate::telemetry::spans;
use crate::types::Error;
use ::redis::aio::MultiplexedConnection;
use ::redis::{Pipeline, RedisResult, Value};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tracing::Instrument;

/// The replies as the server has sent them, one for each command.
type RawReplies = Vec<RedisResult<Value>>;

/// A connection that may be used now.
struct Ready {
    connection: MultiplexedConnection,
    number: u64,
    /// When the breaker said so. The operation begins at the same moment.
    began: Instant,
}

impl Connection {
    /// Returns the deadline of a read that begins now.
    fn deadline(&self) -> Deadline {
        Deadline::new(self.inner.deadline, Patience::Read)
    }

    /// Returns the connection itself, for work that takes longer than the deadline.
    pub(crate) async fn get(&self) -> Result<MultiplexedConnection, Failure> {
        Ok(self.inner.get(self.deadline()).await?.connection)
    }

    /// Runs a pipeline within the deadline of a read. Each command fails or succeeds by itself.
    pub(crate) async fn run(
        &self,
        operation: &'static str,
        pipeline: &mut Pipeline,
    ) -> Result<RawReplies, Error> {
        self.run_within(operation, pipeline, self.deadline()).await
    }

    /// Runs a pipeline as [`run`](Self::run) does, within the caller's deadline.
    pub(crate) async fn run_within(
        &self,
        operation: &'static str,
        pipeline: &mut Pipeline,
        deadline: Deadline,
    ) -> Result<RawReplies, Error> {
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
    ) -> Result<(RawReplies, u64), Failure> {
        let inner = &self.inner;
        let ready = inner.get(deadline).await?;
        let (mut connection, number) = (ready.connection, ready.number);
        let answer = pipeline.ignore_errors().query_async(&mut connection);
        let answer = in_time(deadline.at(), answer);
        let answer = match deadline.patience() {
            Patience::Read => answer.await,
            Patience::Creation | Patience::Removal => inner.unless_lost(number, answer).await?,
        };
        match answer {
            Ok(replies) => Ok((inner.answered(number, replies)?, number)),
            Err(late) => {
                if late == Late::Silent {
                    inner.unanswered(number, ready.began);
                }
                let waited = ready.began.elapsed().as_millis() as u64;
                Err(Failure::Timeout(Duration::from_millis(waited)))
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
    ) -> Result<RawReplies, Failure> {
        let span = spans::redis(operation, pipeline.len());
        let inner = &self.inner;
        let run = async {
            let connection = inner.breaker().connection(session);
            let mut connection = connection.ok_or(Failure::NotAsked(None))?;
            let end = inner.stale_at().unwrap_or_else(|| Instant::now() + CONNECT);
            let answer = pipeline.ignore_errors().query_async(&mut connection);
            let answer = inner.unless_lost(session, timeout_at(end, answer)).await?;
            match answer {
                Ok(replies) => inner.answered(session, replies),
                Err(_) => {
                    inner.give_up_if_stale(Instant::now());
                    Err(inner.not_asked())
                }
            }
        };
        let done = run.instrument(span.clone()).await;
        spans::failed(&span, done.as_ref().err());
        done
    }
}

impl Inner {
    /// Waits until there is a connection that may be used, and returns it.
    async fn get(self: &Arc<Self>, deadline: Deadline) -> Result<Ready, Failure> {
        loop {
            let now = Instant::now();
            match self.ask(deadline.patience(), now) {
                Ask::Connected(connection, number) => {
                    return Ok(Ready {
                        connection,
                        number,
                        began: now,
                    });
                }
                Ask::No(error) => return Err(Failure::NotAsked(error)),
                Ask::Probe(_) | Ask::Listen(..) => {}
                Ask::Wait(mut transitions, until) => {
                    let end = until.map_or(deadline.at(), |until| until.min(deadline.at()));
                    let _ = timeout_at(end, transitions.changed()).await;
                    if deadline.is_over() {
                        return Err(self.not_asked());
                    }
                }
            }
        }
    }

    /// Waits for an answer until the connection is given up: then the answer may never come.
    async fn unless_lost<T>(
        &self,
        number: u64,
        answer: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        let mut transitions = self.breaker().transitions();
        let mut answer = pin!(answer);
        loop {
            let lost = {
                let breaker = self.breaker();
                (breaker.number() != Some(number)).then(|| breaker.last_error())
            };
            if let Some(error) = lost {
                return Err(Failure::Lost(error));
            }
            tokio::select! {
                biased;
                answer = &mut answer => return Ok(answer),
                _ = transitions.changed() => {}
            }
        }
    }

    /// Returns the replies, and notes what they say about the connection.
    fn answered(
        self: &Arc<Self>,
        number: u64,
        replies: RedisResult<RawReplies>,
    ) -> Result<RawReplies, Failure> {
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
        let now = Instant::now();
        let transition = self.breaker().unanswered(number, began, now);
        if transition.is_some() {
            self.opened(transition);
            // Starts the listener now instead of at the next call.
            let _ = self.ask(Patience::Read, now);
        }
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
