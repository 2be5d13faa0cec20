//! `layercache purge`: removes cached facts from Redis and from the memory of every node.

use crate::command_error::{CommandError, Stopped};
use crate::out::Out;
use crate::redis::{RedisOptions, refused};
use crate::stop::Stop;
use crate::{Verdict, interrupted};
use clap::Args;
use layercache::{Forgotten, MemoryConfig, RedisCache, TieredCache};
use serde::Serialize;
use std::io::{self, IsTerminal};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a purge that fails is tried again.
const PATIENCE: Duration = Duration::from_secs(4);

/// Remove all cached facts from Redis and from the memory of every node
///
/// Use it after something was deleted behind the cache's back, for example by a garbage collection.
/// When the command returns, no node answers any fact that was cached before. It never changes the
/// storage. With --json it prints one document.
#[derive(Args)]
pub(crate) struct Options {
    /// Remove only the memberships of these repositories: a name or a pattern; can be repeated
    ///
    /// In a pattern `*` stands for a part of a name, and `**` for several parts. The memory of each
    /// node forgets everything all the same, and learns it again from Redis.
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
    let config = options.redis.required()?;
    let place = options.redis.place();
    if let Some(odd) = options.repository.iter().find(|name| name.is_empty()) {
        return Err(CommandError::new(format!("--repository: `{odd}` is no name")).into());
    }
    let redis = RedisCache::new(config).map_err(refused)?;
    let what = match options.repository.as_slice() {
        [] => "everything".to_owned(),
        names => format!("the memberships of {}", names.join(", ")),
    };
    if !options.yes {
        confirm(
            &format!("forget {what} in {place}, and in the memory of every node?"),
            stop,
        )
        .await?;
    }

    let began = Instant::now();
    let bar = out.progress();
    bar.set_message(format!("forgetting {what}"));
    let cache = TieredCache::with_redis(MemoryConfig::default(), redis);
    let purged = stop.or(purge(&cache, &options.repository)).await;
    bar.finish_and_clear();
    cache.shutdown().await;
    let forgotten = match purged {
        Some(Ok(forgotten)) => forgotten,
        Some(Err(error)) => {
            return Err(CommandError::new(format!("cannot purge {place}"))
                .because(error)
                .help("some of it may be forgotten; purge again when `layercache check` finds nothing wrong")
                .into());
        }
        None => {
            return Err(interrupted(
                "some of it may be forgotten, and nodes may still answer the rest; purge again",
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
        None => format!("forgot everything in {place} and in every memory, in {seconds:.1} s"),
        Some(Forgotten {
            repositories,
            memberships,
            ..
        }) => format!(
            "forgot {memberships} memberships of {repositories} repositories in {place}, and every memory, in \
             {seconds:.1} s"
        ),
    })?;
    Ok(Verdict::Fine)
}

/// Purges. Tries again for [`PATIENCE`] while Redis does not answer: a second purge does no harm.
async fn purge(
    cache: &TieredCache,
    patterns: &[String],
) -> Result<Option<Forgotten>, layercache::Error> {
    let is_meant = |name: &str| {
        let mut patterns = patterns.iter();
        patterns.any(|pattern| fast_glob::glob_match(pattern, name))
    };
    let end = Instant::now() + PATIENCE;
    loop {
        let purged = match patterns {
            [] => cache.purge().await.map(|()| None),
            _ => cache.purge_repositories(is_meant).await.map(Some),
        };
        match purged {
            Err(_) if Instant::now() < end => sleep(PATIENCE / 20).await,
            purged => return purged,
        }
    }
}

async fn confirm(question: &str, stop: &mut Stop) -> Result<(), Stopped> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(
            CommandError::new("nobody is there to say whether it is meant")
                .help("say --yes")
                .into(),
        );
    }
    eprint!("{question} [y/N] ");
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|_| line)
    });
    match stop.or(read).await {
        Some(Ok(Ok(line))) if matches!(line.trim(), "y" | "Y" | "yes") => Ok(()),
        Some(_) => Err(CommandError::new("it was not meant, and nothing was done").into()),
        None => Err(interrupted("nothing was done")),
    }
}
