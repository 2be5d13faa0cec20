//! The life of the connection of a node's channel: what a node does when the connection is new, up,
//! and lost.

use crate::cache::redis::net::connect_error::ConnectError;
use crate::cache::redis::net::connection::Connection;
use crate::cache::redis::net::lifecycle::Lifecycle;
use crate::cache::redis::net::purge::Record;
use crate::cache::redis::net::resolve::{Located, Resolve};
use crate::cache::redis::net::script::ScriptForm;
use crate::cache::redis::net::server_info::{About, Identity};
use crate::cache::redis::node::acknowledge::{AckQueue, acknowledge};
use crate::cache::redis::node::preflight::preflight;
use crate::cache::redis::node::this_node::Node;
use crate::coherence::rules::{Rule, kept};
use crate::coherence::trust::{Proof, Trust};
use crate::telemetry::metrics::Gap;
use ::redis::aio::MultiplexedConnection;
use ::redis::{PushInfo, RedisResult, Value};
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

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
        preflight(connection, self.prefix(), "nodes").await?;
        if let Some(claim) = &self.claim {
            claim.stake(connection, &channel.nodes_key()).await?;
        }
        // The shared channel comes first: a heartbeat on the other one then proves both.
        let names = [channel.shared_name(), channel.private_name(channel.node)];
        let subscribed = connection.subscribe(&names).await;
        subscribed.map_err(|error| match error.code() {
            Some("NOPERM") => ConnectError::Forbidden(vec![format!(
                "SUBSCRIBE to {}layercache::* ({error})",
                self.prefix()
            )]),
            _ => ConnectError::Connecting(error),
        })?;
        channel.connected(number);
        // These come before any heartbeat, and without a heartbeat there is no trust.
        channel.proven(number, Proof::Identity, Some(began));
        let named = located.named.map(|(began, _)| began);
        let named = named.filter(|_| kept(Rule::StandingNeedsThePlace));
        channel.proven(number, Proof::Place, named);
        // A server that refuses writes gives no trust.
        let written: RedisResult<Vec<Value>> = self.write().query_async(connection).await;
        written.map_err(ConnectError::Connecting)?;
        let nodes = channel.nodes_key();
        let last = self.last().clone();
        let mut same = connection.clone();
        let mut record = Record {
            connection: &mut same,
            nodes: &nodes,
            node: channel.node,
            purges: &self.purges,
        };
        let purged = record.purge_if_another(&identity, last.as_ref(), connection, self.prefix());
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
            *self.named_server() = Some((number, located.clone()));
        }
        let asked = Instant::now();
        let mut pipeline = self.heartbeat(number, ScriptForm::Text, true);
        let replies: RedisResult<Vec<RedisResult<Value>>> =
            pipeline.ignore_errors().query_async(connection).await;
        let replies = replies.map_err(ConnectError::Connecting)?;
        if !self.noted(number, &replies, asked) {
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
        if located.named.is_some() && kept(Rule::StandingNeedsThePlace) {
            let watch = Arc::clone(&self).watch(connection.downgrade(), number, located);
            tokio::spawn(watch);
        }
        if let Some(queue) = AckQueue::take(&self) {
            tokio::spawn(acknowledge(queue, connection.downgrade()));
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
        self.named_server().clone()
    }
}
