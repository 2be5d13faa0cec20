//! `layercache purge`: removes cached facts from Redis and from the memory of every node.

use crate::command_error::{CommandError, Stopped};
use crate::out::Out;
use crate::redis::{Redis, RedisOptions, refused};
use crate::stop::Stop;
use crate::{Verdict, interrupted};
use clap::Args;
use layercache::{Forgotten, MemoryConfig, RedisCache, TieredCache};
use serde::Serialize;
use std::io::{self, IsTerminal};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long the command repeats a purge that fails.
const PATIENCE: Duration = Duration::from_secs(4);

/// Remove all cached facts from Redis and from the memory of every node
///
/// Use it if something was deleted from the storage without the cache's knowledge, for example by a
/// garbage collection. When the command returns, no node answers with a fact that was cached
/// before. The command never changes the storage. With --json it prints one document.
#[derive(Args)]
pub(crate) struct Options {
    /// Remove only the memberships of these repositories: a name or a pattern; can be repeated
    ///
    /// In a pattern `*` stands for a part of a name, and `**` for several parts. Each node still
    /// removes all facts from its memory, and reads them again from Redis.
    #[arg(long, value_name = "GLOB")]
    repository: Vec<String>,

    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,

    #[command(flatten)]
    redis: RedisOptions,
}

#[derive(Serialize)]
struct Document<'a> {
    purged: &'static str,
    patterns: &'a [String],
    repositories: Option<u64>,
    memberships: Option<u64>,
    seconds: f64,
}

pub(crate) async fn run(options: Options, out: &Out, stop: &mut Stop) -> Result<Verdict, Stopped> {
    let Redis { config, place, .. } = options.redis.required()?;
    if options.repository.iter().any(String::is_empty) {
        return Err(CommandError::new("--repository: the name is empty").into());
    }
    let redis = RedisCache::new(config).map_err(refused)?;
    let what = match options.repository.as_slice() {
        [] => "all cached facts".to_owned(),
        names => format!("the memberships of {}", names.join(", ")),
    };
    if !options.yes {
        confirm(
            &format!("Remove {what} from {place} and from the memory of every node?"),
            stop,
        )
        .await?;
    }

    let began = Instant::now();
    let bar = out.progress();
    bar.set_message(format!("removing {what}"));
    let cache = TieredCache::with_redis(MemoryConfig::default(), redis);
    let purged = stop.or(purge(&cache, &options.repository)).await;
    bar.finish_and_clear();
    cache.shutdown().await;
    let forgotten = match purged {
        Some(Ok(forgotten)) => forgotten,
        Some(Err(error)) => {
            return Err(CommandError::new(format!("cannot purge {place}"))
                .because(error)
                .help("some facts may be removed; run `layercache check` to find the problem, then repeat the purge")
                .into());
        }
        None => {
            return Err(interrupted(
                "some facts may be removed, and nodes may still answer with the others; repeat the purge",
            ));
        }
    };
    let seconds = began.elapsed().as_secs_f64();
    if out.is_json() {
        out.json(&Document {
            purged: if forgotten.is_none() {
                "everything"
            } else {
                "repositories"
            },
            patterns: &options.repository,
            repositories: forgotten.map(|forgotten| forgotten.repositories),
            memberships: forgotten.map(|forgotten| forgotten.memberships),
            seconds,
        })?;
        return Ok(Verdict::Fine);
    }
    out.line(match forgotten {
        None => format!("removed all cached facts from {place} and from the memory of every node in {seconds:.1} s"),
        Some(Forgotten {
            repositories,
            memberships,
            ..
        }) => format!(
            "removed {memberships} memberships of {repositories} repositories from {place}, and all facts from \
             the memory of every node in {seconds:.1} s"
        ),
    })?;
    Ok(Verdict::Fine)
}

/// Purges. Tries again for [`PATIENCE`] while Redis does not answer: a second purge does no harm.
async fn purge(
    cache: &TieredCache,
    patterns: &[String],
) -> Result<Option<Forgotten>, layercache::Error> {
    let is_selected = |name: &str| {
        let mut patterns = patterns.iter();
        patterns.any(|pattern| fast_glob::glob_match(pattern, name))
    };
    let end = Instant::now() + PATIENCE;
    loop {
        let purged = match patterns {
            [] => cache.purge().await.map(|()| None),
            _ => cache.purge_repositories(is_selected).await.map(Some),
        };
        match purged {
            Err(_) if Instant::now() < end => sleep(PATIENCE / 20).await,
            purged => return purged,
        }
    }
}

async fn confirm(question: &str, stop: &mut Stop) -> Result<(), Stopped> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(CommandError::new(
            "a purge has to be confirmed, and there is no terminal to ask on",
        )
        .help("confirm it with --yes")
        .into());
    }
    eprint!("{question} [y/N] ");
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|_| line)
    });
    match stop.or(read).await {
        Some(Ok(Ok(line))) if matches!(line.trim(), "y" | "Y" | "yes") => Ok(()),
        Some(_) => {
            Err(CommandError::new("the purge was not confirmed, and nothing was removed").into())
        }
        None => Err(interrupted("nothing was removed")),
    }
}
