//! Visits of one who is no node: to look through what Redis has, and to take away what is wrong.
//!
//! A visitor is not in the set of nodes, so nobody waits for it, and nothing that it does is on record: a
//! Redis that only Go registries use looks afterwards as if it had not been there. It reads without
//! writing anything. What it takes away goes by the delete protocol, and all nodes are told; because
//! it cannot hear them, it waits until nobody trusts any more what he knew before.

mod pages;
mod review;
mod subject;
mod sweep;

pub(crate) use pages::{KeyPage, MemberPage, Shards};
pub(crate) use review::{Held, Now};
pub(crate) use subject::{Name, Subject, Text};

use super::servers::{Command, Reply};
use super::{RedisCache, RedisConfig};
use crate::layout::Layout;
use crate::link::MetaKey;
use crate::{Error, LinkKind, RepositoryName};
use std::sync::Arc;
use std::time::Duration;

/// The most commands of a round trip.
const MOST_COMMANDS: usize = 512;

/// No visitor is in a hurry: a server that is busy with others is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

impl RedisCache {
    /// One who visits, and is no node.
    pub(crate) fn visitor(mut config: RedisConfig, layout: Arc<dyn Layout>) -> Result<Self, Error> {
        config.timeout = config.timeout.max(PATIENCE);
        Ok(Self::new(config)?.with_layout(layout))
    }

    /// What the key of this is called.
    pub(crate) fn key_of(&self, subject: &Subject) -> String {
        subject.key(&self.keys)
    }

    /// What a repository's set is called.
    pub(crate) fn set_key(&self, kind: LinkKind, repository: &RepositoryName) -> String {
        self.keys.set_of(kind, repository)
    }

    /// What a blob's hash is called.
    pub(crate) fn hash_key(&self, of: &MetaKey) -> String {
        self.keys.hash(of.into())
    }

    /// Runs commands, some hundreds in a round trip. It is an error if a round trip was not answered.
    async fn run_many(
        &self,
        operation: &'static str,
        commands: Vec<Command>,
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
