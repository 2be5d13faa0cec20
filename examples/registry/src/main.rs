//! A small OCI registry on [`layercache`]: flags, start and shutdown.
//!
//! It uses docker/distribution's storage layout. So it serves what the Go registry has written, and
//! the Go registry serves what it has written. It has no authentication: put a proxy in front of it
//! that has.

mod admin;
mod app;
mod blobs;
mod error;
mod folder;
mod headers;
mod limits;
mod lookup;
mod manifests;
mod options;
mod paths;
mod process;
mod range;
mod referrers;
mod route;
mod router;
mod server;
mod storage;
mod tags;
mod units;
mod unread;
mod uploads;

use app::App;
use clap::Parser;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use options::Options;
use std::error::Error;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{interval, sleep, timeout};
use tracing_subscriber::EnvFilter;

/// How long requests may go on after a signal to stop, and then how long each step of the shutdown
/// may take.
const GRACE: Duration = Duration::from_secs(10);

/// The buckets of durations, in seconds: from a round trip to a Redis nearby to a request to a
/// storage in trouble.
const BUCKETS: [f64; 16] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    match run(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<(), Box<dyn Error>> {
    // The recorder comes first, because the store takes its counters from it when it is made.
    let metrics = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)?
        .install_recorder()?;
    process::describe();
    let store = options.store().unwrap_or_else(|error| error.exit());
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
            tracing::warn!("stopped with requests under way");
        }
    }
    sweeper.abort();
    if timeout(GRACE, app.uploads.discard_all()).await.is_err() {
        tracing::warn!("stopped with uploads left over");
    }
    // After this, changes of other nodes do not wait for this node.
    if timeout(GRACE, app.store.shutdown()).await.is_err() {
        tracing::warn!("stopped without a word to the other nodes");
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
