//! How a connection is made, and how a silent server is listened to until it answers again.

use super::{Connection, Inner};
use crate::cache::redis::net::connect_error::ConnectError;
use crate::cache::redis::net::in_time::in_time;
use crate::cache::redis::net::resolve::Located;
use crate::cache::redis::net::server_info::Identity;
use crate::telemetry::metrics::Gap;
use crate::telemetry::spans;
use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, PushInfo, Value};
use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tracing::{Span, field};

/// How long connecting may take. Callers wait only until their own deadlines.
pub(super) const CONNECT: Duration = Duration::from_secs(2);
/// How long a handshake may take. A node may have to purge the server during it, which takes minutes
/// if Redis has a hundred million keys. Each command has a shorter deadline of its own.
const HANDSHAKE: Duration = Duration::from_secs(15 * 60);

/// The result of a successful probe.
struct Probed {
    connection: MultiplexedConnection,
    located: Located,
    identity: Option<Identity>,
}

impl Inner {
    /// Connects. Runs in a task of its own, so a caller that gives up waiting does not end it.
    pub(super) async fn probe(self: Arc<Self>, _task: Arc<()>) {
        let number = fastrand::u64(1..);
        let probed = timeout(CONNECT + HANDSHAKE, self.open(number)).await;
        let probed = probed.unwrap_or(Err(ConnectError::Slow(HANDSHAKE)));
        let mut breaker = self.breaker();
        match probed {
            Ok(probed) => {
                let transition = breaker.probed(probed.connection, number, Instant::now());
                if breaker.number() != Some(number) {
                    drop(breaker);
                    return self.down(number, None);
                }
                drop(breaker);
                Span::current().record("server", field::debug(&probed.located.server));
                if transition.is_some() {
                    tracing::info!(server = ?probed.located.server, "connected to Redis");
                }
                if let (Some(lifecycle), Some(identity)) = (&self.lifecycle, probed.identity) {
                    let connection = Connection {
                        inner: Arc::clone(&self),
                    };
                    let lifecycle = Arc::clone(lifecycle);
                    lifecycle.up(&connection, number, identity, probed.located);
                }
            }
            Err(error) => {
                spans::failed(&Span::current(), Some(&error));
                tracing::debug!(%error, "the probe of Redis has failed");
                let transition = breaker.failed(error, Instant::now(), fastrand::f64());
                drop(breaker);
                self.down(number, Some(Gap::Failed));
                self.opened(transition);
            }
        }
    }

    /// Connects, and does all that comes before the first use of the connection.
    async fn open(self: &Arc<Self>, number: u64) -> Result<Probed, ConnectError> {
        let located = timeout(CONNECT, self.resolve.locate()).await;
        let located = located.unwrap_or(Err(ConnectError::Slow(CONNECT)))?;
        let server = match &self.lifecycle {
            None => located.server.clone(),
            Some(_) => located.server.clone().with_pushes(),
        };
        // Bounds each answer in the handshake: a network that fails there would otherwise be
        // noticed only after a minute. Operations have deadlines of their own, which come earlier.
        let answer = CONNECT.max(self.deadline);
        let mut config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(answer));
        if let Some(lifecycle) = &self.lifecycle {
            let (inner, lifecycle) = (Arc::downgrade(self), Arc::downgrade(lifecycle));
            config = config.set_push_sender(move |push: PushInfo| {
                if let (Some(inner), Some(lifecycle)) = (inner.upgrade(), lifecycle.upgrade())
                    && lifecycle.push(number, &push)
                {
                    inner.lost(number, ConnectError::Closed);
                }
                Ok::<_, Infallible>(())
            });
        }
        let connected = timeout(CONNECT, server.connect(&config)).await;
        let connected = connected.map_err(|_| ConnectError::Slow(CONNECT))?;
        let mut connection = connected.map_err(ConnectError::Connecting)?;
        let identity = match &self.lifecycle {
            None => None,
            Some(lifecycle) => {
                let resolve = self.resolve.as_ref();
                let handshake = lifecycle.handshake(&mut connection, number, resolve, &located);
                Some(handshake.await?)
            }
        };
        // A server that answers too slowly for operations is not used.
        let ping = ::redis::cmd("PING");
        let ping = ping.query_async::<Value>(&mut connection);
        let pong = timeout(self.deadline, ping).await;
        pong.map_err(|_| ConnectError::Slow(self.deadline))?
            .map_err(ConnectError::Connecting)?;
        Ok(Probed {
            connection,
            located,
            identity,
        })
    }
}

/// Sends `PING` to a silent server, on the connection that there is, until an answer comes in time.
pub(super) async fn listen(inner: Weak<Inner>, number: u64, _task: Arc<()>) {
    loop {
        let Some((mut connection, patience)) = inner.upgrade().and_then(|inner| {
            let connection = inner.breaker().connection(number)?;
            Some((connection, inner.deadline))
        }) else {
            return;
        };
        let ping = ::redis::cmd("PING");
        let mut pong = pin!(ping.query_async::<Value>(&mut connection));
        let answer = in_time(Instant::now() + patience, pong.as_mut()).await;
        let is_in_time = answer.is_ok();
        // A second `PING` would not be answered before this one.
        let answer = match answer {
            Ok(answer) => answer,
            Err(_) => pong.await,
        };
        let Some(inner) = inner.upgrade() else { return };
        match answer {
            Ok(_) if is_in_time => {
                let transition = inner.breaker().resumed(number, Instant::now());
                if transition.is_some() {
                    tracing::info!("Redis answers again");
                }
                return;
            }
            Ok(_) => {}
            // The heartbeats of a node find out when its connection has to be given up for other
            // errors.
            Err(error) if error.is_unrecoverable_error() || inner.lifecycle.is_none() => {
                return inner.lost(number, ConnectError::Lost(error));
            }
            Err(_) => {}
        }
        drop(inner);
        sleep(patience / 2).await;
    }
}
