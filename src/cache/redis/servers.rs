//! The servers that are asked: one, or a cluster's primaries.

use super::cluster::Cluster;
use super::connection::Connection;
use super::purge::{self, Scope};
use super::trouble::{Failure, failed};
use crate::Error;
use crate::cache::deadline::Deadline;
use crate::coherence::through::Through;
use crate::spans;
use ::redis::{Arg, Cmd, Pipeline, Value};
use std::sync::Arc;
use tokio::time::Instant;
use tracing::Instrument;

/// The servers that are asked.
#[derive(Debug)]
pub(super) enum Servers {
    One(Connection),
    Cluster(Arc<Cluster>),
}

/// A command about one key, or about several of one slot.
#[derive(Debug)]
pub(super) struct Command {
    cmd: Cmd,
    /// Which argument is the key.
    key: usize,
}

/// What a command was answered.
pub(super) type Reply = Result<Value, Failure>;

/// The replies of the servers to several commands, and the connections that brought them.
#[derive(Debug, Default)]
pub(super) struct Replies {
    pub(super) each: Vec<Reply>,
    pub(super) through: Through,
}

impl Command {
    /// About the key that is its first argument.
    pub(super) const fn on_first(cmd: Cmd) -> Self {
        Self { cmd, key: 1 }
    }

    /// A script's call: its text or hash, the number of keys, and then the keys.
    pub(super) const fn call(cmd: Cmd) -> Self {
        Self { cmd, key: 3 }
    }

    pub(super) fn key(&self) -> &[u8] {
        match self.cmd.args_iter().nth(self.key) {
            Some(Arg::Simple(key)) => key,
            _ => &[],
        }
    }

    pub(super) const fn cmd(&self) -> &Cmd {
        &self.cmd
    }
}

impl Servers {
    /// The connections that are up.
    pub(super) fn up(&self) -> Through {
        match self {
            Self::One(connection) => {
                let mut through = Through::default();
                through.and(connection.session());
                through
            }
            Self::Cluster(cluster) => cluster.up(),
        }
    }

    /// Whether these connections are up.
    pub(super) fn is_up(&self, through: &Through) -> bool {
        let now = Instant::now();
        match self {
            Self::One(connection) => through.is_up(|number| connection.is(number), now),
            Self::Cluster(cluster) => {
                let up = cluster.numbers();
                through.is_up(|number| up.contains(&number), now)
            }
        }
    }

    /// The same, and whether the primary that sentinels named is it still.
    ///
    /// In a cluster a server that was replaced says so itself, when it has heard of it:
    /// `cluster-node-timeout` bounds how late that is.
    pub(super) async fn stands(
        &self,
        through: &Through,
        deadline: Deadline,
    ) -> Result<bool, Failure> {
        if let Self::One(connection) = self {
            connection.stays(deadline).await?;
        }
        Ok(self.is_up(through))
    }

    /// Since when all the connections have been up that lead to these keys, or to all where none are
    /// named; `None` if that is the node's end of the channel, which knows it.
    pub(super) fn since<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> Option<Instant> {
        match self {
            Self::One(_) => None,
            Self::Cluster(cluster) => Some(cluster.since(keys)),
        }
    }

    /// Runs commands in one round trip, or one for each primary that has some of them, at the same
    /// time. Never takes longer than until `deadline`; what was sent before may still be executed.
    ///
    /// # Errors
    /// If none of them was answered.
    pub(super) async fn run(
        &self,
        operation: &'static str,
        commands: Vec<Command>,
        deadline: Deadline,
    ) -> Result<Replies, Error> {
        let span = spans::redis(operation, commands.len());
        let done = self.round_trip(operation, commands, deadline);
        let done = done.instrument(span.clone()).await;
        spans::failed(&span, done.as_ref().err());
        done
    }

    async fn round_trip(
        &self,
        operation: &'static str,
        commands: Vec<Command>,
        deadline: Deadline,
    ) -> Result<Replies, Error> {
        let replies = match self {
            Self::One(connection) => {
                let mut pipeline = Pipeline::with_capacity(commands.len());
                for command in commands {
                    pipeline.add_command(command.cmd);
                }
                let answered = connection.run_until(deadline, &mut pipeline).await;
                let (replies, number) = answered.map_err(|failure| failed(operation, failure))?;
                let each = replies.into_iter();
                Replies {
                    each: each.map(|reply| reply.map_err(Failure::Redis)).collect(),
                    through: Through::one(number),
                }
            }
            Self::Cluster(cluster) => cluster.run(&commands, deadline).await,
        };
        let is_silent = |reply: &Reply| matches!(reply, Err(failure) if failure.code().is_none());
        match replies.each.first() {
            Some(Err(failure)) if replies.each.iter().all(is_silent) => {
                Err(failed(operation, failure.clone()))
            }
            _ => Ok(replies),
        }
    }

    /// Takes all leases in the scope away, then all entries. Takes as long as it takes.
    pub(super) async fn purge(&self, scope: &Scope<'_>) -> Result<(), Failure> {
        let span = spans::redis("purge", 1);
        let done = self.take_all(scope).instrument(span.clone()).await;
        spans::failed(&span, done.as_ref().err());
        done
    }

    async fn take_all(&self, scope: &Scope<'_>) -> Result<(), Failure> {
        match self {
            Self::One(connection) => {
                let mut connection = connection.get().await?;
                Ok(purge::everything(&mut connection, scope).await?)
            }
            Self::Cluster(cluster) => cluster.purge(scope).await,
        }
    }

    pub(super) fn close(&self) {
        match self {
            Self::One(connection) => connection.close(),
            Self::Cluster(cluster) => cluster.close(),
        }
    }
}
