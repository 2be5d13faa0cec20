//! [`Node`]: this process, as a node among the others that share the Redis.

use crate::cache::redis::net::connection::Connection;
use crate::cache::redis::net::resolve::{Located, Resolve};
use crate::cache::redis::net::server_info::{About, Identity};
use crate::cache::redis::node::channel::Channel;
use crate::cache::redis::node::namespace::NamespaceClaim;
use crate::cache::redis::node::scripts::ChannelScripts;
use crate::coherence::Coherence;
use crate::coherence::action::AckRequest;
use crate::coherence::peers::term::Term;
use crate::telemetry::metrics::purges;
use ::metrics::Counter;
use ::redis::{Value, cmd};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How long a node that shuts down waits until Redis has removed it from the set of nodes.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);

/// How many heartbeats a node sends while one of them is valid. All but one may be lost.
const BEATS: u32 = 4;

/// This process, as a node among the others that share the Redis.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) channel: Arc<Channel>,
    /// How long each proof is valid.
    pub(crate) trust: Duration,
    prefix: String,
    /// The claim on the name space, for a node that caches a store.
    pub(super) claim: Option<NamespaceClaim>,
    pub(crate) scripts: ChannelScripts,
    /// Counts how often a server was purged because it was another one than before.
    pub(crate) purges: Counter,
    /// The server that this node was connected to last.
    last: Mutex<Option<Identity>>,
    /// The primary as the sentinels have named it, and the number of the connection to it.
    named: Mutex<Option<(u64, Located)>>,
    /// The advice that was logged already.
    advice: Mutex<HashSet<&'static str>>,
    /// The queue of acknowledgements to send, while no task sends them.
    acks: Mutex<Option<mpsc::Receiver<AckRequest>>>,
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
        let (channel, acks) = Channel::new(prefix, coherence, Term { trust, margin });
        Self {
            channel,
            trust,
            prefix: prefix.to_owned(),
            claim,
            scripts: ChannelScripts::new(),
            purges: purges("server"),
            last: Mutex::default(),
            named: Mutex::default(),
            advice: Mutex::default(),
            acks: Mutex::new(Some(acks)),
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

    /// Returns the time from one heartbeat to the next.
    pub(crate) fn pause(&self) -> Duration {
        self.trust / BEATS
    }

    pub(super) fn named_server(&self) -> MutexGuard<'_, Option<(u64, Located)>> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn last(&self) -> MutexGuard<'_, Option<Identity>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn acks(&self) -> MutexGuard<'_, Option<mpsc::Receiver<AckRequest>>> {
        self.acks.lock().unwrap_or_else(PoisonError::into_inner)
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
