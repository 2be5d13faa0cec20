//! [`Connector`]: who opens the byte streams to the servers of Redis?

use ::redis::aio::AsyncStream;
use async_trait::async_trait;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

/// A stream of bytes to a server of Redis.
///
/// ```
/// use layercache::RedisStream;
/// use tokio::io::{DuplexStream, duplex};
///
/// let (ours, theirs): (DuplexStream, DuplexStream) = duplex(1024);
/// let stream: RedisStream = Box::pin(ours);
/// # drop((stream, theirs));
/// ```
pub type RedisStream = Pin<Box<dyn AsyncStream + Send>>;

/// Opens the byte streams to the servers of Redis: a tunnel, a proxy, or a simulated network.
///
/// The node calls it for each connection that it makes: to the server of a `redis://` address, to
/// each sentinel and to the primary that the sentinels name, and to each server of a cluster. The
/// node speaks Redis's protocol on the stream, and logs in there, but does not encrypt: the
/// connector does that if it has to. [`RedisConfig::with_connector`](crate::RedisConfig) sets it.
///
/// ```
/// use layercache::{Connector, RedisConfig, RedisStream};
/// use std::io;
/// use std::sync::Arc;
/// use tokio::net::TcpStream;
///
/// /// Reaches each server through a sidecar on this machine.
/// #[derive(Debug)]
/// struct Sidecar;
///
/// #[async_trait::async_trait]
/// impl Connector for Sidecar {
///     async fn connect(&self, _host: &str, port: u16) -> io::Result<RedisStream> {
///         Ok(Box::pin(TcpStream::connect(("127.0.0.1", port)).await?))
///     }
/// }
///
/// let config = RedisConfig::new("redis://redis.internal").with_connector(Arc::new(Sidecar));
/// ```
#[async_trait]
pub trait Connector: fmt::Debug + Send + Sync {
    /// Opens a stream to the server with this host and port.
    ///
    /// # Errors
    /// The node treats an error as a server that cannot be reached, and tries again later.
    ///
    /// # Cancellation
    /// The node drops the future when connecting takes too long.
    async fn connect(&self, host: &str, port: u16) -> io::Result<RedisStream>;
}

/// The connector of the application, if it has one.
#[derive(Debug, Clone, Default)]
pub(crate) struct OwnConnector(pub(crate) Option<Arc<dyn Connector>>);

/// Compares which connector it is.
impl PartialEq for OwnConnector {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        }
    }
}

impl Eq for OwnConnector {}
