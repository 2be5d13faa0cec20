//! What a node does on a connection of its channel: the handshake, the heartbeats, and the
//! acknowledgements that it has to send.

use crate::cache::redis::net::connect_error::ConnectError;
use crate::cache::redis::net::connection::{Connection, Handshake, Inner};
use crate::cache::redis::net::purge::Record;
use crate::cache::redis::net::resolve::{Checked, Located, Route};
use crate::cache::redis::net::server_info::{About, Identity};
use crate::cache::redis::node::announce::{ANNOUNCE, look_around};
use crate::cache::redis::node::channel::Channel;
use crate::cache::redis::node::namespace::NamespaceClaim;
use crate::cache::redis::node::preflight::preflight;
use crate::cache::redis::tier::scripts::Source;
use crate::coherence::Coherence;
use crate::coherence::message::Message;
use crate::coherence::peers::{MOST_TRUST, Term};
use crate::coherence::trust::Proof;
use crate::telemetry::metrics::purges;
use ::metrics::Counter;
use ::redis::aio::MultiplexedConnection;
use ::redis::{Pipeline, RedisResult, Value, cmd};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

/// How many heartbeats a node sends while one of them is valid. All but one may be lost.
const BEATS: u32 = 4;

/// The scripts of the channel. The keys of each are in one slot.
#[derive(Debug)]
pub(crate) struct ChannelScripts {
    /// `nodes private-channel | node keep message epoch` → the epoch of the set of nodes, and the
    /// time.
    heartbeat: Source,
    /// `nodes shared-channel | message…` → the epoch of the set of nodes, the time, and each node
    /// with the time of its last heartbeat.
    pub(crate) announce: Source,
}

/// How long a node without heartbeats stays in the set: longer than any node may trust its memory.
const KEEP: Duration = MOST_TRUST.saturating_mul(3);

/// How long a node that shuts down waits until Redis has removed it from the set of nodes.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);

