//! Calls of scripts, many in one round trip.

use super::RedisCache;
use super::scripts::Source;
use super::servers::{Command, Replies, Reply};
use super::trouble::failed;
use crate::Error;
use crate::cache::deadline::Deadline;
use crate::coherence::lease::Token;
use crate::coherence::through::Through;
use crate::link::Key;
use ::redis::{Value, cmd};
use std::borrow::Cow;
use std::time::Duration;

/// The most calls of a round trip: more would not be done within one deadline.
pub(super) const MOST_CALLS: usize = 128;

/// A script's call, to be sent with its hash or with its text.
#[derive(Debug, Default)]
pub(super) struct Call {
    pub(super) keys: Vec<String>,
    pub(super) args: Vec<Cow<'static, str>>,
}

impl Call {
    fn new(keys: [String; 3]) -> Self {
        Self {
            keys: keys.into(),
            args: Vec::new(),
        }
    }

    pub(super) fn arg(mut self, arg: impl ToString) -> Self {
        self.args.push(arg.to_string().into());
        self
    }

    fn command(&self, command: &str, script: &str) -> Command {
        let mut command = cmd(command);
        command.arg(script).arg(self.keys.len());
        command.arg(&self.keys);
        for arg in &self.args {
            command.arg(&**arg);
        }
        Command::call(command)
    }
}

pub(super) type Fields = (Vec<(&'static str, String)>, Vec<&'static str>);

/// Adds what a script that writes the entry needs.
pub(super) fn write(call: Call, ttl: Duration, fields: Option<Fields>) -> Call {
    let (present, absent) = fields.unwrap_or_default();
    let mut call = call.arg(millis(ttl)).arg(absent.len());
    call.args.extend(absent.into_iter().map(Cow::Borrowed));
    for (name, value) in present {
        call.args.push(Cow::Borrowed(name));
        call.args.push(Cow::Owned(value));
    }
    call
}

pub(super) fn millis(ttl: Duration) -> u64 {
    ttl.as_millis().try_into().unwrap_or(u64::MAX).max(1)
}

impl RedisCache {
    /// What all scripts are called with: the keys, the kind and member of the subject, the token.
    pub(super) fn call(&self, key: &Key, token: Token) -> Call {
        let (kind, member) = match key {
            Key::Link(link) => ("set", link.digest.to_string()),
            Key::Meta(_) | Key::Own(_) => ("hash", String::new()),
        };
        Call::new(self.keys.of(key))
            .arg(kind)
            .arg(member)
            .arg(token.number())
    }

    /// When what a read asks from here on has to be over.
    pub(super) fn read_deadline(&self) -> Deadline {
        self.settings.read_deadline()
    }

    /// When what a removal asks from here on has to be over.
    pub(super) fn removal_deadline(&self) -> Deadline {
        self.settings.removal_deadline()
    }

    /// Runs a script for each call. More than [`MOST_CALLS`] are several round trips, one after the
    /// other, until one deadline.
    pub(super) async fn run_all(
        &self,
        operation: &'static str,
        script: &Source,
        calls: impl IntoIterator<Item = Call>,
        deadline: Deadline,
    ) -> Result<(Vec<Value>, Through), Error> {
        let Replies { each, through } = self.run_each(operation, script, calls, deadline).await?;
        let values: Result<Vec<_>, _> = each.into_iter().collect();
        let values = values.map_err(|failure| failed(operation, failure))?;
        Ok((values, through))
    }

    /// The same, where each may fail by itself. It is an error if nothing was answered.
    pub(super) async fn run_each(
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
            all.through.and_all(some.through);
        }
        Ok(all)
    }

    /// One round trip; another one where the server does not have the script yet.
    pub(super) async fn run_some(
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
        let mut replies = self.servers.run(operation, by_hash, deadline).await?;
        // The other calls of the pipeline were run: only these are repeated.
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
        let again = self.servers.run(operation, by_text, deadline).await?;
        for (i, reply) in unknown.into_iter().zip(again.each) {
            replies.each[i] = reply;
        }
        replies.through.and_all(again.through);
        Ok(replies)
    }
}
