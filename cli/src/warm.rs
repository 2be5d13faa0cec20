//! `layercache warm`: fills Redis from a list of the storage.

use crate::command_error::{CommandError, Stopped};
use crate::out::Out;
use crate::redis::{RedisOptions, refused};
use crate::stop::Stop;
use crate::storage::StorageOptions;
use crate::{Verdict, interrupted};
use clap::Args;
use layercache::{CachedStore, MemoryConfig, RedisCache, TieredCache, WarmProgress};
use object_store::path::Path;
use serde::Serialize;
use std::sync::{Arc, Mutex, PoisonError};

/// Fill Redis from a list of the storage
///
/// Use it before the first requests, or after a purge. It can run while nodes run and make changes.
/// With --json it prints one document, also if it stops before its end.
#[derive(Args)]
pub(crate) struct Options {
    /// Fill only from objects below this path of the storage, such as docker/registry/v2/blobs
    #[arg(long, value_name = "PATH")]
    prefix: Option<String>,

    /// Continue after this path, which an earlier run has printed when it stopped
    #[arg(long, value_name = "PATH")]
    resume_after: Option<String>,

    #[command(flatten)]
    redis: RedisOptions,

    #[command(flatten)]
    storage: StorageOptions,
}

#[derive(Serialize)]
struct Document {
    complete: bool,
    seen: u64,
    filled: u64,
    known: u64,
    skipped: u64,
    refused: u64,
    position: Option<String>,
}

impl Document {
    fn new(progress: &WarmProgress, complete: bool) -> Self {
        Self {
            complete,
            seen: progress.seen,
            filled: progress.filled,
            known: progress.known,
            skipped: progress.skipped,
            refused: progress.refused,
            position: progress.position.as_ref().map(ToString::to_string),
        }
    }
}

pub(crate) async fn run(options: Options, out: &Out, stop: &mut Stop) -> Result<Verdict, Stopped> {
    let redis = options.redis.required()?;
    let storage = options.storage.required()?;
    let layout = options.storage.layout()?;
    let prefix = path("--prefix", options.prefix.as_deref())?;
    let after = path("--resume-after", options.resume_after.as_deref())?;
    // This process needs little memory, because its memory tier ends with it.
    let memory = MemoryConfig::default().with_capacity(1 << 20);
    let builder = CachedStore::builder(storage.store).layout(layout);
    let (builder, shared) = match redis.shared {
        Some((config, namespace)) => {
            let tier = RedisCache::new(config).map_err(refused)?;
            let cache = Arc::new(TieredCache::with_redis(memory, tier));
            (builder.cache(Arc::clone(&cache), namespace), Some(cache))
        }
        None => (builder.memory(memory).redis(redis.config), None),
    };
    let store = builder.build().map_err(refused)?;

    let bar = out.progress();
    let last = Arc::new(Mutex::new(WarmProgress::default()));
    let mut warm = store.warm(prefix.as_ref()).progress({
        let (bar, last) = (bar.clone(), Arc::clone(&last));
        move |progress| {
            bar.set_message(print(progress));
            *last.lock().unwrap_or_else(PoisonError::into_inner) = progress.clone();
        }
    });
    if let Some(after) = &after {
        warm = warm.resume_after(after);
    }
    let done = stop.or(warm.into_future()).await;
    bar.finish_and_clear();
    store.shutdown().await;
    if let Some(cache) = shared {
        cache.shutdown().await;
    }
    match done {
        Some(Ok(progress)) => {
            match out.is_json() {
                true => out.json(&Document::new(&progress, true))?,
                false => out.line(print(&progress))?,
            }
            if progress.seen == 0 {
                out.note("the storage has no objects there: check --storage and --prefix");
            }
            Ok(Verdict::Fine)
        }
        Some(Err(error)) => {
            if out.is_json() {
                out.json(&Document::new(&error.progress, false))?;
            }
            let position = error.progress.position.clone().or(after);
            let failed = CommandError::new(format!("stopped after {}", print(&error.progress)));
            Err(failed
                .because(error.source)
                .help(format!(
                    "run `layercache check` to find the problem, then {}",
                    resume(position.as_ref())
                ))
                .into())
        }
        None => {
            let progress = last.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if out.is_json() {
                out.json(&Document::new(&progress, false))?;
            }
            let position = progress.position.clone().or(after);
            let text = format!("{}; {}", print(&progress), resume(position.as_ref()));
            Err(interrupted(text))
        }
    }
}

fn path(option: &str, text: Option<&str>) -> Result<Option<Path>, CommandError> {
    let parsed = text.map(Path::parse).transpose();
    parsed.map_err(|error| {
        CommandError::new(format!("{option}: this is not a valid path")).because(error)
    })
}

fn print(progress: &WarmProgress) -> String {
    let WarmProgress {
        seen,
        filled,
        known,
        skipped,
        refused,
        ..
    } = progress;
    format!(
        "{seen} objects: {filled} filled, {known} known, {skipped} not in the layout, {refused} left to other nodes"
    )
}

fn resume(position: Option<&Path>) -> String {
    match position {
        Some(position) => format!("repeat the command with --resume-after '{position}'"),
        None => "repeat the command".to_owned(),
    }
}
