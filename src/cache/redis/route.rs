//! Which server a connection is made to.

use super::address::{Server, Tls};
use super::cluster::Cluster;
use super::sentinel::Sentinels;
use super::trouble::Trouble;
use ::redis::{Client, RedisResult};
use std::cmp::Ordering;
use std::sync::Weak;
use tokio::time::Instant;

/// Which server a connection is made to, decided anew for each connection.
#[derive(Debug)]
pub(super) enum Route {
    /// Always this one.
    Fixed(Server),
    /// The primary that the sentinels name.
    Sentinels(Sentinels),
    /// The primary of a cluster that serves this slot.
    Slot(Weak<Cluster>, u16),
}

/// A server that a connection is made to.
#[derive(Debug, Clone)]
pub(super) struct Located {
    pub(super) server: Server,
    /// When it was asked for, where others say where it is; and which failover the latest was then.
    pub(super) named: Option<(Instant, u64)>,
}

/// Whether connections still go to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checked {
    Stays,
    Moved,
    /// Too few have said so.
    Unknown,
}

impl Route {
    pub(super) async fn locate(&self) -> Result<Located, Trouble> {
        let server = match self {
            Self::Fixed(server) => server.clone(),
            Self::Sentinels(sentinels) => return sentinels.locate(None).await,
            Self::Slot(cluster, slot) => match cluster.upgrade() {
                Some(cluster) => cluster.primary_of(*slot).await?,
                None => return Err(Trouble::Left),
            },
        };
        Ok(Located {
            server,
            named: None,
        })
    }

    pub(super) const fn leads_into_a_cluster(&self) -> bool {
        matches!(self, Self::Slot(..))
    }

    /// Whether connections still go to this server.
    pub(super) async fn check(&self, from: &Located) -> Checked {
        match (self, from.named) {
            (Self::Sentinels(sentinels), Some((_, epoch))) => {
                let Ok(now) = sentinels.locate(Some(epoch)).await else {
                    return Checked::Unknown;
                };
                match now.named.map(|(_, now)| now.cmp(&epoch)) {
                    // All who have answered were away themselves.
                    None | Some(Ordering::Less) => Checked::Unknown,
                    Some(Ordering::Equal) if now.server == from.server => Checked::Stays,
                    Some(_) => Checked::Moved,
                }
            }
            // In a cluster the servers themselves say so, unless they have not heard of it yet.
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
    /// What connects to it.
    pub(super) fn client(&self) -> RedisResult<Client> {
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
        // redis-rs takes the process's, and panics where there is none. Another may win the race.
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
