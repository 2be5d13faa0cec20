//! How one call of a script works for many subjects.
//!
//! A call of a script costs the server some ten microseconds, whatever it does, and each subject
//! one or two more. So one call has many subjects, but few enough that other callers do not wait
//! for long.

use crate::cache::memory::jittered;
use crate::cache::redis::RedisCache;
use crate::cache::redis::net::script::Source;
use crate::cache::redis::net::servers::{Reply, Servers};
use crate::cache::redis::net::slots::slot_of;
use crate::cache::redis::tier::call::{Call, MOST_CALLS};
use crate::cache::shared::{Fact, Facts};
use crate::coherence::lease::Token;
use crate::types::Error;
use ::redis::Value;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// The most subjects in a call. The server does nothing else for a millisecond at most.
const MOST_SUBJECTS: usize = 100;

impl Call {
    /// Merges calls with the same number of keys and of arguments into one call.
    fn each(calls: Vec<Self>) -> Self {
        let count = calls.len();
        let Some(first) = calls.first() else {
            return Self::default();
        };
        let differs = |at: &usize| calls.iter().any(|call| call.args[*at] != first.args[*at]);
        let differ: Vec<_> = (0..first.args.len()).filter(differs).collect();
        let mut args = Vec::with_capacity(3 + first.args.len() + (count + 1) * differ.len());
        args.push(count.to_string().into());
        args.push(first.args.len().to_string().into());
        args.extend(first.args.iter().cloned());
        args.push(differ.len().to_string().into());
        // Lua counts from 1.
        args.extend(differ.iter().map(|at| (at + 1).to_string().into()));
        let mut keys = Vec::with_capacity(count * first.keys.len());
        for mut call in calls {
            keys.append(&mut call.keys);
            let own = differ.iter().map(|at| std::mem::take(&mut call.args[*at]));
            args.extend(own);
        }
        Self { keys, args }
    }
}

/// Calls, each with its position among all calls.
type CallGroup = Vec<(usize, Call)>;

/// Separates the calls whose subject an earlier call has, because a script must not get a subject
/// twice. Returns the other calls, and the position of each separated call with that of the earlier
/// one.
fn each_once(calls: Vec<Call>) -> (CallGroup, Vec<(usize, usize)>) {
    let mut seen = HashMap::with_capacity(calls.len());
    let (mut once, mut repeated) = (Vec::with_capacity(calls.len()), Vec::new());
    for (i, call) in calls.into_iter().enumerate() {
        // The name of the lease identifies the subject.
        match seen.entry(call.keys[1].clone()) {
            Entry::Vacant(place) => {
                place.insert(i);
                once.push((i, call));
            }
            Entry::Occupied(first) => repeated.push((i, *first.get())),
        }
    }
    (once, repeated)
}

impl RedisCache {
    /// Runs a script for many subjects, many in a call and few calls in a round trip, so that other
    /// commands can come in between. Each round trip has a deadline of its own. In a cluster, a
    /// call has the subjects of one slot. Each subject may fail by itself. Returns an error if a
    /// round trip was not answered at all.
    pub(crate) async fn run_together(
        &self,
        operation: &'static str,
        script: &Source,
        calls: Vec<Call>,
    ) -> Result<Vec<Reply>, Error> {
        let mut replies: Vec<Reply> = calls.iter().map(|_| Ok(Value::Nil)).collect();
        let (calls, repeated) = each_once(calls);
        let mut groups = self.groups(calls).into_iter().peekable();
        while groups.peek().is_some() {
            let (mut which, mut trip, mut subjects) = (Vec::new(), Vec::new(), 0);
            while subjects < MOST_CALLS
                && let Some(group) = groups.next()
            {
                subjects += group.len();
                let (of, calls): (Vec<_>, Vec<_>) = group.into_iter().unzip();
                which.push(of);
                trip.push(Call::each(calls));
            }
            let answers = self.run_some(operation, script, &trip, self.read_deadline());
            let answers = answers.await?.each;
            for (of, answer) in which.into_iter().zip(answers) {
                match answer {
                    Ok(Value::Array(values)) => {
                        for (i, value) in of.into_iter().zip(values) {
                            replies[i] = Ok(value);
                        }
                    }
                    other => of.into_iter().for_each(|i| replies[i] = other.clone()),
                }
            }
        }
        for (i, first) in repeated {
            replies[i] = replies[first].clone();
        }
        Ok(replies)
    }

    /// Groups calls: those of a group have the same slot and the same number of arguments.
    fn groups(&self, calls: CallGroup) -> Vec<CallGroup> {
        let mut groups: BTreeMap<(u16, usize), Vec<CallGroup>> = BTreeMap::new();
        for (i, call) in calls {
            let slot = match &self.servers {
                Servers::One(_) => 0,
                Servers::Cluster(_) => slot_of(call.keys[0].as_bytes()),
            };
            let alike = groups.entry((slot, call.args.len())).or_default();
            match alike.last_mut() {
                Some(group) if group.len() < MOST_SUBJECTS => group.push((i, call)),
                _ => alike.push(vec![(i, call)]),
            }
        }
        groups.into_values().flatten().collect()
    }

    /// Fills all of these facts, each with a TTL of its own, so that they do not expire together.
    pub(crate) async fn fill_together(
        &self,
        facts: Vec<Facts>,
        token: Token,
        ttl: Duration,
    ) -> Result<Vec<Facts>, Error> {
        let mut calls = Vec::with_capacity(facts.len());
        for fact in facts.iter().flat_map(Facts::iter) {
            let mut call = self.write_call(fact, token, jittered(ttl));
            // A fill does not use the fence's key.
            call.keys.pop();
            calls.push(call);
        }
        let script = &self.scripts.fill_each;
        let replies = self.run_together("fill", script, calls).await?;
        let mut replies = replies.into_iter();
        let mut is_filled = |_: &Fact| matches!(replies.next(), Some(Ok(Value::Int(1))));
        let accepted = facts.into_iter().map(|facts| facts.filter(&mut is_filled));
        Ok(accepted.collect())
    }
}
