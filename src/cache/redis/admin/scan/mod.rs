//! How an admin client looks through Redis, and removes what is wrong.
//!
//! An admin client is not a node. It is not in the set of nodes, so no change waits for it, and
//! nothing that it does is on record: a Redis that only Go registries use looks afterwards as if
//! the client had not been there. It reads without writing anything. It removes facts with the
//! delete protocol, and tells all nodes. It cannot receive acknowledgements, so it waits until no
//! node can still trust what it knew before.

mod pages;
mod review;
mod subject;
mod sweep;

pub(crate) use pages::{KeyPage, MemberPage, Shards};
pub(crate) use review::{Held, Now};
pub(crate) use subject::{Name, Subject, Text};

use crate::cache::redis::net::servers::{KeyedCommand, Reply};
use crate::cache::redis::{RedisCache, RedisConfig};
use crate::layout::Layout;
use crate::types::link::Key;
use crate::types::{Error, LinkKind, RepositoryName};
use std::sync::Arc;
use std::time::Duration;

/// The most commands in a round trip.
const MOST_COMMANDS: usize = 512;

/// The shortest timeout of an admin client. It is in no hurry, so it waits for a busy server.
const PATIENCE: Duration = Duration::from_secs(2);

impl RedisCache {
    /// Creates an admin client, which is not a node.
    pub(crate) fn admin_client(
        mut config: RedisConfig,
        layout: Arc<dyn Layout>,
    ) -> Result<Self, Error> {
        config.timeout = config.timeout.max(PATIENCE);
        Ok(Self::new(config)?.with_layout(layout))
    }

    /// Returns the key of a subject.
    pub(crate) fn key_of(&self, subject: &Subject) -> String {
        subject.key(&self.keys)
    }

    /// Returns the key of a repository's set.
    pub(crate) fn set_key(&self, kind: LinkKind, repository: &RepositoryName) -> String {
        self.keys.set_of(kind, repository)
    }

    /// Returns the key of a blob's hash.
    pub(crate) fn hash_key(&self, of: &Key) -> String {
        self.keys.subject(of.into())
    }

    /// Runs commands, some hundreds in a round trip. Returns an error if a round trip was not
    /// answered.
    async fn run_many(
        &self,
        operation: &'static str,
        commands: Vec<KeyedCommand>,
    ) -> Result<Vec<Reply>, Error> {
        let mut replies = Vec::with_capacity(commands.len());
        let mut commands = commands.into_iter().peekable();
        while commands.peek().is_some() {
            let some: Vec<_> = commands.by_ref().take(MOST_COMMANDS).collect();
            let deadline = self.read_deadline();
            let some = self.servers.run(operation, some, deadline).await?;
            replies.extend(some.each);
        }
        Ok(replies)
    }
}
