//! Which server a connection goes to: a fixed one, or the one that sentinels or a cluster name.

use crate::cache::redis::net::address::{Server, Tls};
use crate::cache::redis::net::cluster::Cluster;
use crate::cache::redis::net::connect_error::ConnectError;
use crate::cache::redis::net::sentinel::Sentinels;
use ::redis::{Client, RedisResult};
use std::cmp::Ordering;
use std::sync::Weak;
use tokio::time::Instant;

/// Decides which server a connection goes to, anew for each connection.
#[derive(Debug)]
pub(crate) enum Route {
    /// Always this server.
    Fixed(Server),
    /// The primary that the sentinels name.
    Sentinels(Sentinels),
    /// The primary of a cluster that serves this slot.
    Slot(Weak<Cluster>, u16),
}

/// A server that a route has found.
#[derive(Debug, Clone)]
pub(crate) struct Located {
    pub(crate) server: Server,
    /// When the sentinels were asked, and the epoch of the latest failover that they know. `None`
    /// if no sentinels were asked.
    pub(crate) named: Option<(Instant, u64)>,
}

/// Whether a route still leads to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checked {
    Stays,
    Moved,
    /// Too few sentinels, or no server of the cluster, answered.
    Unknown,
}

impl Route {
    pub(crate) async fn locate(&self) -> Result<Located, ConnectError> {
        let server = match self {
            Self::Fixed(server) => server.clone(),
            Self::Sentinels(sentinels) => return sentinels.locate(None).await,
            Self::Slot(cluster, slot) => match cluster.upgrade() {
                Some(cluster) => cluster.primary_of(*slot).await?,
                None => return Err(ConnectError::ShutDown),
            },
        };
        Ok(Located {
            server,
            named: None,
        })
    }

    pub(crate) const fn leads_into_a_cluster(&self) -> bool {
        matches!(self, Self::Slot(..))
    }

    /// Checks whether the route still leads to this server.
    pub(crate) async fn check(&self, from: &Located) -> Checked {
        match (self, from.named) {
            (Self::Sentinels(sentinels), Some((_, epoch))) => {
                let Ok(now) = sentinels.locate(Some(epoch)).await else {
                    return Checked::Unknown;
                };
                match now.named.map(|(_, now)| now.cmp(&epoch)) {
                    // All sentinels that answered have missed a failover that this node knows of.
                    None | Some(Ordering::Less) => Checked::Unknown,
                    Some(Ordering::Equal) if now.server == from.server => Checked::Stays,
                    Some(_) => Checked::Moved,
                }
            }
            // A replaced server of a cluster says so itself, but only once it knows it. So ask the
            // others.
            (Self::Slot(..), _) => match self.locate().await {
                Ok(now) if now.server == from.server => Checked::Stays,
                Ok(_) => Checked::Moved,
                Err(_) => Checked::Unknown,
            },
            _ => Checked::Stays,
        }
    }
}

impl Server {
    /// Returns a client that connects to this server.
    pub(crate) fn client(&self) -> RedisResult<Client> {
        match &self.tls {
            None => Client::open(self.info.clone()),
            Some(tls) => secure(self, tls),
        }
    }
}

#[cfg(feature = "redis-tls")]
fn secure(server: &Server, tls: &Tls) -> RedisResult<Client> {
    use ::redis::{ClientTlsConfig, TlsCertificates};
    use rustls::crypto::{CryptoProvider, ring};

    if CryptoProvider::get_default().is_none() {
        // redis-rs uses the process's default provider, and panics without one. If another thread
        // installs one first, that one is used.
        let _ = ring::default_provider().install_default();
    }
    let Tls { ca, client } = tls.clone();
    let client_tls = client.map(|(client_cert, client_key)| ClientTlsConfig {
        client_cert,
        client_key,
    });
    let certificates = TlsCertificates {
        client_tls,
        root_cert: ca,
    };
    Client::build_with_tls(server.info.clone(), certificates)
}

#[cfg(not(feature = "redis-tls"))]
fn secure(server: &Server, _: &Tls) -> RedisResult<Client> {
    Client::open(server.info.clone())
}
