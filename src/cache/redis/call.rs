//! Calls of scripts, many in one round trip.

use super::RedisCache;
use super::connection::failed;
use super::scripts::Source;
use crate::Error;
use crate::coherence::lease::Token;
use crate::link::Key;
use ::redis::{Pipeline, RedisResult, Value};
use std::time::Duration;

/// The most calls of a round trip: more would not be done within one deadline.
const MOST_CALLS: usize = 128;

/// A script's call, to be sent with its hash or with its text.
#[derive(Debug)]
pub(super) struct Call {
    keys: [String; 3],
    args: Vec<String>,
}

impl Call {
    fn new(keys: &[String; 3]) -> Self {
        Self {
            keys: keys.clone(),
            args: Vec::new(),
        }
    }

    pub(super) fn arg(mut self, arg: impl ToString) -> Self {
        self.args.push(arg.to_string());
        self
    }

    fn push(&self, pipeline: &mut Pipeline, command: &str, script: &str) {
        let command = pipeline.cmd(command).arg(script).arg(self.keys.len());
        command.arg(&self.keys).arg(&self.args);
    }
}

pub(super) type Fields = (Vec<(&'static str, String)>, Vec<&'static str>);

/// Adds what a script that writes the entry needs.
pub(super) fn write(call: Call, ttl: Duration, fields: Option<Fields>) -> Call {
    let (present, absent) = fields.unwrap_or_default();
    let mut call = call.arg(millis(ttl)).arg(absent.len());
    call.args.extend(absent.into_iter().map(str::to_owned));
    for (name, value) in present {
        call = call.arg(name).arg(value);
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
            Key::Meta(_) => ("hash", String::new()),
        };
        Call::new(&self.keys.of(key))
            .arg(kind)
            .arg(member)
            .arg(token.number())
    }

    /// Runs a script for each call, [`MOST_CALLS`] in one round trip; another one where the server
    /// does not have the script yet.
    pub(super) async fn run_all(
        &self,
        operation: &'static str,
        script: &Source,
        calls: impl IntoIterator<Item = Call>,
    ) -> Result<Vec<Value>, Error> {
        let calls: Vec<_> = calls.into_iter().collect();
        let mut replies = Vec::with_capacity(calls.len());
        for calls in calls.chunks(MOST_CALLS) {
            let values = self.run_some(operation, script, calls).await?;
            let values: RedisResult<Vec<_>> = values.into_iter().collect();
            replies.extend(values.map_err(|error| failed(operation, error))?);
        }
        Ok(replies)
    }

    async fn run_some(
        &self,
        operation: &'static str,
        script: &Source,
        calls: &[Call],
    ) -> Result<Vec<RedisResult<Value>>, Error> {
        let mut pipeline = Pipeline::new();
        for call in calls {
            call.push(&mut pipeline, "EVALSHA", &script.hash);
        }
        let mut replies = self.connection.run(operation, &mut pipeline).await?;
        // The other calls of the pipeline were run: only these are repeated.
        let unknown: Vec<_> = (0..calls.len().min(replies.len()))
            .filter(|i| matches!(&replies[*i], Err(error) if error.code() == Some("NOSCRIPT")))
            .collect();
        if unknown.is_empty() {
            return Ok(replies);
        }
        let mut pipeline = Pipeline::new();
        for i in &unknown {
            calls[*i].push(&mut pipeline, "EVAL", &script.text);
        }
        let again = self.connection.run(operation, &mut pipeline).await?;
        for (i, reply) in unknown.into_iter().zip(again) {
            replies[i] = reply;
        }
        Ok(replies)
    }
}
