//! The command `layercache`: looks at, fills and empties a registry's cache, and watches its nodes.
//!
//! Each command has a file. They share how a store and a Redis are named ([`storage`], [`redis`]), how they
//! answer ([`out`], [`table`]), fail ([`command_error`]) and stop ([`stop`]).
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

/// What all commands have in common, for `--help`.
const AFTER_HELP: &str = "\
Exit codes: 0 all is well; 1 something was found (a disagreement, a finding, what `check` calls wrong); 2 trouble (bad \
arguments, what cannot be reached); 130 interrupted.

On a terminal answers are tables, elsewhere lines with tabs between their fields. With --json a command \
prints one JSON document, or, where its own help says so, one in each line. Progress and errors go to \
standard error. Colours are for terminals, and for them only while NO_COLOR is not set.";

/// Looks after the cache of a container registry's blob metadata.
#[derive(Parser)]
#[command(name = "layercache", version, after_help = AFTER_HELP)]
// Not `Debug`: the address of Redis may hold a password.
struct Arguments {
    /// Answer as JSON, for scripts
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

/// What a command has found, if nothing was in its way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Fine,
    /// Something that whoever asked should know of.
    Findings,
}

fn main() -> ExitCode {
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
    // What nobody waits for any more does not keep the command from ending.
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

/// Somebody has asked to stop, and this is how far it had come.
fn interrupted(so_far: impl Into<String>) -> Stopped {
    Stopped::Interrupted(so_far.into())
}

fn finish(out: &Out, done: Result<Verdict, Stopped>) -> ExitCode {
    match done {
        Ok(Verdict::Fine) => ExitCode::SUCCESS,
        Ok(Verdict::Findings) => ExitCode::from(1),
        // Whoever has read enough is not to be bothered.
        Err(Stopped::NobodyReads) => ExitCode::SUCCESS,
        Err(Stopped::CommandError(trouble)) => {
            out.error(&trouble);
            ExitCode::from(2)
        }
        Err(Stopped::Interrupted(so_far)) => {
            out.note(&format!("interrupted: {so_far}"));
            ExitCode::from(130)
        }
    }
}
