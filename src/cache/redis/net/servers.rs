//! Where commands are sent: to one server, or to the primaries of a cluster.

use crate::cache::deadline::Deadline;
use crate::cache::redis::net::cluster::Cluster;
use crate::cache::redis::net::connect_error::{Failure, failed};
use crate::cache::redis::net::connection::Connection;
use crate::cache::redis::net::purge::{self, Scope};
use crate::coherence::used_connections::UsedConnections;
use crate::telemetry::spans;
use crate::types::Error;
use ::redis::{Arg, Cmd, Pipeline, Value};
use std::sync::Arc;
use tokio::time::Instant;
use tracing::Instrument;

/// The servers that a cache uses.
#[derive(Debug, Clone)]
pub(crate) enum Servers {
    One(Connection),
    Cluster(Arc<Cluster>),
}

/// A command about one key, or about several keys of one slot.
#[derive(Debug)]
pub(crate) struct KeyedCommand {
    cmd: Cmd,
    /// The position of the key among the arguments.
    key: usize,
}

/// The reply to one command.
pub(crate) type Reply = Result<Value, Failure>;

/// The replies of the servers to several commands, and the connections that brought them.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    pub(crate) each: Vec<Reply>,
    pub(crate) connections: UsedConnections,
}

impl KeyedCommand {
    /// Wraps a command whose first argument is the key.
    pub(crate) const fn on_first(cmd: Cmd) -> Self {
        Self { cmd, key: 1 }
    }

    /// Wraps a script's call. Its arguments are the script's text or hash, the number of keys, and
    /// then the keys.
    pub(crate) const fn call(cmd: Cmd) -> Self {
        Self { cmd, key: 3 }
    }

    pub(crate) fn key(&self) -> &[u8] {
        match self.cmd.args_iter().nth(self.key) {
            Some(Arg::Simple(key)) => key,
            _ => &[],
        }
    }

    pub(crate) const fn cmd(&self) -> &Cmd {
        &self.cmd
    }
}

impl Servers {
    /// Returns the connections that are up.
    pub(crate) fn up(&self) -> UsedConnections {
        match self {
            Self::One(connection) => {
                let mut used = UsedConnections::default();
                used.and(connection.session());
                used
            }
            Self::Cluster(cluster) => cluster.up(),
        }
    }

    /// Checks whether these connections are still up.
    pub(crate) fn is_up(&self, used: &UsedConnections) -> bool {
        let now = Instant::now();
        match self {
            Self::One(connection) => used.is_up(|number| connection.is(number), now),
            Self::Cluster(cluster) => {
                let up = cluster.numbers();
                used.is_up(|number| up.contains(&number), now)
            }
        }
    }

    /// Checks whether these connections are still up, after asking the sentinels whether the
    /// primary is still the same.
    ///
    /// In a cluster, a server that was replaced says so itself once it knows it:
    /// `cluster-node-timeout` bounds how late that is.
    pub(crate) async fn stands(
        &self,
        used: &UsedConnections,
        deadline: Deadline,
    ) -> Result<bool, Failure> {
        if let Self::One(connection) = self {
            connection.check_primary(deadline).await?;
        }
        Ok(self.is_up(used))
    }

    /// Returns since when all connections that lead to these keys have been up; without keys, all
    /// connections. Returns `None` for a single server: its connection is the node's channel, which
    /// knows this itself.
    pub(crate) fn since<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> Option<Instant> {
        match self {
            Self::One(_) => None,
            Self::Cluster(cluster) => Some(cluster.since(keys)),
        }
    }

    /// Runs commands in one round trip, or in one to each primary concerned, at the same time.
    /// Takes no longer than until `deadline`; a command that was sent before may still be executed.
    ///
    /// # Errors
    /// Returns an error if no command was answered.
    pub(crate) async fn run(
        &self,
        operation: &'static str,
        commands: Vec<KeyedCommand>,
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
        commands: Vec<KeyedCommand>,
        deadline: Deadline,
    ) -> Result<Replies, Error> {
        let replies = match self {
            Self::One(connection) => {
                let mut pipeline = Pipeline::with_capacity(commands.len());
                for command in commands {
                    pipeline.add_command(command.cmd);
                }
                let answer = connection.run_until(deadline, &mut pipeline).await;
                let (replies, number) = answer.map_err(|failure| failed(operation, failure))?;
                let each = replies.into_iter();
                Replies {
                    each: each.map(|reply| reply.map_err(Failure::Redis)).collect(),
                    connections: UsedConnections::one(number),
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

    /// Removes all leases in the scope, then all entries. Has no deadline.
    pub(crate) async fn purge(&self, scope: &Scope<'_>) -> Result<(), Failure> {
        let span = spans::redis("purge", 1);
        let done = self.purge_all(scope).instrument(span.clone()).await;
        spans::failed(&span, done.as_ref().err());
        done
    }

    async fn purge_all(&self, scope: &Scope<'_>) -> Result<(), Failure> {
        match self {
            Self::One(connection) => {
                let mut connection = connection.get().await?;
                Ok(purge::everything(&mut connection, scope).await?)
            }
            Self::Cluster(cluster) => cluster.purge(scope).await,
        }
    }

    pub(crate) fn close(&self) {
        match self {
            Self::One(connection) => connection.close(),
            Self::Cluster(cluster) => cluster.close(),
        }
    }
}
