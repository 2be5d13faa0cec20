//! How a connection to a server is opened: by redis-rs, with TLS or without, or on a stream of the
//! application's connector.

use crate::cache::redis::net::address::{Server, Tls};
use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, RedisResult};

impl Server {
    /// Opens a connection to this server.
    pub(crate) async fn connect(
        &self,
        config: &AsyncConnectionConfig,
    ) -> RedisResult<MultiplexedConnection> {
        let Some(connector) = &self.connector.0 else {
            let client = self.client()?;
            return client
                .get_multiplexed_async_connection_with_config(config)
                .await;
        };
        let (host, port) = self.place();
        let stream = connector.connect(&host, port).await?;
        let settings = self.info.redis_settings();
        let connecting = MultiplexedConnection::new_with_config(settings, stream, config.clone());
        let (connection, driver) = connecting.await?;
        // The driver ends with the last handle of the connection.
        tokio::spawn(driver);
        Ok(connection)
    }

    /// Returns redis-rs's client for this server.
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
