//! What a node does on its connections to the primaries of a cluster, beside its channel.

use crate::cache::redis::net::address::HostPort;
use crate::cache::redis::net::cluster::{Cluster, ClusterNode};
use crate::cache::redis::net::connect_error::ConnectError;
use crate::cache::redis::net::connection::Connection;
use crate::cache::redis::net::lifecycle::Lifecycle;
use crate::cache::redis::net::purge::Record;
use crate::cache::redis::net::resolve::{Located, Resolve};
use crate::cache::redis::net::server_info::{About, Identity};
use crate::cache::redis::node::preflight::preflight;
use crate::cache::redis::node::this_node::Node;
use crate::coherence::trust::{Proof, Trust};
use crate::telemetry::metrics::Gap;
use ::redis::aio::MultiplexedConnection;
use ::redis::{Pipeline, PushInfo, PushKind, RedisError, RedisResult, Value};
use async_trait::async_trait;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How many names are tried until one is in a slot that is not moving.
const NAMES: usize = 8;

/// How long a handshake waits for the connection of the node's channel.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a node knows about its connection to one primary of a cluster.
#[derive(Debug)]
pub(crate) struct PrimaryLifecycle {
    pub(crate) node: Arc<Node>,
    /// The connection of the node's channel, whose primary has the record of servers.
    pub(crate) home: Connection,
    pub(crate) cluster: Weak<Cluster>,
    pub(crate) place: HostPort,
    /// The standing of the primary behind the connection that is up.
    pub(crate) standing: Trust,
    /// How many names are skipped, because their slots were moving.
    skipped: AtomicUsize,
}

impl PrimaryLifecycle {
    pub(crate) fn new(
        node: Arc<Node>,
        home: Connection,
        cluster: Weak<Cluster>,
        place: HostPort,
    ) -> Self {
        let standing = Trust::none(Instant::now());
        // Heartbeats go through another connection.
        standing.needs_no(Proof::Heartbeat);
        Self {
            node,
            home,
            cluster,
            place,
            standing,
            skipped: AtomicUsize::new(0),
        }
    }

    pub(crate) fn trust(&self) -> Duration {
        self.node.trust
    }

    /// Returns a name whose slot the primary serves.
    fn tag(&self) -> Result<String, ConnectError> {
        let cluster = self.cluster.upgrade().ok_or(ConnectError::ShutDown)?;
        let skipped = self.skipped.load(Ordering::Relaxed) % NAMES;
        let tag = cluster.tag_of(&self.place, skipped);
        // A primary that serves few slots may have no other name.
        tag.or_else(|| cluster.tag_of(&self.place, 0))
            .ok_or(ConnectError::Another)
    }

    /// Skips the current name from now on if this error says that its slot is moving. Returns
    /// whether it says so.
    fn skips_moving(&self, error: Option<&RedisError>) -> bool {
        let code = error.and_then(RedisError::code);
        let is_moving = matches!(code, Some("ASK" | "TRYAGAIN" | "MOVED"));
        if is_moving {
            self.skipped.fetch_add(1, Ordering::Relaxed);
        }
        is_moving
    }

    /// Returns a write that changes nothing. A server refuses it if it is no primary, has too few
    /// replicas, or is cut off from the others.
    fn write(&self, tag: &str) -> Pipeline {
        let mut pipeline = Pipeline::new();
        let key = format!("{}layercache::{{{tag}}}", self.node.prefix());
        pipeline.cmd("PERSIST").arg(key);
        pipeline
    }

    /// Tries the write with one name after another. Returns the name that worked.
    async fn try_names(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<String, ConnectError> {
        for _ in 1..NAMES {
            let tag = self.tag()?;
            let written: RedisResult<Vec<Value>> = self.write(&tag).query_async(connection).await;
            match written {
                Ok(_) => return Ok(tag),
                Err(error) if self.skips_moving(Some(&error)) => {}
                Err(error) => return Err(ConnectError::Connecting(error)),
            }
        }
        Err(ConnectError::Another)
    }

    /// Returns the connection to the primary that has the record. Waits for it, because it is often
    /// being made at the same time.
    async fn home(&self) -> Result<MultiplexedConnection, ConnectError> {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.home.get().await {
                Ok(home) => return Ok(home),
                Err(failure) if Instant::now() > end => {
                    return Err(ConnectError::Unproven(Box::new(failure)));
                }
                Err(_) => sleep(PATIENCE / 40).await,
            }
        }
    }

