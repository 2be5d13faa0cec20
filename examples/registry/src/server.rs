//! Connections: as [`axum::serve`] has them, and with limits, which that has not.

use crate::unread::Unread;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::pin::pin;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

/// The longest head of a request: a target of 64 KiB, which is the most there can be, and headers.
const MAX_HEAD: usize = 80 << 10;

/// How many headers a request may have.
const MAX_HEADERS: usize = 100;

/// How long nobody is let in when there is no room for one more connection.
const PAUSE: Duration = Duration::from_secs(1);

/// Serves until `stop`, and then until all requests are answered. A client may be silent for
/// `patience` while it sends a head, and an answer may be unread for as long.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    patience: Duration,
    stop: impl Future<Output = ()>,
) {
    let graceful = GracefulShutdown::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        match accepted {
            Ok((stream, _)) => connect(&graceful, stream, router.clone(), patience),
            // Of one client, and no matter; or of all, as too many files are open.
            Err(error) => {
                tracing::debug!(%error, "a connection was not accepted");
                if !is_of_one(&error) {
                    sleep(PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    graceful.shutdown().await;
}

fn connect(graceful: &GracefulShutdown, stream: TcpStream, router: Router, patience: Duration) {
    // Answers are written at once, so there is nothing to wait for.
    let _ = stream.set_nodelay(true);
    let stream = TokioIo::new(Unread::new(stream, patience));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_header_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(stream, TowerToHyperService::new(router));
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection has failed");
        }
    });
}

fn is_of_one(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}
