//! How a client of redis-rs is made for a server, with TLS or without.

use crate::cache::redis::net::address::{Server, Tls};
use ::redis::{Client, RedisResult};

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
