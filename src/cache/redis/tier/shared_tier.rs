//! How Redis serves as the tier that nodes share.

use crate::cache::Forgotten;
use crate::cache::deadline::Deadline;
use crate::cache::redis::RedisCache;
use crate::cache::redis::net::connect_error::{Failure, failed};
use crate::cache::redis::net::purge::Scope;
use crate::cache::redis::net::servers::Servers;
use crate::cache::redis::node::announce::Forget;
use crate::cache::redis::node::joined::Joined;
use crate::cache::redis::tier::call::{millis, write};
use crate::cache::redis::tier::scripts::grant;
use crate::cache::shared::{Fact, Facts, Found, Leases, SharedTier, Which};
use crate::cache::storage::Storage;
use crate::coherence::lease::{EndReply, Grant, Token};
use crate::coherence::rules::{Rule, kept};
use crate::coherence::used_connections::UsedConnections;
use crate::types::Error;
use crate::types::link::{Key, WireName};
use crate::types::namespace::Namespace;
use crate::types::question::Question;
use ::redis::Value;
use async_trait::async_trait;
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use std::sync::Arc;
use std::time::Duration;

/// The most keys that get a script call each. A question has no more. Longer lists of keys share
/// calls.
const FEW: usize = 2;

#[async_trait]
impl SharedTier for RedisCache {
    fn is_up(&self, through: &UsedConnections) -> bool {
        self.servers.is_up(through)
    }

    async fn stands(&self, through: &UsedConnections, deadline: Deadline) -> Result<bool, Error> {
        let stands = self.servers.stands(through, deadline).await;
        stands.map_err(|failure| failed("confirm", failure))
    }

    fn may_be_executed(&self, error: &Error) -> bool {
        match (&self.servers, error) {
            // In a cluster, some primaries may have been asked.
            (Servers::One(_), Error::Cache { source, .. }) => {
                !matches!(source.downcast_ref(), Some(Failure::NotAsked(_)))
            }
            _ => true,
        }
    }

    fn has_broken(&self, error: &Error) -> bool {
        let Error::Cache { source, .. } = error else {
            return false;
        };
        match source.downcast_ref() {
            Some(Failure::Lost(_)) => true,
            Some(Failure::Redis(error)) => error.is_unrecoverable_error(),
            Some(Failure::NotAsked(_) | Failure::Timeout(_)) | None => false,
        }
    }

    async fn fetch(&self, questions: &[Question], deadline: Deadline) -> Result<Vec<Found>, Error> {
        self.ask(questions, deadline).await
    }

    async fn grant(
        &self,
        keys: &[Key],
        token: Token,
        steal: bool,
        deadline: Deadline,
    ) -> Result<Vec<Grant>, Error> {
        let calls = keys.iter().map(|key| {
            let call = self.call(key, token);
            call.arg(millis(self.lease_ttl)).arg(u8::from(steal))
        });
        let replies = match keys.len() {
            0..=FEW => {
                let script = &self.scripts.grant;
                self.run_each("grant", script, calls, deadline).await?.each
            }
            _ => {
                let script = &self.scripts.grant_each;
                self.run_together("grant", script, calls.collect()).await?
            }
        };
        let grant = |reply| match reply {
            Ok(Value::Int(grant::HIT)) => Grant::Hit,
            Ok(Value::Int(grant::GRANTED)) => Grant::Granted,
            Ok(Value::Int(grant::WAIT)) => Grant::Wait,
            // One primary may be away while the leases of the others are valid.
            Err(failure) if may_be_executed(&failure) => Grant::Unknown,
            _ => Grant::Blocked,
        };
        Ok(replies.into_iter().map(grant).collect())
    }

    async fn fill(&self, facts: Facts, leases: Leases, ttl: Duration) -> Result<Facts, Error> {
        let facts = facts.zip(leases);
        let calls = facts
            .iter()
            .map(|(fact, token)| self.write_call(fact, *token, ttl));
        let replies = self.run_each("fill", &self.scripts.fill, calls, self.read_deadline());
        let mut replies = replies.await?.each.into_iter();
        let is_filled = |_: &Fact| matches!(replies.next(), Some(Ok(Value::Int(1))));
        Ok(facts.map(|(fact, _)| fact).filter(is_filled))
    }

    async fn fill_all(
        &self,
        facts: Vec<Facts>,
        token: Token,
        ttl: Duration,
    ) -> Result<Vec<Facts>, Error> {
        self.fill_together(facts, token, ttl).await
    }

    async fn release(&self, keys: &[Key], token: Token) -> Result<(), Error> {
        let calls = keys.iter().map(|key| self.call(key, token));
        self.run_all(
            "release",
            &self.scripts.release,
            calls,
            self.read_deadline(),
        )
        .await?;
        Ok(())
    }

    async fn begin(
        &self,
        keys: &[Key],
        token: Token,
        take_lease: bool,
        deadline: Deadline,
    ) -> Result<UsedConnections, Error> {
        let calls = keys.iter().map(|key| {
            let call = self.call(key, token);
            call.arg(millis(self.settings.fence_ttl))
                .arg(u8::from(take_lease))
        });
        let begun = self.run_all("begin", &self.scripts.begin, calls, deadline);
        begun.await.map(|(_, through)| through)
    }

