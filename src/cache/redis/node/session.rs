//! [`Node`]: a node among the others that share the Redis, and the life of its channel's connection.

use crate::cache::redis::net::connect_error::ConnectError;
use crate::cache::redis::net::connection::Connection;
use crate::cache::redis::net::lifecycle::Lifecycle;
use crate::cache::redis::net::purge::Record;
use crate::cache::redis::net::resolve::{Located, Resolve};
use crate::cache::redis::net::script::ScriptForm;
use crate::cache::redis::net::server_info::{About, Identity};
use crate::cache::redis::node::acknowledge::{AckQueue, acknowledge};
use crate::cache::redis::node::announce::look_around;
use crate::cache::redis::node::channel::Channel;
use crate::cache::redis::node::heartbeat::ChannelScripts;
use crate::cache::redis::node::namespace::NamespaceClaim;
use crate::cache::redis::node::preflight::preflight;
use crate::coherence::Coherence;
use crate::coherence::peers::Term;
use crate::coherence::trust::{Proof, Trust};
use crate::telemetry::metrics::{Gap, purges};
use ::metrics::Counter;
use ::redis::aio::MultiplexedConnection;
use ::redis::{PushInfo, RedisResult, Value, cmd};
use async_trait::async_trait;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// How long a node that shuts down waits until Redis has removed it from the set of nodes.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);

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
    pub(super) owed: Mutex<Option<mpsc::Receiver<(u64, u64)>>>,
    /// Locked while a heartbeat is under way. A heartbeat that ended after the node has shut down
    /// would put it back into the set of nodes.
    pub(super) beating: tokio::sync::Mutex<()>,
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

    /// Logs the advice for the operators of the servers, each piece once.
    pub(crate) fn advise(&self, about: &About, resolve: &dyn Resolve) {
        let mut given = self.advice.lock().unwrap_or_else(PoisonError::into_inner);
        for advice in about.advice(resolve.has_sentinels()) {
            if given.insert(advice) {
                tracing::warn!("advice for this Redis: {advice}");
            }
        }
    }

    /// Returns what all keys begin with.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    fn place(&self) -> MutexGuard<'_, Option<(u64, Located)>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last(&self) -> MutexGuard<'_, Option<Identity>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
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

#[async_trait]
impl Lifecycle<Connection> for Node {
    /// Prepares a new connection for the node: subscribes to both channels, purges the data of an
    /// older server, and sends one heartbeat.
    async fn handshake(
        &self,
        connection: &mut MultiplexedConnection,
        number: u64,
        resolve: &dyn Resolve,
        located: &Located,
    ) -> Result<Identity, ConnectError> {
        let channel = &self.channel;
        let began = Instant::now();
        let about = About::handshake(connection, resolve.is_cluster()).await?;
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
        channel.connected(number);
        // These come before any heartbeat, and without a heartbeat there is no trust.
        channel.proven(number, Proof::Identity, Some(began));
        channel.proven(number, Proof::Place, located.named.map(|(began, _)| began));
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
            let now = About::handshake(connection, resolve.is_cluster()).await?;
            if now.identity != identity {
                return Err(ConnectError::Another);
            }
            channel.proven(number, Proof::Identity, Some(began));
        }
        *self.last() = Some(identity.clone());
        if located.named.is_some() {
            *self.place() = Some((number, located.clone()));
        }
        let mut pipeline = self.heartbeat(number, ScriptForm::Text);
        let replies: RedisResult<Vec<RedisResult<Value>>> =
            pipeline.ignore_errors().query_async(connection).await;
        let replies = replies.map_err(ConnectError::Connecting)?;
        if !self.noted(number, &replies) {
            return Err(match replies.into_iter().next() {
                Some(Err(error)) => ConnectError::Connecting(error),
                _ => ConnectError::Stale(channel.term().trust),
            });
        }
        self.advise(&about, resolve);
        Ok(identity)
    }

    /// Starts the tasks that a node needs on a new connection of its channel.
    fn up(
        self: Arc<Self>,
        connection: &Connection,
        number: u64,
        identity: Identity,
        located: Located,
    ) {
        let about = (identity, located.clone());
        let beat = Arc::clone(&self).beat(connection.downgrade(), number, about);
        tokio::spawn(beat);
        tokio::spawn(look_around(
            Arc::downgrade(&self),
            connection.downgrade(),
            number,
        ));
        if located.named.is_some() {
            let watch = Arc::clone(&self).watch(connection.downgrade(), number, located);
            tokio::spawn(watch);
        }
        let owed = self
            .owed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(owed) = owed {
            let owed = AckQueue {
                node: Arc::downgrade(&self),
                owed: Some(owed),
            };
            tokio::spawn(acknowledge(owed, connection.downgrade()));
        }
    }

    fn down(&self, number: u64, gap: Option<Gap>) {
        self.channel.disconnected(number, gap);
    }

    fn push(&self, number: u64, push: &PushInfo) -> bool {
        self.channel.push(number, push)
    }

    fn standing(&self) -> (&Trust, Duration) {
        (self.channel.trust(), self.trust)
    }

    fn named(&self) -> Option<(u64, Located)> {
        self.place().clone()
    }
}
