//! Which server a connection is made to.

use super::address::{Server, Tls};
use super::cluster::Cluster;
use super::sentinel::Sentinels;
use super::trouble::Trouble;
use ::redis::{Client, RedisResult};
use std::sync::Weak;

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

impl Route {
    pub(super) async fn server(&self) -> Result<Server, Trouble> {
        match self {
            Self::Fixed(server) => Ok(server.clone()),
            Self::Sentinels(sentinels) => sentinels.primary().await,
            Self::Slot(cluster, slot) => match cluster.upgrade() {
                Some(cluster) => cluster.primary_of(*slot).await,
                None => Err(Trouble::Left),
            },
        }
    }

    pub(super) const fn leads_into_a_cluster(&self) -> bool {
        matches!(self, Self::Slot(..))
    }

    /// Whether connections now go to another server than to this one.
    pub(super) async fn has_moved(&self, from: &Server) -> bool {
        match self {
            Self::Sentinels(sentinels) => sentinels.primary().await.is_ok_and(|now| now != *from),
            // The servers themselves say so.
            Self::Fixed(_) | Self::Slot(..) => false,
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
