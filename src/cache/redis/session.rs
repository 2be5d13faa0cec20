//! One connection's life as a node's end of the channel: its beginning, its heartbeats, the
//! acknowledgements that it owes.

use super::about::{About, Identity};
use super::announce::{ANNOUNCE, look_around};
use super::channel::Channel;
use super::connection::{Connection, Greeted, Line};
use super::namespace::Claim;
use super::purge::Record;
use super::rehearsal::rehearse;
use super::route::{Checked, Located, Route};
use super::scripts::Source;
use super::trouble::Trouble;
use crate::coherence::Coherence;
use crate::coherence::message::Message;
use crate::coherence::peers::{MOST_TRUST, Term};
use crate::coherence::trust::Proof;
use crate::metrics::purges;
use ::metrics::Counter;
use ::redis::aio::MultiplexedConnection;
use ::redis::{Pipeline, RedisResult, Value, cmd};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

/// How many heartbeats are sent within the time of one: all but one may be lost.
const BEATS: u32 = 4;

/// The scripts of the channel. Their keys are of one slot.
#[derive(Debug)]
pub(super) struct Scripts {
    /// `nodes private-channel | node keep message born` → which set of nodes it is, and the time.
    heartbeat: Source,
    /// `nodes shared-channel | message…` → the same, and who was seen when.
    pub(super) announce: Source,
}

/// How long a node that is not seen stays in the set: longer than any node counts as one that may
/// trust its memory.
const KEEP: Duration = MOST_TRUST.saturating_mul(3);

/// How long a node that leaves waits until it was told.
const GOODBYE: Duration = Duration::from_millis(500);

/// The node notes itself in the set. What no node has made of it (a value of another type, a name that
/// is none, a time that is far ahead) makes way for a new set: where that is, it is not known who
/// was in the old one.
const HEARTBEAT: &str = "
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.pcall('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
local names = redis.pcall('ZRANGEBYSCORE', KEYS[1], '+inf', '+inf', 'LIMIT', 0, 2)
local ahead = redis.pcall('ZCOUNT', KEYS[1], '(' .. now + ARGV[2], '(+inf')
local born = names[1]
local is_name = born and string.find(born, '^%d+$') and (#born < 20 or born <= '18446744073709551615' and #born == 20)
if not (is_name and #names == 1 and ahead == 0) then
  redis.call('DEL', KEYS[1])
  born = ARGV[4]
  redis.call('ZADD', KEYS[1], '+inf', born)
end
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('PUBLISH', KEYS[2], ARGV[3])
return {born, now}
";

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            heartbeat: Source::new(&[HEARTBEAT]),
            announce: Source::new(&[ANNOUNCE]),
        }
    }
}

/// A node among others.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) channel: Arc<Channel>,
    /// How long each proof is good for.
    pub(super) trust: Duration,
    prefix: String,
    /// On the name space, for a node that caches a store.
    claim: Option<Claim>,
    pub(super) scripts: Scripts,
    /// How often a server was purged because it was another one.
    pub(super) purges: Counter,
    /// The server that this node was connected to last.
    last: Mutex<Option<Identity>>,
    /// Where sentinels have found the primary, for the connection of this number.
    place: Mutex<Option<(u64, Located)>>,
    /// What was said of the servers already.
    advice: Mutex<HashSet<&'static str>>,
    /// The acknowledgements that are owed, until there is a task that sends them.
    owed: Mutex<Option<mpsc::Receiver<(u64, u64)>>>,
    /// Held while a heartbeat is under way: one that ended after the node has left would bring it
    /// back.
    beating: tokio::sync::Mutex<()>,
}

impl Node {
    pub(super) fn new(
        prefix: &str,
        coherence: Arc<Coherence>,
        trust: Duration,
        claim: Option<Claim>,
    ) -> Self {
        let margin = trust / 20;
        let (channel, owed) = Channel::new(prefix, coherence, Term { trust, margin });
        Self {
            channel,
            trust,
            prefix: prefix.to_owned(),
            claim,
            scripts: Scripts::new(),
            purges: purges("server"),
            last: Mutex::default(),
            place: Mutex::default(),
            advice: Mutex::default(),
            owed: Mutex::new(Some(owed)),
            beating: tokio::sync::Mutex::default(),
        }
    }

