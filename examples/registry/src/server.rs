//! Serves connections as [`axum::serve()`] does, but with limits that `axum` does not have.

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

/// The longest head of a request, in bytes: a target of 64 KiB, which is the most that the crate
/// `http` accepts, and headers.
const MAX_HEAD: usize = 80 << 10;

/// How many headers a request may have.
const MAX_HEADERS: usize = 100;

/// How long the server accepts no connection after it could not accept one.
const PAUSE: Duration = Duration::from_secs(1);

/// Serves until `stop` is ready, and then until all requests are answered. A client may take up to
/// `patience` to send the head of a request, and to read a part of an answer.
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
            // The error concerns one client, or all of them: for example, too many files are open.
            Err(error) => {
                tracing::debug!(%error, "a connection was not accepted");
                if !concerns_one_client(&error) {
                    sleep(PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    graceful.shutdown().await;
}

fn connect(graceful: &GracefulShutdown, stream: TcpStream, router: Router, patience: Duration) {
    // The server writes an answer as a whole, so a delay to collect more bytes gains nothing.
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

/// Returns whether the error concerns only one client.
fn concerns_one_client(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}
