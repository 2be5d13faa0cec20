//! The heartbeats of a node: what it sends on each connection of its channel, and what it checks.

use super::announce::read_peer_set;
use super::read::number;
use super::this_node::Node;
use crate::cache::redis::net::connect_error::ConnectError;
use crate::cache::redis::net::connection::WeakConnection;
use crate::cache::redis::net::resolve::{Checked, Located};
use crate::cache::redis::net::script::ScriptForm;
use crate::cache::redis::net::server_info::{About, Identity};
use crate::coherence::peers::term::MOST_TRUST;
use crate::coherence::trust::Proof;
use ::redis::{Pipeline, RedisResult, Value};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a node without heartbeats stays in the set: longer than any node may trust its memory.
const KEEP: Duration = MOST_TRUST.saturating_mul(3);

/// With fewer nodes than this, each heartbeat reads the set of nodes. With *n* nodes, one heartbeat
/// in 1 + *n*/64 reads it. So the work of Redis grows with the number of nodes, and not with its
/// square.
const MANY: u32 = 64;

impl Node {
    /// Returns a write that changes nothing. A server with too few replicas refuses it. Redis 6.2
    /// would run a script nevertheless, so this write comes before the heartbeat.
    pub(super) fn write(&self) -> Pipeline {
        let mut pipeline = Pipeline::new();
        let nodes = self.channel.nodes_key();
        pipeline.cmd("PERSIST").arg(nodes);
        pipeline
    }

    /// Returns a heartbeat. With `reads_set` it also reads the set of nodes: a change may come just
    /// after the set was lost, and the node must then know how long its peers may trust.
    pub(super) fn heartbeat(&self, session: u64, form: ScriptForm, reads_set: bool) -> Pipeline {
        let channel = &self.channel;
        let mut pipeline = Pipeline::new();
        let script = form.push(&mut pipeline, &self.scripts.heartbeat);
        script
            .arg(2)
            .arg(channel.nodes_key())
            .arg(channel.private_name(channel.node))
            .arg(channel.member())
            .arg(KEEP.as_millis() as u64)
            .arg(channel.heartbeat(session).write())
            .arg(fastrand::u64(..));
        if reads_set {
            form.push(&mut pipeline, &self.scripts.announce)
                .arg(2)
                .arg(channel.nodes_key())
                .arg(channel.shared_name());
        }
        pipeline
    }

    /// Notes the replies to a heartbeat that was sent at `asked`. Returns whether Redis has recorded
    /// it.
    pub(super) fn noted(
        &self,
        session: u64,
        replies: &[RedisResult<Value>],
        asked: Instant,
    ) -> bool {
        if let [Ok(Value::Array(reply)), rest @ ..] = replies
            && let [epoch, Value::Int(time)] = reply.as_slice()
            && let (Some(epoch), Ok(time)) = (number(epoch), u64::try_from(*time))
        {
            self.channel.noted(session, epoch, time);
            if let [Ok(set)] = rest
                && let Some(set) = read_peer_set(set)
            {
                self.channel.read_set(&set, asked);
            }
            return true;
        }
        false
    }

    /// Sends heartbeats for as long as the node uses this connection. Waits for the answer to a
    /// heartbeat until the connection is given up: the answer comes when Redis is back.
    pub(super) async fn beat(
        self: Arc<Self>,
        connection: WeakConnection,
        session: u64,
        (identity, located): (Identity, Located),
    ) {
        for beat in 1u64.. {
            sleep(self.pause()).await;
            self.channel.observe();
            let Some(connection) = connection.upgrade() else {
                return;
            };
            let _beating = self.beating.lock().await;
            if !connection.is_alive(session) {
                return;
            }
            let began = Instant::now();
            let mut questions = self.write();
            About::ask(&mut questions);
            let answer = connection.run_on(session, "heartbeat", &mut questions);
            match answer.await {
                Ok(replies) => match About::read(&replies) {
                    Some(now) if now.identity != identity || !now.is_primary => {
                        connection.give_up(session, ConnectError::Another);
                        return;
                    }
                    Some(_) if replies.iter().all(Result::is_ok) => {}
                    _ => continue,
                },
                Err(_) => continue,
            }
            // A server that was frozen may not know yet that it was replaced.
            if !self.channel.trust().holds(Instant::now()) {
                match connection.check(&located).await {
                    Checked::Stays => {}
                    Checked::Moved => return connection.give_up(session, ConnectError::Another),
                    Checked::Unknown => continue,
                }
            }
            self.channel.proven(session, Proof::Identity, Some(began));
            // The text is for a server that has lost its scripts.
            for form in [ScriptForm::Hash, ScriptForm::Text] {
                let one_in = u64::from(1 + self.channel.peer_count() / MANY);
                let asked = Instant::now();
                let mut pipeline = self.heartbeat(session, form, beat % one_in == 0);
                let sent = connection.run_on(session, "heartbeat", &mut pipeline);
                match sent.await {
                    Ok(replies) if self.noted(session, &replies, asked) => break,
                    Ok(replies) => {
                        if replies.iter().any(has_moved) {
                            connection.give_up(session, ConnectError::Another);
                            return;
                        }
                    }
                    Err(_) => break,
                }
            }
        }
    }

    /// Gives up the connection when the sentinels name another primary. Servers without sentinels
    /// say by themselves that they were replaced.
    pub(super) async fn watch(
        self: Arc<Self>,
        connection: WeakConnection,
        session: u64,
        located: Located,
    ) {
        loop {
            sleep(self.pause()).await;
            let Some(connection) = connection.upgrade() else {
                return;
            };
            if !connection.is(session) {
                return;
            }
            let began = Instant::now();
            match connection.check(&located).await {
                Checked::Stays => self.channel.proven(session, Proof::Place, Some(began)),
                Checked::Moved => return connection.give_up(session, ConnectError::Another),
                Checked::Unknown => {}
            }
        }
    }
}

/// Checks whether a cluster has moved the slot of the set of nodes to another server.
fn has_moved(reply: &RedisResult<Value>) -> bool {
    reply
        .as_ref()
        .is_err_and(|error| matches!(error.code(), Some("MOVED" | "ASK")))
}
