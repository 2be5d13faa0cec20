//! `layercache check`: reports what is wrong with a Redis and a storage.

use crate::command_error::{CommandError, Stopped};
use crate::out::Out;
use crate::redis::{RedisOptions, refused};
use crate::stop::Stop;
use crate::storage::StorageOptions;
use crate::style::{BAD, DOUBTFUL, GOOD, paint};
use crate::{Verdict, interrupted};
use clap::Args;
use layercache_cli::admin::{Diagnostic, Severity, check_redis, check_storage};
use serde::Serialize;

/// Report problems of the Redis and the storage, and how to repair them
///
/// The command checks the Redis, the storage, or both: those that the options name. It removes the
/// keys that it writes. It prints one line for each diagnostic: `ok`, `advice` or `wrong`. It exits
/// with 1 if there is a `wrong`. With --json it prints one document.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    redis: RedisOptions,

    #[command(flatten)]
    storage: StorageOptions,
}

#[derive(Serialize)]
struct Document<'a> {
    good: bool,
    diagnostics: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    severity: &'static str,
    what: &'a str,
    fix: Option<&'a str>,
}

pub(crate) async fn run(options: Options, out: &Out, stop: &mut Stop) -> Result<Verdict, Stopped> {
    let redis = options.redis.open();
    let layout = options.storage.layout()?;
    let storage = options.storage.open()?;
    if redis.is_none() && storage.is_none() {
        return Err(CommandError::new("there is nothing to check")
            .help("set --redis URL, --storage URL, or both")
            .into());
    }
    let bar = out.progress();
    bar.set_message("checking");
    let asked = async {
        let mut diagnostics = Vec::new();
        if let Some(redis) = &redis {
            diagnostics.extend(check_redis(&redis.config).await.map_err(refused)?);
        }
        if let Some(storage) = &storage {
            diagnostics.extend(check_storage(&storage.store, &layout).await);
        }
        Ok::<_, CommandError>(diagnostics)
    };
    let asked = stop.or(asked).await;
    bar.finish_and_clear();
    let diagnostics = asked.ok_or_else(|| interrupted("the check is not complete"))??;
    let worst = diagnostics
        .iter()
        .map(|diagnostic| diagnostic.severity)
        .max();
    let good = worst != Some(Severity::Wrong);
    if out.is_json() {
        let diagnostics = diagnostics.iter().map(Row::new).collect();
        out.json(&Document { good, diagnostics })?;
    } else {
        for diagnostic in &diagnostics {
            show(out, diagnostic)?;
        }
    }
    Ok(match good {
        true => Verdict::Fine,
        false => Verdict::Findings,
    })
}

impl<'a> Row<'a> {
    fn new(diagnostic: &'a Diagnostic) -> Self {
        Self {
            severity: name(diagnostic.severity),
            what: &diagnostic.what,
            fix: diagnostic.fix.as_deref(),
        }
    }
}

const fn name(severity: Severity) -> &'static str {
    match severity {
        Severity::Good => "ok",
        Severity::Advice => "advice",
        Severity::Wrong => "wrong",
    }
}

fn show(out: &Out, diagnostic: &Diagnostic) -> Result<(), Stopped> {
    let style = match diagnostic.severity {
        Severity::Good => GOOD,
        Severity::Advice => DOUBTFUL,
        Severity::Wrong => BAD,
    };
    let name = name(diagnostic.severity);
    // Names of objects come from outside, so control characters are replaced.
    let text = diagnostic.to_string().replace(char::is_control, " ");
    match out.is_terminal() {
        true => out.line(format!(
            "{} {text}",
            paint(style, format_args!("{name:<6}"))
        ))?,
        false => out.line(format!("{name}\t{text}"))?,
    }
    Ok(())
}
