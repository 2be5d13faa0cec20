//! How a node tells all others to forget something, and which of them it waits for.

use crate::cache::deadline::Deadline;
use crate::cache::redis::net::connect_error::failed;
use crate::cache::redis::net::connection::Connection;
use crate::cache::redis::net::script::ScriptForm;
use crate::cache::redis::node::read::{number, text};
use crate::cache::redis::node::this_node::Node;
use crate::coherence::message::{MOST_NAMES, Message};
use crate::coherence::peers::peer_set::{Peer, PeerSet};
use crate::coherence::rules::{Rule, kept};
use crate::types::Error;
use ::redis::{ErrorKind, Pipeline, RedisError, Value};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// What all nodes have to forget.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Forget<'a> {
    Everything,
    /// The keys with these wire names, at least one.
    Names(&'a [u64]),
}

impl Node {
    /// Publishes messages that make all nodes forget something. The returned future ends when no
    /// node can still answer with the old values.
    pub(crate) async fn publish(
        &self,
        connection: &Connection,
        what: Forget<'_>,
        deadline: Deadline,
    ) -> Result<BoxFuture<'static, ()>, Error> {
        let id = match kept(Rule::AcknowledgementsCarryTheId) {
            true => fastrand::u64(1..),
            false => 1,
        };
        let waiting = self.channel.wait_for(id);
        let messages = self.messages(what, id);
        let (set, asked, published) = loop {
            let asked = Instant::now();
            match self.send(connection, &messages, deadline).await {
                Ok(set) if kept(Rule::WaitCountsFromTheConfirmation) => {
                    break (set, asked, Instant::now());
                }
                Ok(set) => break (set, asked, asked),
                Err(error) if deadline.is_over() => return Err(error),
                Err(_) => sleep(self.pause() / 10).await,
            }
        };
        Ok(waiting.over(set, asked, published).boxed())
    }

    /// Publishes these messages without waiting for acknowledgements.
    pub(crate) async fn notify(
        &self,
        connection: &Connection,
        what: Forget<'_>,
        deadline: Deadline,
    ) -> Result<(), Error> {
        self.send(connection, &self.messages(what, 0), deadline)
            .await?;
        Ok(())
    }

    /// Writes the messages. The last one carries the id: a node that acknowledges it has applied
    /// all. The others carry 0, which no node acknowledges.
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
    ) -> Result<PeerSet, Error> {
        let mut last = None;
        for form in [ScriptForm::Hash, ScriptForm::Text] {
            let mut pipeline = Pipeline::new();
            let script = form.push(&mut pipeline, &self.scripts.announce);
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
                    return read_peer_set(&reply).ok_or_else(|| {
                        failed("announce", unexpected("the reply has no set of nodes"))
                    });
                }
                Some(Err(error)) => last = Some(error),
                None => {}
            }
        }
        let last = last.unwrap_or_else(|| unexpected("the script has no reply"));
        Err(failed("announce", last))
    }
}

fn unexpected(what: &'static str) -> RedisError {
    RedisError::from((ErrorKind::UnexpectedReturnType, what))
}

pub(crate) fn read_peer_set(reply: &Value) -> Option<PeerSet> {
    let Value::Array(reply) = reply else {
        return None;
    };
    let [epoch, Value::Int(time), Value::Array(nodes)] = reply.as_slice() else {
        return None;
    };
    let (pairs, _) = nodes.as_chunks::<2>();
    let nodes: Option<Vec<_>> = pairs.iter().map(read_peer).collect();
    Some(PeerSet {
        // If a member is unreadable, the whole set counts as unknown.
        epoch: number(epoch).filter(|_| nodes.is_some()).unwrap_or(0),
        time: u64::try_from(*time).ok()?,
        nodes: nodes.unwrap_or_default(),
    })
}

/// Reads a member of the set of nodes, and when its last heartbeat came.
fn read_peer([member, time]: &[Value; 2]) -> Option<Peer> {
    let (node, trust) = text(member)?.split_once(':')?;
    Some(Peer {
        node: node.parse().ok()?,
        trust: Duration::from_millis(trust.parse().ok()?),
        time: number(time)?,
    })
}
