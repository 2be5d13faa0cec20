//! A node's connection to one primary of a cluster, beside its end of the channel.

use super::about::{About, Identity};
use super::address::Place;
use super::cluster::Cluster;
use super::connection::{Connection, Greeted, Line};
use super::purge::Record;
use super::rehearsal::rehearse;
use super::route::Route;
use super::session::Node;
use super::trouble::Trouble;
use crate::coherence::trust::{Proof, Trust};
use ::redis::aio::MultiplexedConnection;
use ::redis::{Pipeline, RedisError, RedisResult, Value};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How many names are tried until one is in a slot that is not on its way.
const NAMES: usize = 8;

/// How long the end of the channel is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a connection to one primary is used for.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) node: Arc<Node>,
    /// The node's end of the channel, on the primary that has the record of servers.
    pub(super) home: Connection,
    pub(super) cluster: Weak<Cluster>,
    pub(super) place: Place,
    /// Of the primary behind the connection that is up.
    pub(super) standing: Trust,
    /// How many names are passed over, because their slots were on their way.
    passed: AtomicUsize,
}

impl Shard {
    pub(super) fn new(
        node: Arc<Node>,
        home: Connection,
        cluster: Weak<Cluster>,
        place: Place,
    ) -> Self {
        let standing = Trust::none(Instant::now());
        // The channel is elsewhere.
        standing.needs_no(Proof::Heartbeat);
        Self {
            node,
            home,
            cluster,
            place,
            standing,
            passed: AtomicUsize::new(0),
        }
    }

    pub(super) fn trust(&self) -> Duration {
        self.node.trust
    }

    /// A name whose slot the primary serves.
    fn tag(&self) -> Result<String, Trouble> {
        let cluster = self.cluster.upgrade().ok_or(Trouble::Left)?;
        let passed = self.passed.load(Ordering::Relaxed) % NAMES;
        let tag = cluster.tag_of(&self.place, passed);
        // One that serves a few slots has no more names than these.
        tag.or_else(|| cluster.tag_of(&self.place, 0))
            .ok_or(Trouble::Another)
    }

    /// Tries another name next time, if it is the name's slot that is on its way and not the server
    /// that is away. Says whether it is.
    fn passes(&self, error: Option<&RedisError>) -> bool {
        let code = error.and_then(RedisError::code);
        let is_on_its_way = matches!(code, Some("ASK" | "TRYAGAIN" | "MOVED"));
        if is_on_its_way {
            self.passed.fetch_add(1, Ordering::Relaxed);
        }
        is_on_its_way
    }

    /// A write that changes nothing, which a server refuses that is no primary, or has too few
    /// replicas, or is cut off from the others.
    fn write(&self, tag: &str) -> Pipeline {
        let mut pipeline = Pipeline::new();
        let key = format!("{}layercache::{{{tag}}}", self.node.prefix());
        pipeline.cmd("PERSIST").arg(key);
        pipeline
    }

    /// Makes sure that what the primary has is not from before a failover.
    pub(super) async fn greet(
        &self,
        connection: &mut MultiplexedConnection,
        route: &Route,
    ) -> Result<Greeted, Trouble> {
        let mut began = Instant::now();
        let about = About::greet(connection, true).await?;
        let tag = self.try_names(connection).await?;
        rehearse(connection, self.node.prefix(), &tag).await?;
        let mut home = self.home().await?;
        let nodes = self.node.channel.nodes_key();
        let mut record = Record {
            connection: &mut home,
            nodes: &nodes,
            purges: &self.node.purges,
        };
        let prefix = self.node.prefix();
        let purged = record.purge_if_another(&about.identity, None, connection, prefix);
        if purged.await.map_err(Trouble::Connecting)? {
            // That took its time: it has to be the same server still.
            began = Instant::now();
            let now = About::greet(connection, true).await?;
            if now.identity != about.identity {
                return Err(Trouble::Another);
            }
            self.try_names(connection).await?;
        }
        self.node.advise(&about, route);
        self.standing.proven(Proof::Identity, began, self.trust());
        let identity = about.identity;
        Ok(Greeted { identity })
    }

    /// Writes what changes nothing, by one name or another; by which.
    async fn try_names(&self, connection: &mut MultiplexedConnection) -> Result<String, Trouble> {
        for _ in 1..NAMES {
            let tag = self.tag()?;
            let written: RedisResult<Vec<Value>> = self.write(&tag).query_async(connection).await;
            match written {
                Ok(_) => return Ok(tag),
                Err(error) if self.passes(Some(&error)) => {}
                Err(error) => return Err(Trouble::Connecting(error)),
            }
        }
        Err(Trouble::Another)
    }

    /// The connection to the primary that has the record, which is often being made at the same time.
    async fn home(&self) -> Result<MultiplexedConnection, Trouble> {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.home.get().await {
                Ok(home) => return Ok(home),
                Err(failure) if Instant::now() > end => {
                    return Err(Trouble::Unproven(Box::new(failure)));
                }
                Err(_) => sleep(PATIENCE / 40).await,
            }
        }
    }

    /// Looks after a connection that has just been made.
    pub(super) fn live(&self, line: &Arc<Line>, session: u64, identity: Identity) {
        let pause = self.node.pause();
        let line = Arc::downgrade(line);
        tokio::spawn(async move {
            loop {
                sleep(pause).await;
                let Some(line) = line.upgrade() else { return };
                let connection = Connection::of(line);
                if !connection.is_alive(session) || !connection.beat(session, &identity).await {
                    return;
                }
            }
        });
    }

    /// Sees whether the primary is still the one that it was. Says whether to go on.
    pub(super) async fn beat(
        &self,
        connection: &Connection,
        session: u64,
        identity: &Identity,
    ) -> bool {
        let began = Instant::now();
        let Ok(tag) = self.tag() else {
            connection.give_up(session, Trouble::Another);
            return false;
        };
        let mut questions = self.write(&tag);
        About::ask(&mut questions);
        let asked = connection.run_on(session, "heartbeat", &mut questions);
        let Ok(replies) = asked.await else {
            return true;
        };
        match About::read(&replies) {
            Some(now) if now.identity != *identity || !now.is_primary => {
                connection.give_up(session, Trouble::Another);
                false
            }
            Some(_) if replies.iter().all(Result::is_ok) => {
                // A server that wakes may not have heard yet that it was replaced. Whose place it is
                // no more is closed by this.
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
                // The slot is given away, or a server is cut off.
                self.passes(replies.first().and_then(|reply| reply.as_ref().err()));
                self.disconnected();
                true
            }
        }
    }

    /// The connection is lost: who serves what may have changed.
    pub(super) fn disconnected(&self) {
        if let Some(cluster) = self.cluster.upgrade() {
            cluster.look_again();
        }
    }
}
