//! How the registry starts, serves and stops.

use crate::app::App;
use crate::options::Options;
use crate::{process, router, server};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use std::error::Error;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{interval, sleep, timeout};

/// How long requests may go on after a signal to stop, and then how long each step of the shutdown
/// may take.
const GRACE: Duration = Duration::from_secs(10);

/// The buckets of durations, in seconds. The smallest fits a round trip to a near Redis, the
/// largest a request to a slow storage.
const BUCKETS: [f64; 16] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// Runs the registry until the process gets SIGTERM or SIGINT.
///
/// The process needs a default provider of [`rustls`](rustls::crypto::CryptoProvider) first, and
/// only one call in a process can install the recorder of the metrics.
///
/// # Errors
/// Returns a [`clap::Error`] if the options name no usable storage or Redis, and another error if
/// the address is not free or the metrics have a recorder already.
pub async fn run(options: Options) -> Result<(), Box<dyn Error + Send + Sync>> {
    // The recorder is installed first, because the store takes its counters from it.
    let metrics = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)?
        .install_recorder()?;
    process::describe();
    let store = options.store()?;
    let app = Arc::new(App::new(store, metrics, &options));

    let listener = TcpListener::bind(&options.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", options.listen))?;
    announce(&options, &listener)?;

    let (stop, mut stopping) = watch::channel(false);
    tokio::spawn(async move {
        if let Err(error) = stop_signal().await {
            tracing::error!(%error, "cannot wait for signals");
        }
        let _ = stop.send(true);
    });
    let sweeper = tokio::spawn(sweep(Arc::clone(&app)));

    let mut stopped = stopping.clone();
    let router = router::router(Arc::clone(&app), options.admin);
    let stop = async move {
        let _ = stopping.changed().await;
        tracing::info!("stopping");
    };
    tokio::select! {
        () = server::serve(listener, router, options.limits.client_timeout, stop) => {}
        () = async { let _ = stopped.changed().await; sleep(GRACE).await } => {
            tracing::warn!("stopped while requests were still running");
        }
    }
    sweeper.abort();
    if timeout(GRACE, app.uploads.discard_all()).await.is_err() {
        tracing::warn!("stopped before the content of all uploads was removed");
    }
    // After this, no other node waits for this node when it changes something.
    if timeout(GRACE, app.store.shutdown()).await.is_err() {
        tracing::warn!("stopped before the other nodes were told");
    }
    Ok(())
}

fn announce(options: &Options, listener: &TcpListener) -> std::io::Result<()> {
    let address = listener.local_addr()?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "registry on http://{address}/v2/")?;
    writeln!(out, "  storage: {}", options.storage)?;
    writeln!(out, "  cache:   {}", options.tiers())?;
    writeln!(out, "  metrics: http://{address}/metrics")?;
    if options.admin {
        writeln!(out, "  purge:   POST http://{address}/admin/purge")?;
    }
    writeln!(out, "try:")?;
    writeln!(out, "  curl -i http://{address}/v2/")?;
    writeln!(
        out,
        "  skopeo copy --dest-tls-verify=false docker://alpine docker://{address}/library/alpine"
    )?;
    out.flush()
}

async fn sweep(app: Arc<App>) {
    let mut ticks = interval(app.limits.sweep());
    loop {
        ticks.tick().await;
        app.uploads.discard_idle().await;
        app.metrics.run_upkeep();
    }
}

async fn stop_signal() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
