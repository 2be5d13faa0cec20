//! What a node tells all others, and for whom it waits then.

use super::connection::{Connection, Line};
use super::session::{Command, Node, number, text};
use super::trouble::failed;
use crate::Error;
use crate::cache::deadline::{Deadline, Patience};
use crate::coherence::message::{MOST_NAMES, Message};
use crate::coherence::peers::{MOST_TRUST, Roll, Seen};
use ::redis::{ErrorKind, Pipeline, RedisError, Value};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::Weak;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The nodes are read after the message was published: one that appears later hears it. Of a set that
/// is none, or larger than any that nodes make, it is not known who is in it.
pub(super) const ANNOUNCE: &str = "
for i = 1, #ARGV do redis.call('PUBLISH', KEYS[2], ARGV[i]) end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local names = redis.pcall('ZRANGEBYSCORE', KEYS[1], '+inf', '+inf', 'LIMIT', 0, 2)
local nodes = redis.pcall('ZRANGEBYSCORE', KEYS[1], 0, '(+inf', 'WITHSCORES', 'LIMIT', 0, 4096)
if nodes.err or #names ~= 1 or #nodes == 8192 then return {'', now, {}} end
return {names[1], now, nodes}
";

/// What is to be forgotten.
#[derive(Debug, Clone, Copy)]
pub(super) enum Forget<'a> {
    Everything,
    /// Never empty.
    Names(&'a [u64]),
}

impl Node {
    /// Publishes messages that make all nodes forget. What it returns is over when nobody can answer
    /// from before.
    pub(super) async fn publish(
        &self,
        connection: &Connection,
        what: Forget<'_>,
        deadline: Deadline,
    ) -> Result<BoxFuture<'static, ()>, Error> {
        let id = fastrand::u64(1..);
        let waiting = self.channel.wait_for(id);
        let messages = self.messages(what, id);
        let (roll, asked, published) = loop {
            let asked = Instant::now();
            match self.send(connection, &messages, deadline).await {
                Ok(roll) => break (roll, asked, Instant::now()),
                Err(error) if deadline.is_over() => return Err(error),
                Err(_) => sleep(self.pause() / 10).await,
            }
        };
        Ok(waiting.over(roll, asked, published).boxed())
    }

    /// Publishes the same, and waits for nobody.
    pub(super) async fn mention(
        &self,
        connection: &Connection,
        what: Forget<'_>,
        deadline: Deadline,
    ) -> Result<(), Error> {
        self.send(connection, &self.messages(what, 0), deadline)
            .await?;
        Ok(())
    }

    /// The last one carries the id: a node that acknowledges it has heard all. The others carry 0,
    /// which nobody acknowledges.
    fn messages(&self, what: Forget<'_>, id: u64) -> Vec<Vec<u8>> {
        let from = self.channel.node;
        match what {
            Forget::Everything => vec![Message::Flush { from, id }.write()],
            Forget::Names(names) => {
                let chunks = names.chunks(MOST_NAMES);
                let last = chunks.len() - 1;
                let message = |(i, names): (usize, &[u64])| Message::Invalidate {
                    from,
                    id: if i == last { id } else { 0 },
                    names: names.to_vec(),
                };
                chunks
                    .enumerate()
                    .map(|chunk| message(chunk).write())
                    .collect()
            }
        }
    }

    async fn send(
        &self,
        connection: &Connection,
        messages: &[Vec<u8>],
        deadline: Deadline,
    ) -> Result<Roll, Error> {
        let mut last = None;
        for command in [Command::Hash, Command::Text] {
            let mut pipeline = Pipeline::new();
            let script = command.push(&mut pipeline, &self.scripts.announce);
            script
                .arg(2)
                .arg(self.channel.nodes_key())
                .arg(self.channel.shared_name())
                .arg(messages);
            match connection
                .run_within("announce", &mut pipeline, deadline)
                .await?
                .pop()
            {
                Some(Ok(reply)) => {
                    return read_roll(&reply).ok_or_else(|| {
                        let odd = RedisError::from((ErrorKind::UnexpectedReturnType, "no roll"));
                        failed("announce", odd)
                    });
                }
                Some(Err(error)) => last = Some(error),
                None => {}
            }
        }
        let nothing = || RedisError::from((ErrorKind::UnexpectedReturnType, "no answer"));
        Err(failed("announce", last.unwrap_or_else(nothing)))
    }
}

/// Looks at the set of nodes from time to time, for as long as the connection is the node's. A change
/// may come just after the set was lost: it has to know then for how long peers may trust.
pub(super) async fn look_around(node: Weak<Node>, line: Weak<Line>, session: u64) {
    loop {
        sleep(MOST_TRUST / 4).await;
        let (Some(node), Some(line)) = (node.upgrade(), line.upgrade()) else {
            return;
        };
        let connection = Connection::of(line);
        if !connection.is(session) {
            return;
        }
        let asked = Instant::now();
        let deadline = Deadline::new(node.pause(), Patience::Read);
        if let Ok(roll) = node.send(&connection, &[], deadline).await {
            node.channel.awaited(&roll, asked, Instant::now());
        }
    }
}

pub(super) fn read_roll(reply: &Value) -> Option<Roll> {
    let Value::Array(reply) = reply else {
        return None;
    };
    let [born, Value::Int(time), Value::Array(nodes)] = reply.as_slice() else {
        return None;
    };
    let (pairs, _) = nodes.as_chunks::<2>();
    let nodes: Option<Vec<_>> = pairs.iter().map(seen).collect();
    Some(Roll {
        // Where it is not known who is there, it is no set that we know.
        born: number(born).filter(|_| nodes.is_some()).unwrap_or(0),
        time: u64::try_from(*time).ok()?,
        nodes: nodes.unwrap_or_default(),
    })
}

/// A member of the set of nodes, and when it was seen.
fn seen([member, time]: &[Value; 2]) -> Option<Seen> {
    let (node, trust) = text(member)?.split_once(':')?;
    Some(Seen {
        node: node.parse().ok()?,
        trust: Duration::from_millis(trust.parse().ok()?),
        time: number(time)?,
    })
}