    /// Lets the node live on a connection that has just been made its own.
    pub(super) fn live(
        self: &Arc<Self>,
        line: &Arc<Line>,
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
            let owed = Owed {
                node: Arc::downgrade(self),
                owed: Some(owed),
            };
            tokio::spawn(acknowledge(owed, Arc::downgrade(line)));
        }
    }

    /// Makes a new connection the node's: both channels subscribed, what an older server knew
    /// purged, and one heartbeat come back.
    pub(super) async fn greet(
        &self,
        connection: &mut MultiplexedConnection,
        session: u64,
        route: &Route,
        located: &Located,
    ) -> Result<Greeted, Trouble> {
        let channel = &self.channel;
        let began = Instant::now();
        let about = About::greet(connection, route.leads_into_a_cluster()).await?;
        let identity = about.identity.clone();
        rehearse(connection, &self.prefix, "nodes").await?;
        if let Some(claim) = &self.claim {
            claim.stake(connection, &channel.nodes_key()).await?;
        }
        // The shared one first: a heartbeat proves that both are heard.
        let names = [channel.shared_name(), channel.private_name(channel.node)];
        let subscribed = connection.subscribe(&names).await;
        subscribed.map_err(|error| match error.code() {
            Some("NOPERM") => Trouble::Forbidden(vec![format!(
                "SUBSCRIBE to {}layercache::* ({error})",
                self.prefix
            )]),
            _ => Trouble::Connecting(error),
        })?;
        channel.connected(session);
        // Before any heartbeat: without one there is no trust.
        channel.proven(session, Proof::Identity, Some(began));
        channel.proven(session, Proof::Place, located.named.map(|(began, _)| began));
        // A server that may not be written to gives no trust.
        let written: RedisResult<Vec<Value>> = self.write().query_async(connection).await;
        written.map_err(Trouble::Connecting)?;
        let nodes = channel.nodes_key();
        let last = self.last().clone();
        let mut same = connection.clone();
        let mut record = Record {
            connection: &mut same,
            nodes: &nodes,
            purges: &self.purges,
        };
        let purged = record.purge_if_another(&identity, last.as_ref(), connection, &self.prefix);
        if purged.await.map_err(Trouble::Connecting)? {
            // That took its time: it has to be the same server still.
            let began = Instant::now();
            let now = About::greet(connection, route.leads_into_a_cluster()).await?;
            if now.identity != identity {
                return Err(Trouble::Another);
            }
            channel.proven(session, Proof::Identity, Some(began));
        }
        *self.last() = Some(identity.clone());
        if located.named.is_some() {
            *self.place() = Some((session, located.clone()));
        }
        let mut pipeline = self.heartbeat(session, Command::Text);
        let replies: RedisResult<Vec<RedisResult<Value>>> =
            pipeline.ignore_errors().query_async(connection).await;
        let replies = replies.map_err(Trouble::Connecting)?;
        if !self.noted(session, &replies) {
            return Err(match replies.into_iter().next() {
                Some(Err(error)) => Trouble::Connecting(error),
                _ => Trouble::Stale(channel.term().trust),
            });
        }
        self.advise(&about, route);
        Ok(Greeted { identity })
    }

    /// Tells whoever runs the servers what they should know of them, once.
    pub(super) fn advise(&self, about: &About, route: &Route) {
        let mut given = self.advice.lock().unwrap_or_else(PoisonError::into_inner);
        for advice in about.advice(matches!(route, Route::Sentinels(_))) {
            if given.insert(advice) {
                tracing::warn!("advice for this Redis: {advice}");
            }
        }
    }

    /// What all keys begin with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Where sentinels have found the primary, and the number of the connection to it.
    pub(super) fn located(&self) -> Option<(u64, Located)> {
        self.place().clone()
    }

    fn place(&self) -> MutexGuard<'_, Option<(u64, Located)>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last(&self) -> MutexGuard<'_, Option<Identity>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A write that changes nothing of ours, whatever is there, which a server refuses that has too few
    /// replicas. Redis 6.2 would run a script all the same, so it goes before the heartbeat.
    fn write(&self) -> Pipeline {
        let mut pipeline = Pipeline::new();
        let nodes = self.channel.nodes_key();
        pipeline.cmd("PERSIST").arg(nodes);
        pipeline
    }

    fn heartbeat(&self, session: u64, command: Command) -> Pipeline {
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
            && let [born, Value::Int(time)] = reply.as_slice()
            && let (Some(born), Ok(time)) = (number(born), u64::try_from(*time))
        {
            self.channel.noted(session, born, time);
            return true;
        }
        false
    }

    /// How long from one heartbeat to the next.
    pub(super) fn pause(&self) -> Duration {
        self.trust / BEATS
    }

    /// Sends heartbeats for as long as the connection is the node's. One that is not answered is waited
    /// for until the connection is of no use any more: it comes back when Redis does.
    async fn beat(
        self: Arc<Self>,
        line: Weak<Line>,
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
                        connection.give_up(session, Trouble::Another);
                        return;
                    }
                    Some(_) if replies.iter().all(Result::is_ok) => {}
                    _ => continue,
                },
                Err(_) => continue,
            }
            // A server that wakes may not have heard yet that it was replaced.
            if !self.channel.trust().holds(Instant::now()) {
                match connection.check(&located).await {
                    Checked::Stays => {}
                    Checked::Moved => return connection.give_up(session, Trouble::Another),
                    Checked::Unknown => continue,
                }
            }
            self.channel.proven(session, Proof::Identity, Some(began));
            // The text for a server that has lost its scripts.
            for command in [Command::Hash, Command::Text] {
                let mut pipeline = self.heartbeat(session, command);
                let sent = connection.run_on(session, "heartbeat", &mut pipeline);
                match sent.await {
                    Ok(replies) if self.noted(session, &replies) => break,
                    Ok(replies) => {
                        if replies.iter().any(is_elsewhere) {
                            connection.give_up(session, Trouble::Another);
                            return;
                        }
                    }
                    Err(_) => break,
                }
            }
        }
    }

    /// Ends a connection when its server's place is another one's, as sentinels say it; others say so
    /// themselves.
    async fn watch(self: Arc<Self>, line: Weak<Line>, session: u64, located: Located) {
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
                Checked::Moved => return connection.give_up(session, Trouble::Another),
                Checked::Unknown => {}
            }
        }
    }

    /// Drops trust, then leaves the set of nodes and connects no more.
    pub(super) async fn leave(&self, connection: &Connection) {
        let channel = &self.channel;
        let raw = connection.raw();
        if let Some(session) = connection.session() {
            channel.disconnected(session, None);
        }
        // Ends a heartbeat that is waited for, and sends no other one.
        connection.close();
        let _beating = self.beating.lock().await;
        let Some(mut raw) = raw else { return };
        let mut leave = cmd("ZREM");
        leave.arg(channel.nodes_key()).arg(channel.member());
        // Where it cannot be told, it is waited for as one that has died.
        let _ = timeout(GOODBYE, leave.query_async::<Value>(&mut raw)).await;
    }
}