    /// Checks whether the primary is still the same server. Returns whether this session goes on.
    async fn beat(&self, connection: &Connection, session: u64, identity: &Identity) -> bool {
        let began = Instant::now();
        let Ok(tag) = self.tag() else {
            connection.give_up(session, ConnectError::Another);
            return false;
        };
        let mut questions = self.write(&tag);
        About::ask(&mut questions);
        let answer = connection.run_on(session, "heartbeat", &mut questions);
        let Ok(replies) = answer.await else {
            return true;
        };
        match About::read(&replies) {
            Some(now) if now.identity != *identity || !now.is_primary => {
                connection.give_up(session, ConnectError::Another);
                false
            }
            Some(_) if replies.iter().all(Result::is_ok) => {
                // A server that was frozen may not know yet that it was replaced. The map closes
                // the connection to a server that is no primary any more.
                if !self.standing.holds(Instant::now())
                    && let Some(cluster) = self.cluster.upgrade()
                    && cluster.look_now().await.is_err()
                {
                    return true;
                }
                let proven = || self.standing.proven(Proof::Identity, began, self.trust());
                connection.while_up(session, proven);
                true
            }
            _ => {
                // The slot has moved, or the server is cut off.
                self.skips_moving(replies.first().and_then(|reply| reply.as_ref().err()));
                self.look_again();
                true
            }
        }
    }

    /// Asks for the map again: another primary may serve the slots.
    fn look_again(&self) {
        if let Some(cluster) = self.cluster.upgrade() {
            cluster.look_again();
        }
    }
}

#[async_trait]
impl Lifecycle<Connection> for PrimaryLifecycle {
    /// Makes sure that the data of the primary is not from before a failover.
    async fn handshake(
        &self,
        connection: &mut MultiplexedConnection,
        _: u64,
        resolve: &dyn Resolve,
        _: &Located,
    ) -> Result<Identity, ConnectError> {
        let mut began = Instant::now();
        let about = About::handshake(connection, true).await?;
        let tag = self.try_names(connection).await?;
        preflight(connection, self.node.prefix(), &tag).await?;
        let mut home = self.home().await?;
        let nodes = self.node.channel.nodes_key();
        let mut record = Record {
            connection: &mut home,
            nodes: &nodes,
            node: self.node.channel.node,
            purges: &self.node.purges,
        };
        let prefix = self.node.prefix();
        let purged = record.purge_if_another(&about.identity, None, connection, prefix);
        if purged.await.map_err(ConnectError::Connecting)? {
            // The purge took time, so check that this is still the same server.
            began = Instant::now();
            let now = About::handshake(connection, true).await?;
            if now.identity != about.identity {
                return Err(ConnectError::Another);
            }
            self.try_names(connection).await?;
        }
        self.node.advise(&about, resolve);
        self.standing.proven(Proof::Identity, began, self.trust());
        Ok(about.identity)
    }

    /// Checks the server regularly.
    fn up(self: Arc<Self>, connection: &Connection, number: u64, identity: Identity, _: Located) {
        let (pause, connection) = (self.node.pause(), connection.downgrade());
        // The connection holds this, so the task must not.
        let primary = Arc::downgrade(&self);
        tokio::spawn(async move {
            loop {
                sleep(pause).await;
                let (Some(primary), Some(connection)) = (primary.upgrade(), connection.upgrade())
                else {
                    return;
                };
                if !connection.is_alive(number)
                    || !primary.beat(&connection, number, &identity).await
                {
                    return;
                }
            }
        });
    }

    fn down(&self, _: u64, _: Option<Gap>) {
        self.look_again();
    }

    fn push(&self, _: u64, push: &PushInfo) -> bool {
        push.kind == PushKind::Disconnection
    }

    fn standing(&self) -> (&Trust, Duration) {
        (&self.standing, self.trust())
    }
}

/// A node that is connected to a cluster, with the connection of its channel.
#[derive(Debug)]
pub(crate) struct NodeInCluster {
    pub(crate) node: Arc<Node>,
    pub(crate) home: Connection,
}

impl ClusterNode for NodeInCluster {
    fn lifecycle(
        &self,
        cluster: Weak<Cluster>,
        primary: HostPort,
    ) -> Arc<dyn Lifecycle<Connection>> {
        let (node, home) = (Arc::clone(&self.node), self.home.clone());
        Arc::new(PrimaryLifecycle::new(node, home, cluster, primary))
    }

    fn longest_trust(&self) -> Duration {
        self.node.channel.longest_trust()
    }
}
