//! How scripts are called, many in one round trip.

use crate::cache::deadline::Deadline;
use crate::cache::redis::RedisCache;
use crate::cache::redis::net::connect_error::failed;
use crate::cache::redis::net::script::Source;
use crate::cache::redis::net::servers::{KeyedCommand, Replies, Reply};
use crate::cache::redis::tier::keys::member_of;
use crate::cache::shared::Fact;
use crate::coherence::lease::Token;
use crate::coherence::used_connections::UsedConnections;
use crate::types::Error;
use crate::types::link::Key;
use ::redis::{Value, cmd};
use std::borrow::Cow;
use std::time::Duration;

/// The most calls in a round trip. More might not be done within one deadline.
pub(crate) const MOST_CALLS: usize = 128;

/// A call of a script, which is sent with the script's hash or its text.
#[derive(Debug, Default)]
pub(crate) struct Call {
    pub(crate) keys: Vec<String>,
    pub(crate) args: Vec<Cow<'static, str>>,
}

impl Call {
    fn new(keys: [String; 3]) -> Self {
        Self {
            keys: keys.into(),
            args: Vec::new(),
        }
    }

    pub(crate) fn arg(mut self, arg: impl ToString) -> Self {
        self.args.push(arg.to_string().into());
        self
    }

    fn command(&self, command: &str, script: &str) -> KeyedCommand {
        let mut command = cmd(command);
        command.arg(script).arg(self.keys.len());
        command.arg(&self.keys);
        for arg in &self.args {
            command.arg(&**arg);
        }
        KeyedCommand::call(command)
    }
}

pub(crate) type Fields = (Vec<(&'static str, String)>, Vec<&'static str>);

/// Adds the arguments of a script that writes the entry.
pub(crate) fn write(call: Call, ttl: Duration, (present, absent): Fields) -> Call {
    let mut call = call.arg(millis(ttl)).arg(absent.len());
    call.args.extend(absent.into_iter().map(Cow::Borrowed));
    for (name, value) in present {
        call.args.push(Cow::Borrowed(name));
        call.args.push(Cow::Owned(value));
    }
    call
}

pub(crate) fn millis(ttl: Duration) -> u64 {
    ttl.as_millis().try_into().unwrap_or(u64::MAX).max(1)
}

impl RedisCache {
    /// Returns a call with what all scripts need: the keys, the kind and member of the subject, the
    /// token.
    pub(crate) fn call(&self, key: &Key, token: Token) -> Call {
        let (kind, member) = match member_of(key) {
            Some(digest) => ("set", digest.to_string()),
            None => ("hash", String::new()),
        };
        Call::new(self.keys.of(key))
            .arg(kind)
            .arg(member)
            .arg(token.number())
    }

    /// Returns a call of a script that writes this fact.
    pub(crate) fn write_call(&self, fact: &Fact, token: Token, ttl: Duration) -> Call {
        write(self.call(&fact.key, token), ttl, self.fields(&fact.value))
    }

    /// Returns the deadline of a read that begins now.
    pub(crate) fn read_deadline(&self) -> Deadline {
        self.settings.read_deadline()
    }

    /// Returns the deadline of a removal that begins now.
    pub(crate) fn removal_deadline(&self) -> Deadline {
        self.settings.removal_deadline()
    }

    /// Runs a script for each call, all within one deadline. More than [`MOST_CALLS`] calls are
    /// several round trips, one after the other. Returns an error if a call fails.
    pub(crate) async fn run_all(
        &self,
        operation: &'static str,
        script: &Source,
        calls: impl IntoIterator<Item = Call>,
        deadline: Deadline,
    ) -> Result<(Vec<Value>, UsedConnections), Error> {
        let Replies {
            each,
            connections: through,
        } = self.run_each(operation, script, calls, deadline).await?;
        let values: Result<Vec<_>, _> = each.into_iter().collect();
        let values = values.map_err(|failure| failed(operation, failure))?;
        Ok((values, through))
    }

    /// Runs a script for each call as [`run_all`](Self::run_all) does, but each call may fail by
    /// itself. Returns an error only if a round trip was not answered at all.
    pub(crate) async fn run_each(
        &self,
        operation: &'static str,
        script: &Source,
        calls: impl IntoIterator<Item = Call>,
        deadline: Deadline,
    ) -> Result<Replies, Error> {
        let calls: Vec<_> = calls.into_iter().collect();
        let mut all = Replies::default();
        for calls in calls.chunks(MOST_CALLS) {
            let some = self.run_some(operation, script, calls, deadline).await?;
            all.each.extend(some.each);
            all.connections.and_all(some.connections);
        }
        Ok(all)
    }

    /// Makes one round trip, and a second one for the calls to a server that does not have the
    /// script yet.
    pub(crate) async fn run_some(
        &self,
        operation: &'static str,
        script: &Source,
        calls: &[Call],
        deadline: Deadline,
    ) -> Result<Replies, Error> {
        let by_hash = calls
            .iter()
            .map(|call| call.command("EVALSHA", &script.hash));
        let by_hash = by_hash.collect();
        let mut replies = self.run(operation, by_hash, deadline).await?;
        // The other calls of the pipeline were run, so only these are repeated.
        let is_unknown =
            |reply: &Reply| matches!(reply, Err(failure) if failure.code() == Some("NOSCRIPT"));
        let unknown: Vec<_> = (0..calls.len().min(replies.each.len()))
            .filter(|i| is_unknown(&replies.each[*i]))
            .collect();
        if unknown.is_empty() {
            return Ok(replies);
        }
        let by_text = unknown
            .iter()
            .map(|i| calls[*i].command("EVAL", &script.text));
        let by_text = by_text.collect();
        let again = self.run(operation, by_text, deadline).await?;
        for (i, reply) in unknown.into_iter().zip(again.each) {
            replies.each[i] = reply;
        }
        replies.connections.and_all(again.connections);
        Ok(replies)
    }
}