    async fn renew(
        &self,
        keys: &[Key],
        token: Token,
        time: Duration,
        deadline: Deadline,
    ) -> Result<bool, Error> {
        let calls = keys
            .iter()
            .map(|key| self.call(key, token).arg(millis(time)));
        let replies = self.run_all("renew", &self.scripts.renew, calls, deadline);
        let stood = |reply: &Value| *reply == Value::Int(1);
        Ok(replies.await?.0.iter().all(stood))
    }

    async fn end(
        &self,
        keys: &[Key],
        token: Token,
        written: Option<&Fact>,
        ttl: Duration,
        deadline: Deadline,
    ) -> Result<(EndReply, UsedConnections), Error> {
        let calls = keys.iter().map(|key| {
            let written = written.filter(|written| written.key == *key);
            let fields = written.map(|written| self.fields(&written.value));
            let call = self.call(key, token).arg(u8::from(written.is_some()));
            write(call, ttl, fields.unwrap_or_default())
        });
        let replies = self.run_all("end", &self.scripts.end, calls, deadline);
        let (replies, through) = replies.await?;
        let both = |reply: &Value| matches!(reply, Value::Array(both) if both[..] == [Value::Int(1), Value::Int(1)]);
        let stood = |reply: &Value| matches!(reply, Value::Array(both) if both.first() == Some(&Value::Int(1)));
        let ended = EndReply {
            stood: replies.iter().all(stood),
            filled: written.is_some() && replies.iter().any(both),
        };
        Ok((ended, through))
    }

    async fn invalidate(&self, keys: &[Key], deadline: Deadline) -> Result<UsedConnections, Error> {
        // This is a change without a backend call: a fill that is under way finds no lease.
        let token = Token::random();
        self.begin(keys, token, false, deadline).await?;
        let ended = self.end(keys, token, None, self.settings.ttl, deadline);
        ended.await.map(|(_, through)| through)
    }

    async fn deny(&self, keys: &[Key], deadline: Deadline) -> Result<Vec<bool>, Error> {
        let token = Token::random();
        let calls = keys.iter().map(|key| self.call(key, token));
        let replies = self.run_all("deny", &self.scripts.deny, calls, deadline);
        let is_held = |reply| reply == Value::Int(1);
        Ok(replies.await?.0.into_iter().map(is_held).collect())
    }

    async fn notify(&self, keys: &[Key], deadline: Deadline) -> Result<(), Error> {
        match (&self.joined, &names(keys)[..]) {
            (None, _) | (_, []) => Ok(()),
            (Some(joined), names) => {
                let Joined { node, home } = joined.as_ref();
                node.notify(home, Forget::Names(names), deadline).await
            }
        }
    }

    async fn publish(
        &self,
        keys: &[Key],
        deadline: Deadline,
    ) -> Result<BoxFuture<'static, ()>, Error> {
        match (&self.joined, &names(keys)[..]) {
            (None, _) | (_, []) => Ok(ready(()).boxed()),
            (Some(_), names) => self.tell(Forget::Names(names), keys, deadline).await,
        }
    }

    async fn purge(&self) -> Result<(), Error> {
        self.take_away(&Scope::all(self.keys.prefix())).await
    }

    async fn purge_repositories(&self, which: &Which<'_>) -> Result<Forgotten, Error> {
        let scope = Scope::of(self.keys.prefix(), which);
        self.take_away(&scope).await?;
        Ok(scope.forgotten())
    }

    async fn shutdown(&self) {
        if let Some(joined) = &self.joined {
            joined.node.shutdown(&joined.home).await;
        }
        self.servers.close();
    }

    fn in_namespace(&self, name: &Namespace, storage: Option<&Storage>) -> Arc<dyn SharedTier> {
        Arc::new(Self::in_namespace(self, name, storage))
    }
}

impl RedisCache {
    /// Removes the entries of the scope from Redis, then makes all nodes forget everything: their
    /// memory may have entries that Redis no longer has.
    async fn take_away(&self, scope: &Scope<'_>) -> Result<(), Error> {
        self.claim("purge", self.removal_deadline()).await?;
        loop {
            let up = self.servers.up();
            let purged = self.servers.purge(scope).await;
            purged.map_err(|failure| failed("purge", failure))?;
            let deadline = self.removal_deadline();
            self.tell(Forget::Everything, &[], deadline).await?.await;
            // If a primary was replaced before or meanwhile, the new one has its own entries, and
            // other nodes may have read from the old one.
            if self.stands(&up, self.removal_deadline()).await? || !kept(Rule::APurgeIsConfirmed) {
                return Ok(());
            }
        }
    }
}

/// Checks whether a call that failed in this way may be executed nevertheless.
fn may_be_executed(failure: &Failure) -> bool {
    match failure {
        Failure::NotAsked(_) => false,
        Failure::Timeout(_) | Failure::Lost(_) => true,
        // An error code means that the server has refused the call.
        Failure::Redis(error) => error.code().is_none(),
    }
}

/// Returns the wire names of the keys. A membership and the repository's own object have one name,
/// so other nodes are told it once.
fn names(keys: &[Key]) -> Vec<u64> {
    let mut names: Vec<_> = keys.iter().map(WireName::wire_name).collect();
    names.dedup();
    names
}