/// Where the acknowledgements come out that a node owes. A task that ends with its runtime leaves it to
/// the next one.
struct Owed {
    node: Weak<Node>,
    owed: Option<mpsc::Receiver<(u64, u64)>>,
}

impl Owed {
    async fn next(&mut self, batch: &mut Vec<(u64, u64)>) -> usize {
        match &mut self.owed {
            Some(owed) => owed.recv_many(batch, 64).await,
            None => 0,
        }
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if let Some(node) = self.node.upgrade() {
            let mut owed = node.owed.lock().unwrap_or_else(PoisonError::into_inner);
            *owed = self.owed.take();
        }
    }
}

/// Sends the acknowledgements that are owed, for as long as there is a node.
async fn acknowledge(mut owed: Owed, line: Weak<Line>) {
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
        // One that is lost costs its sender the time until our trust would have lapsed.
        if let Some(session) = connection.session() {
            let sent = connection.run_on(session, "acknowledge", &mut pipeline);
            let _ = sent.await;
        }
    }
}

/// How a script is called.
#[derive(Debug, Clone, Copy)]
pub(super) enum Command {
    Hash,
    Text,
}

impl Command {
    pub(super) fn push<'a>(self, pipeline: &'a mut Pipeline, script: &Source) -> &'a mut Pipeline {
        match self {
            Self::Hash => pipeline.cmd("EVALSHA").arg(&script.hash),
            Self::Text => pipeline.cmd("EVAL").arg(&script.text),
        }
    }
}

/// Whether a cluster has given the nodes' slot to another server.
fn is_elsewhere(reply: &RedisResult<Value>) -> bool {
    reply
        .as_ref()
        .is_err_and(|error| matches!(error.code(), Some("MOVED" | "ASK")))
}

pub(super) fn number(value: &Value) -> Option<u64> {
    text(value)?.parse().ok()
}

pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(text) => std::str::from_utf8(text).ok(),
        _ => None,
    }
}
