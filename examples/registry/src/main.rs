//! The binary of the example registry: it sets up logs and cryptography, and runs the library.
#![forbid(unsafe_code)]

use clap::Parser;
use registry::{Options, run};
use std::io::IsTerminal;
use std::process::ExitCode;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let log = fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    tracing_subscriber::registry()
        .with(log.with_filter(log_filter()))
        .init();
    // S3 and Redis use it for TLS. It fails only if the process has a provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match run(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast::<clap::Error>() {
            Ok(error) => error.exit(),
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        },
    }
}

/// Returns which messages are logged: those that `RUST_LOG` names, or all from `info` up.
/// `EnvFilter` could also name spans and fields, and needs two crates for regular expressions.
fn log_filter() -> Targets {
    let filter = std::env::var("RUST_LOG").ok();
    filter
        .and_then(|filter| filter.parse().ok())
        .unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO))
}