/// Notes the node in the set of nodes. A set that no node can have made (a value of another type,
/// an invalid epoch, a time that is far ahead) is replaced by a new set with a new epoch: the nodes
/// in the old one are unknown.
const HEARTBEAT: &str = "
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.pcall('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
local names = redis.pcall('ZRANGEBYSCORE', KEYS[1], '+inf', '+inf', 'LIMIT', 0, 2)
local ahead = redis.pcall('ZCOUNT', KEYS[1], '(' .. now + ARGV[2], '(+inf')
local epoch = names[1]
local is_name = epoch and string.find(epoch, '^%d+$') and (#epoch < 20 or epoch <= '18446744073709551615' and #epoch == 20)
if not (is_name and #names == 1 and ahead == 0) then
  redis.call('DEL', KEYS[1])
  epoch = ARGV[4]
  redis.call('ZADD', KEYS[1], '+inf', epoch)
end
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('PUBLISH', KEYS[2], ARGV[3])
return {epoch, now}
";

impl ChannelScripts {
    pub(crate) fn new() -> Self {
        Self {
            heartbeat: Source::new(&[HEARTBEAT]),
            announce: Source::new(&[ANNOUNCE]),
        }
    }
}

/// A node among the others that share the Redis.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) channel: Arc<Channel>,
    /// How long each proof is valid.
    pub(crate) trust: Duration,
    prefix: String,
    /// The claim on the name space, for a node that caches a store.
    claim: Option<NamespaceClaim>,
    pub(crate) scripts: ChannelScripts,
    /// Counts how often a server was purged because it was another one than before.
    pub(crate) purges: Counter,
    /// The server that this node was connected to last.
    last: Mutex<Option<Identity>>,
    /// The primary as the sentinels have named it, and the number of the connection to it.
    place: Mutex<Option<(u64, Located)>>,
    /// The advice that was logged already.
    advice: Mutex<HashSet<&'static str>>,
    /// The queue of acknowledgements to send, while no task sends them.
    owed: Mutex<Option<mpsc::Receiver<(u64, u64)>>>,
    /// Locked while a heartbeat is under way. A heartbeat that ended after the node has shut down
    /// would put it back into the set of nodes.
    beating: tokio::sync::Mutex<()>,
}

impl Node {
    pub(crate) fn new(
        prefix: &str,
        coherence: Arc<Coherence>,
        trust: Duration,
        claim: Option<NamespaceClaim>,
    ) -> Self {
        let margin = trust / 20;
        let (channel, owed) = Channel::new(prefix, coherence, Term { trust, margin });
        Self {
            channel,
            trust,
            prefix: prefix.to_owned(),
            claim,
            scripts: ChannelScripts::new(),
            purges: purges("server"),
            last: Mutex::default(),
            place: Mutex::default(),
            advice: Mutex::default(),
            owed: Mutex::new(Some(owed)),
            beating: tokio::sync::Mutex::default(),
        }
    }

    /// Starts the tasks that a node needs on a new connection of its channel.
    pub(crate) fn live(
        self: &Arc<Self>,
        line: &Arc<Inner>,
        session: u64,
        identity: Identity,
        located: Located,
    ) {
        let about = (identity, located.clone());
        let beat = Arc::clone(self).beat(Arc::downgrade(line), session, about);
        tokio::spawn(beat);
        tokio::spawn(look_around(
            Arc::downgrade(self),
            Arc::downgrade(line),
            session,
        ));
        if located.named.is_some() {
            let watch = Arc::clone(self).watch(Arc::downgrade(line), session, located);
            tokio::spawn(watch);
        }
        let owed = self
            .owed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(owed) = owed {
            let owed = AckQueue {
                node: Arc::downgrade(self),
                owed: Some(owed),
            };
            tokio::spawn(acknowledge(owed, Arc::downgrade(line)));
        }
    }

    /// Prepares a new connection for the node: subscribes to both channels, purges the data of an
    /// older server, and sends one heartbeat.
    pub(crate) async fn handshake(
        &self,
        connection: &mut MultiplexedConnection,
        session: u64,
        route: &Route,
        located: &Located,
    ) -> Result<Handshake, ConnectError> {
        let channel = &self.channel;
        let began = Instant::now();
        let about = About::handshake(connection, route.leads_into_a_cluster()).await?;
        let identity = about.identity.clone();
        preflight(connection, &self.prefix, "nodes").await?;
        if let Some(claim) = &self.claim {
            claim.stake(connection, &channel.nodes_key()).await?;
        }
        // The shared channel comes first: a heartbeat on the other one then proves both.
        let names = [channel.shared_name(), channel.private_name(channel.node)];
        let subscribed = connection.subscribe(&names).await;
        subscribed.map_err(|error| match error.code() {
            Some("NOPERM") => ConnectError::Forbidden(vec![format!(
                "SUBSCRIBE to {}layercache::* ({error})",
                self.prefix
            )]),
            _ => ConnectError::Connecting(error),
        })?;
        channel.connected(session);
        // These come before any heartbeat, and without a heartbeat there is no trust.
        channel.proven(session, Proof::Identity, Some(began));
        channel.proven(session, Proof::Place, located.named.map(|(began, _)| began));
        // A server that refuses writes gives no trust.
        let written: RedisResult<Vec<Value>> = self.write().query_async(connection).await;
        written.map_err(ConnectError::Connecting)?;
        let nodes = channel.nodes_key();
        let last = self.last().clone();
        let mut same = connection.clone();
        let mut record = Record {
            connection: &mut same,
            nodes: &nodes,
            purges: &self.purges,
        };
        let purged = record.purge_if_another(&identity, last.as_ref(), connection, &self.prefix);
        if purged.await.map_err(ConnectError::Connecting)? {
            // The purge took time, so check that this is still the same server.
            let began = Instant::now();
            let now = About::handshake(connection, route.leads_into_a_cluster()).await?;
            if now.identity != identity {
                return Err(ConnectError::Another);
            }
            channel.proven(session, Proof::Identity, Some(began));
        }
        *self.last() = Some(identity.clone());
        if located.named.is_some() {
            *self.place() = Some((session, located.clone()));
        }
        let mut pipeline = self.heartbeat(session, ScriptForm::Text);
        let replies: RedisResult<Vec<RedisResult<Value>>> =
            pipeline.ignore_errors().query_async(connection).await;
        let replies = replies.map_err(ConnectError::Connecting)?;
        if !self.noted(session, &replies) {
            return Err(match replies.into_iter().next() {
                Some(Err(error)) => ConnectError::Connecting(error),
                _ => ConnectError::Stale(channel.term().trust),
            });
        }
        self.advise(&about, route);
        Ok(Handshake { identity })
    }

    /// Logs the advice for the operators of the servers, each piece once.
    pub(crate) fn advise(&self, about: &About, route: &Route) {
        let mut given = self.advice.lock().unwrap_or_else(PoisonError::into_inner);
        for advice in about.advice(matches!(route, Route::Sentinels(_))) {
            if given.insert(advice) {
                tracing::warn!("advice for this Redis: {advice}");
            }
        }
    }

    /// Returns what all keys begin with.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns the primary as the sentinels have named it, and the number of the connection to it.
    pub(crate) fn located(&self) -> Option<(u64, Located)> {
        self.place().clone()
    }

    fn place(&self) -> MutexGuard<'_, Option<(u64, Located)>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last(&self) -> MutexGuard<'_, Option<Identity>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a write that changes nothing. A server with too few replicas refuses it. Redis 6.2
    /// would run a script nevertheless, so this write comes before the heartbeat.
    fn write(&self) -> Pipeline {
        let mut pipeline = Pipeline::new();
        let nodes = self.channel.nodes_key();
        pipeline.cmd("PERSIST").arg(nodes);
        pipeline
    }

    fn heartbeat(&self, session: u64, command: ScriptForm) -> Pipeline {
        let channel = &self.channel;
        let mut pipeline = Pipeline::new();
        let script = command.push(&mut pipeline, &self.scripts.heartbeat);
        script
            .arg(2)
            .arg(channel.nodes_key())
            .arg(channel.private_name(channel.node))
            .arg(channel.member())
            .arg(KEEP.as_millis() as u64)
            .arg(channel.heartbeat(session).write())
            .arg(fastrand::u64(..));
        pipeline
    }

    fn noted(&self, session: u64, replies: &[RedisResult<Value>]) -> bool {
        if let [Ok(Value::Array(reply))] = replies
            && let [epoch, Value::Int(time)] = reply.as_slice()
            && let (Some(epoch), Ok(time)) = (number(epoch), u64::try_from(*time))
        {
            self.channel.noted(session, epoch, time);
            return true;
        }
        false
    }

    /// Returns the time from one heartbeat to the next.
    pub(crate) fn pause(&self) -> Duration {
        self.trust / BEATS
    }

    /// Sends heartbeats for as long as the node uses this connection. Waits for the answer to a
    /// heartbeat until the connection is given up: the answer comes when Redis is back.
    async fn beat(
        self: Arc<Self>,
        line: Weak<Inner>,
        session: u64,
        (identity, located): (Identity, Located),
    ) {
        loop {
            sleep(self.pause()).await;
            self.channel.observe();
            let Some(line) = line.upgrade() else {
                return;
            };
            let connection = Connection::of(line);
            let _beating = self.beating.lock().await;
            if !connection.is_alive(session) {
                return;
            }
            let began = Instant::now();
            let mut questions = self.write();
            About::ask(&mut questions);
            let asked = connection.run_on(session, "heartbeat", &mut questions);
            match asked.await {
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
            for command in [ScriptForm::Hash, ScriptForm::Text] {
                let mut pipeline = self.heartbeat(session, command);
                let sent = connection.run_on(session, "heartbeat", &mut pipeline);
                match sent.await {
                    Ok(replies) if self.noted(session, &replies) => break,
                    Ok(replies) => {
                        if replies.iter().any(is_elsewhere) {
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
    async fn watch(self: Arc<Self>, line: Weak<Inner>, session: u64, located: Located) {
        loop {
            sleep(self.pause()).await;
            let Some(line) = line.upgrade() else {
                return;
            };
            let connection = Connection::of(line);
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

    /// Ends trust, closes the connection for good, and removes the node from the set of nodes.
    pub(crate) async fn shutdown(&self, connection: &Connection) {
        let channel = &self.channel;
        let raw = connection.raw();
        if let Some(session) = connection.session() {
            channel.disconnected(session, None);
        }
        // Ends a heartbeat that is under way, and prevents another one.
        connection.close();
        let _beating = self.beating.lock().await;
        let Some(mut raw) = raw else { return };
        let mut leave = cmd("ZREM");
        leave.arg(channel.nodes_key()).arg(channel.member());
        // If this fails, changes wait for this node as for one that has died.
        let _ = timeout(SHUTDOWN_TIMEOUT, leave.query_async::<Value>(&mut raw)).await;
    }
}

/// The acknowledgements that a node has to send. A task that ends with its runtime gives them back
/// to the node, for the next task.
struct AckQueue {
    node: Weak<Node>,
    owed: Option<mpsc::Receiver<(u64, u64)>>,
}

impl AckQueue {
    async fn next(&mut self, batch: &mut Vec<(u64, u64)>) -> usize {
        match &mut self.owed {
            Some(owed) => owed.recv_many(batch, 64).await,
            None => 0,
        }
    }
}

impl Drop for AckQueue {
    fn drop(&mut self) {
        if let Some(node) = self.node.upgrade() {
            let mut owed = node.owed.lock().unwrap_or_else(PoisonError::into_inner);
            *owed = self.owed.take();
        }
    }
}

/// Sends the acknowledgements for as long as there is a node.
async fn acknowledge(mut owed: AckQueue, line: Weak<Inner>) {
    let mut batch = Vec::new();
    while owed.next(&mut batch).await > 0 {
        let (Some(node), Some(line)) = (owed.node.upgrade(), line.upgrade()) else {
            return;
        };
        let mut pipeline = Pipeline::new();
        for (to, id) in batch.drain(..) {
            let from = node.channel.node;
            let message = Message::Acknowledge { from, id }.write();
            let name = node.channel.private_name(to);
            pipeline.cmd("PUBLISH").arg(name).arg(message);
        }
        let connection = Connection::of(line);
        // If one is lost, the change waits until this node's trust would have lapsed.
        if let Some(session) = connection.session() {
            let sent = connection.run_on(session, "acknowledge", &mut pipeline);
            let _ = sent.await;
        }
    }
}

/// Whether a call names its script by hash or by text.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ScriptForm {
    Hash,
    Text,
}

impl ScriptForm {
    pub(crate) fn push<'a>(self, pipeline: &'a mut Pipeline, script: &Source) -> &'a mut Pipeline {
        match self {
            Self::Hash => pipeline.cmd("EVALSHA").arg(&script.hash),
            Self::Text => pipeline.cmd("EVAL").arg(&script.text),
        }
    }
}

/// Checks whether a cluster has moved the slot of the set of nodes to another server.
fn is_elsewhere(reply: &RedisResult<Value>) -> bool {
    reply
        .as_ref()
        .is_err_and(|error| matches!(error.code(), Some("MOVED" | "ASK")))
}

pub(crate) fn number(value: &Value) -> Option<u64> {
    text(value)?.parse().ok()
}

pub(crate) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(text) => std::str::from_utf8(text).ok(),
        _ => None,
    }
}
