//! The command `layercache`: checks, corrects, fills and purges a registry's cache, and watches its
//! nodes.
//!
//! Each command has a file. All commands share how a store and a Redis are named ([`storage`],
//! [`redis`]), how the output is written ([`out`], [`table`], [`style`]), and how a command fails
//! ([`command_error`]) and stops ([`stop`]). [`layercache_cli::admin`] has the audit, the checks
//! and the inspection.
#![forbid(unsafe_code)]

mod audit;
mod check;
mod command_error;
mod out;
mod purge;
mod redis;
mod stat;
mod stop;
mod storage;
mod style;
mod table;
#[path = "../../examples/registry/src/units.rs"]
#[allow(dead_code, reason = "shared with the example, which also has sizes")]
mod units;
mod warm;
mod watch;

use clap::{Parser, Subcommand};
use command_error::{CommandError, Stopped};
use out::Out;
use std::process::ExitCode;
use std::time::Duration;
use stop::Stop;

/// The part of `--help` that is common to all commands.
const AFTER_HELP: &str = "\
Exit codes:
  0    The command found no problem.
  1    The command found a problem: a disagreement, a finding, or a diagnostic `wrong`.
  2    The command failed: an argument is not valid, or a server cannot be reached.
  130  A signal interrupted the command.

Output:
  A terminal gets tables. A pipe gets lines with tabs between the fields. With --json the output
  is one JSON document, or one document in each line if the help of the command says so.
  Progress and errors go to standard error. Only a terminal gets colours, unless NO_COLOR is set.";

/// Checks, corrects, fills and purges the cache of a container registry's blob metadata.
#[derive(Parser)]
#[command(name = "layercache", version, after_help = AFTER_HELP)]
// It has no `Debug`, because the address of Redis may hold a password.
struct Arguments {
    /// Print JSON, for scripts
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Audit(audit::Options),
    Check(check::Options),
    Purge(purge::Options),
    Stat(stat::Options),
    Warm(warm::Options),
    Watch(watch::Options),
}

/// The result of a command that did not fail.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Fine,
    /// The command found something that the user should know.
    Findings,
}

fn main() -> ExitCode {
    // Redis with TLS needs it. Nothing else in this process chooses one, so it cannot fail.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let Arguments { json, command } = Arguments::parse();
    let out = Out::new(json);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            return finish(
                &out,
                Err(CommandError::new("cannot start").because(error).into()),
            );
        }
    };
    let done = runtime.block_on(async {
        let mut stop = Stop::on_signals()?;
        run(command, &out, &mut stop).await
    });
    // Background work must not keep the command from ending.
    runtime.shutdown_timeout(Duration::from_millis(100));
    finish(&out, done)
}

async fn run(command: Command, out: &Out, stop: &mut Stop) -> Result<Verdict, Stopped> {
    match command {
        Command::Audit(options) => audit::run(options, out, stop).await,
        Command::Check(options) => check::run(options, out, stop).await,
        Command::Purge(options) => purge::run(options, out, stop).await,
        Command::Stat(options) => stat::run(options, out, stop).await,
        Command::Warm(options) => warm::run(options, out, stop).await,
        Command::Watch(options) => watch::run(options, out, stop).await,
    }
}

/// Makes the result of a command that a signal stopped. `so_far` says how far it had come.
fn interrupted(so_far: impl Into<String>) -> Stopped {
    Stopped::Interrupted(so_far.into())
}

fn finish(out: &Out, done: Result<Verdict, Stopped>) -> ExitCode {
    match done {
        Ok(Verdict::Fine) => ExitCode::SUCCESS,
        Ok(Verdict::Findings) => ExitCode::from(1),
        // A reader that closes the pipe has read enough, so this is not a failure.
        Err(Stopped::OutputClosed) => ExitCode::SUCCESS,
        Err(Stopped::CommandError(error)) => {
            out.error(&error);
            ExitCode::from(2)
        }
        Err(Stopped::Interrupted(so_far)) => {
            out.note(&format!("interrupted: {so_far}"));
            ExitCode::from(130)
        }
    }
}
