//! Which primaries are at an address, and may the cache use them?

use crate::cache::redis::config::RedisConfig;
use crate::cache::redis::net::address::{Address, Server};
use crate::cache::redis::net::cluster::Cluster;
use crate::cache::redis::net::connect_error::ConnectError;
use crate::cache::redis::net::resolve::Resolve;
use crate::cache::redis::net::sentinel::Sentinels;
use crate::cache::redis::net::server_info::About;
use crate::cache::redis::node::preflight::preflight;
use crate::types::Error;
use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, RedisError};
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::timeout;

/// The servers at an address.
#[derive(Debug)]
pub enum Topology {
    /// A single server.
    Single(Primary),
    /// Sentinels, which name the primary of a service.
    Sentinels {
        /// The name of the service.
        service: String,
        /// Its primary.
        primary: Result<Primary, Unusable>,
    },
    /// A cluster: its primaries, and how many slots they serve.
    Cluster(Result<(Vec<Primary>, u32), Unusable>),
}

/// A primary that a node would use.
#[derive(Debug)]
pub struct Primary {
    server: Server,
    /// What the keys of the cache begin with.
    pub prefix: String,
    /// A name that leads to this primary if it is in the braces of a key.
    pub tag: String,
    in_cluster: bool,
    has_sentinels: bool,
}

/// Why a node cannot use a server. Contains no secret.
#[derive(Debug, Clone)]
pub enum Unusable {
    /// The connection failed, or Redis refused a command.
    Redis(RedisError),
    /// The user may not run these commands.
    Forbidden(Vec<String>),
    /// Another reason, and after `; ` or `: ` what to do about it.
    Other(String),
}

impl From<ConnectError> for Unusable {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Connecting(error) => Self::Redis(error),
            ConnectError::Forbidden(commands) => Self::Forbidden(commands),
            other => Self::Other(other.to_string()),
        }
    }
}

/// Finds the primaries of a Redis as a node does.
///
/// # Errors
/// Returns an error if a setting is not valid.
pub async fn find_primaries(config: &RedisConfig) -> Result<Topology, Error> {
    let address = config.check()?;
    let prefix = config.key_prefix();
    let primary = |server, tag: &str, in_cluster, has_sentinels| Primary {
        server,
        prefix: prefix.clone(),
        tag: tag.to_owned(),
        in_cluster,
        has_sentinels,
    };
    Ok(match address {
        Address::One(server) => Topology::Single(primary(server, "nodes", false, false)),
        Address::Sentinel {
            sentinels,
            service,
            primary: template,
        } => {
            let sentinels = Sentinels::new(sentinels, service.clone(), template);
            let located = sentinels.locate().await;
            let primary = located.map(|located| primary(located.server, "nodes", false, true));
            Topology::Sentinels {
                service,
                primary: primary.map_err(Unusable::from),
            }
        }
        Address::Cluster { seeds } => {
            let cluster = Cluster::new(seeds, config.timeout);
            let map = cluster.look_now().await;
            let found = map.map(|map| {
                let places = map.primaries().into_iter();
                let primaries = places.filter_map(|place| {
                    let tag = map.tag_of(&place)?;
                    Some(primary(cluster.server(place), &tag, true, false))
                });
                (primaries.collect(), map.served())
            });
            cluster.close();
            Topology::Cluster(found.map_err(Unusable::from))
        }
    })
}

impl Primary {
    /// Returns the host and the port, without a secret.
    pub fn name(&self) -> String {
        format!("{:?}", self.server)
    }

    /// Connects. Each command on the connection then waits `patience` for its reply.
    ///
    /// # Errors
    /// Returns an error if the server does not answer within `patience`, or refuses the connection.
    pub async fn connect(&self, patience: Duration) -> Result<MultiplexedConnection, Unusable> {
        // Nobody reads the push messages, but the connection needs a place for them.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(patience))
            .set_response_timeout(Some(patience))
            .set_push_sender(|_| Ok::<_, Infallible>(()));
        let server = self.server.clone().with_pushes();
        let connected = timeout(patience, server.connect(&config)).await;
        connected
            .map_err(|_| Unusable::from(ConnectError::Slow(patience)))?
            .map_err(Unusable::Redis)
    }

    /// Checks that the server is a primary that a node can use. Returns advice for its operators.
    ///
    /// # Errors
    /// Returns an error if a node would not use the server.
    pub async fn advice(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<Vec<&'static str>, Unusable> {
        let about = About::handshake(connection, self.in_cluster).await?;
        Ok(about.advice(self.has_sentinels))
    }

    /// Tries all commands that a node uses, on keys that it removes afterwards.
    ///
    /// # Errors
    /// Returns an error that names the commands that the user may not run.
    pub async fn preflight(&self, connection: &mut MultiplexedConnection) -> Result<(), Unusable> {
        Ok(preflight(connection, &self.prefix, &self.tag).await?)
    }
}
