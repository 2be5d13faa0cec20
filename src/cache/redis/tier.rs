//! Redis as the tier that nodes share.

use super::RedisCache;
use super::announce::Forget;
use super::call::{millis, write};
use super::purge::Scope;
use super::scripts::grant;
use super::servers::Servers;
use super::trouble::{Failure, failed};
use crate::cache::Forgotten;
use crate::cache::deadline::Deadline;
use crate::cache::shared::{Facts, Found, Leases, Question, SharedTier, Which};
use crate::coherence::lease::{Ended, Grant, Token};
use crate::coherence::through::Through;
use crate::link::{Key, WireName};
use crate::{Error, Link};
use ::redis::Value;
use async_trait::async_trait;
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use std::time::Duration;

/// The most keys that are asked for one by one: those of a question.
const FEW: usize = 2;

#[async_trait]
impl SharedTier for RedisCache {
    fn is_up(&self, through: &Through) -> bool {
        self.servers.is_up(through)
    }

    async fn stands(&self, through: &Through, deadline: Deadline) -> Result<bool, Error> {
        let stands = self.servers.stands(through, deadline).await;
        stands.map_err(|failure| failed("confirm", failure))
    }

    fn may_be_executed(&self, error: &Error) -> bool {
        match (&self.servers, error) {
            // Of several primaries some may have been asked.
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

    async fn look_up(
        &self,
        questions: &[Question],
        deadline: Deadline,
    ) -> Result<Vec<Found>, Error> {
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
            call.arg(millis(self.lease)).arg(u8::from(steal))
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
            // Where a primary is away the others' leases are good.
            Err(failure) if may_be_executed(&failure) => Grant::Unknown,
            _ => Grant::Blocked,
        };
        Ok(replies.into_iter().map(grant).collect())
    }

    async fn fill(&self, facts: Facts, leases: Leases, ttl: Duration) -> Result<Facts, Error> {
        let member = facts.member.zip(leases.member);
        let meta = facts.meta.zip(leases.meta);
        let mut calls = Vec::with_capacity(2);
        if let Some(((link, _), token)) = &member {
            calls.push(write(
                self.call(&Key::Link(link.clone()), *token),
                ttl,
                None,
            ));
        }
        if let Some(((key, meta), token)) = &meta {
            let fields = self.fields(meta);
            calls.push(write(
                self.call(&key.clone().into(), *token),
                ttl,
                Some(fields),
            ));
        }
        let replies = self.run_each("fill", &self.scripts.fill, calls, self.read_deadline());
        let replies = replies.await?.each;
        let is_filled = |reply| matches!(reply, Ok(Value::Int(1)));
        let mut accepted = replies.into_iter().map(is_filled);
        let mut keep = |is_asked: bool| is_asked && accepted.next().unwrap_or(false);
        Ok(Facts {
            member: member.map(|(fact, _)| fact).filter(|_| keep(true)),
            meta: meta.map(|(fact, _)| fact).filter(|_| keep(true)),
        })
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
    ) -> Result<Through, Error> {
        let calls = keys.iter().map(|key| {
            let call = self.call(key, token);
            call.arg(millis(self.settings.fence))
                .arg(u8::from(take_lease))
        });
        let begun = self.run_all("begin", &self.scripts.begin, calls, deadline);
        begun.await.map(|(_, through)| through)
    }

    async fn renew(&self, keys: &[Key], token: Token) -> Result<(), Error> {
        self.renew_for(keys, token, self.settings.fence).await?;
        Ok(())
    }

    async fn renew_for(&self, keys: &[Key], token: Token, time: Duration) -> Result<bool, Error> {
        let calls = keys
            .iter()
            .map(|key| self.call(key, token).arg(millis(time)));
        let deadline = self.removal_deadline();
        let replies = self.run_all("renew", &self.scripts.renew, calls, deadline);
        let stood = |reply: &Value| *reply == Value::Int(1);
        Ok(replies.await?.0.iter().all(stood))
    }

    async fn end(
        &self,
        keys: &[Key],
        token: Token,
        written: Option<&Link>,
        ttl: Duration,
        deadline: Deadline,
    ) -> Result<(Ended, Through), Error> {
        let calls = keys.iter().map(|key| {
            let is_written = matches!(key, Key::Link(link) if Some(link) == written);
            write(self.call(key, token).arg(u8::from(is_written)), ttl, None)
        });
        let replies = self.run_all("end", &self.scripts.end, calls, deadline);
        let (replies, through) = replies.await?;
        let both = |reply: &Value| matches!(reply, Value::Array(both) if both[..] == [Value::Int(1), Value::Int(1)]);
        let stood = |reply: &Value| matches!(reply, Value::Array(both) if both.first() == Some(&Value::Int(1)));
        let ended = Ended {
            stood: replies.iter().all(stood),
            filled: written.is_some() && replies.iter().any(both),
        };
        Ok((ended, through))
    }

    async fn withdraw(&self, keys: &[Key], deadline: Deadline) -> Result<Through, Error> {
        // A change that begins and has nothing to do: what it takes away stays away.
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

    async fn mention(&self, keys: &[Key], deadline: Deadline) -> Result<(), Error> {
        match (&self.node, &names(keys)[..]) {
            (None, _) | (_, []) => Ok(()),
            (Some((node, home)), names) => node.mention(home, Forget::Names(names), deadline).await,
        }
    }

    async fn publish(
        &self,
        keys: &[Key],
        deadline: Deadline,
    ) -> Result<BoxFuture<'static, ()>, Error> {
        match (&self.node, &names(keys)[..]) {
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

    async fn leave(&self) {
        if let Some((node, home)) = &self.node {
            node.leave(home).await;
        }
        self.servers.close();
    }
}

impl RedisCache {
    /// Takes away what is in the scope, and then all that nodes have in memory: some of it may have
    /// gone from Redis before.
    async fn take_away(&self, scope: &Scope<'_>) -> Result<(), Error> {
        let purged = self.servers.purge(scope).await;
        purged.map_err(|failure| failed("purge", failure))?;
        loop {
            let up = self.servers.up();
            let deadline = self.removal_deadline();
            self.tell(Forget::Everything, &[], deadline).await?.await;
            // What others learned meanwhile from a primary that was replaced is forgotten, too.
            if self.stands(&up, self.removal_deadline()).await? {
                return Ok(());
            }
        }
    }
}

/// Whether a call that failed so may be executed all the same.
fn may_be_executed(failure: &Failure) -> bool {
    match failure {
        Failure::NotAsked(_) => false,
        Failure::Timeout(_) | Failure::Lost(_) => true,
        // What the server itself says it has not done.
        Failure::Redis(error) => error.code().is_none(),
    }
}

/// A membership and its own object have one name: others are told it once.
fn names(keys: &[Key]) -> Vec<u64> {
    let mut names: Vec<_> = keys.iter().map(WireName::wire_name).collect();
    names.dedup();
    names
}
