//! `layercache stat`: shows what Redis and the storage have of one blob, side by side.

mod json;

use crate::command_error::{CommandError, Stopped};
use crate::out::Out;
use crate::redis::{RedisOptions, refused};
use crate::stop::Stop;
use crate::storage::StorageOptions;
use crate::style::{BAD, DOUBTFUL, GOOD, STRONG, paint};
use crate::table::Table;
use crate::{Verdict, interrupted};
use anstyle::Style;
use clap::Args;
use layercache::{Digest, LayerMeta, LinkState, RepositoryName};
use layercache_cli::admin::{Disagreement, Inspection, Life, RedisEntry, StoredValue, inspect};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where the memory tier is. The command cannot read it from outside the node.
const MEMORY: &str = "in each node's process";

/// Show what Redis and the storage have of a blob in a repository, and where they disagree
///
/// The command writes nothing, and is not a node. It exits with 1 if Redis and the storage
/// disagree. With --json it prints one document.
#[derive(Args)]
pub(crate) struct Options {
    /// The repository and the blob: library/alpine@sha256:abcd…
    #[arg(value_name = "REPOSITORY@DIGEST")]
    subject: Target,

    #[command(flatten)]
    redis: RedisOptions,

    #[command(flatten)]
    storage: StorageOptions,
}

#[derive(Debug, Clone)]
struct Target {
    repository: RepositoryName,
    digest: Digest,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, digest) = text
            .split_once('@')
            .ok_or("write a repository and a digest with an @ between them")?;
        Ok(Self {
            repository: name.parse().map_err(|error| format!("{error}"))?,
            digest: digest.parse().map_err(|error| format!("{error}"))?,
        })
    }
}

pub(crate) async fn run(options: Options, out: &Out, stop: &mut Stop) -> Result<Verdict, Stopped> {
    let redis = options.redis.required()?;
    let storage = options.storage.required()?;
    let layout = options.storage.layout()?;
    let Target { repository, digest } = &options.subject;
    let asked = inspect(&redis.config, storage.store, layout, repository, digest);
    let inspection = match stop.or(asked).await {
        Some(Ok(inspection)) => inspection,
        Some(Err(error)) => {
            let failed = match error {
                layercache::Error::Setting { .. } => refused(error),
                layercache::Error::Backend { .. } => {
                    CommandError::new(format!("cannot ask the storage {}", storage.place))
                        .because(error)
                        .help("run `layercache check --storage …` to find the problem")
                }
                error => CommandError::new(format!("cannot ask {}", redis.place))
                    .because(error)
                    .help("run `layercache check --redis …` to find the problem"),
            };
            return Err(failed.into());
        }
        None => return Err(interrupted("there is no answer yet")),
    };
    if out.is_json() {
        out.json(&json::Document::new(&inspection))?;
    } else {
        show(out, &inspection)?;
    }
    Ok(match inspection.disagreements.is_empty() {
        true => Verdict::Fine,
        false => Verdict::Findings,
    })
}

fn show(out: &Out, inspection: &Inspection) -> Result<(), Stopped> {
    let Inspection {
        repository,
        digest,
        redis,
        storage,
        ..
    } = inspection;
    let mut table = Table::new([
        "fact", "memory", "redis", "storage", "expires", "lease", "fence",
    ]);
    table.row(around(
        "as a layer",
        &redis.layer,
        link(storage.layer.as_ref()),
    ));
    table.row(around(
        "as a manifest",
        &redis.manifest,
        link(storage.manifest.as_ref()),
    ));
    let has_meta = match &storage.meta {
        Some(_) => "yes",
        None => "no",
    };
    table.row(around("blob", &redis.meta, has_meta.to_owned()));
    for (name, in_redis, in_storage) in fields(inspection) {
        let none = || "-".to_owned();
        table.row([
            format!("  {name}"),
            String::new(),
            in_redis.unwrap_or_else(none),
            in_storage.unwrap_or_else(none),
        ]);
    }
    if let StoredValue::Found(media_type) = &redis.media_type.value {
        table.row([
            "  Go's mediatype here",
            "",
            media_type,
            "-",
            &life(redis.media_type.life),
        ]);
    }
    out.line(paint(STRONG, format_args!("{repository}@{digest}")))?;
    out.table(&table)?;
    out.line(format!(
        "memory: {MEMORY}, where the command cannot read it"
    ))?;
    let (style, verdict) = verdict(inspection);
    out.line(paint(style, format_args!("verdict: {verdict}")))?;
    Ok(())
}

/// Returns the row of a fact: its value in Redis and in the storage, and the expiry, lease and
/// fence of its key.
fn around<T>(fact: &str, entry: &RedisEntry<T>, truth: String) -> [String; 7] {
    let held = match &entry.value {
        StoredValue::Absent => "no",
        StoredValue::Broken => "broken",
        StoredValue::Found(_) => "yes",
    };
    let fence = entry.fence.map(|fence| match fence.changes {
        1 => format!("1 change, {}", life(Some(fence.life))),
        changes => format!("{changes} changes, {}", life(Some(fence.life))),
    });
    [
        fact.to_owned(),
        "n/a".to_owned(),
        held.to_owned(),
        truth,
        life(entry.life),
        life(entry.lease),
        fence.unwrap_or_else(|| "-".to_owned()),
    ]
}

/// Formats a time in its largest unit, and in the next smaller one if it is a minute or longer.
fn print_time(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match seconds {
        0 => format!("{}ms", time.as_millis()),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m {}s", seconds % 60),
        _ => format!("{hours}h {}m", minutes % 60),
    }
}

fn life(life: Option<Life>) -> String {
    match life {
        None => "-".to_owned(),
        Some(Life::Forever) => "never".to_owned(),
        Some(Life::For(time)) => format!("in {}", print_time(time)),
    }
}

fn link(state: Option<&LinkState>) -> String {
    let text = match state {
        Some(LinkState::Linked(_)) => "yes",
        Some(LinkState::Absent) => "no",
        Some(LinkState::Broken) => "broken",
        Some(_) => "unknown",
        None => "no place",
    };
    text.to_owned()
}

/// Returns the fields of the blob: the name, the value in Redis, and the value in the storage.
fn fields(inspection: &Inspection) -> Vec<(&'static str, Option<String>, Option<String>)> {
    let in_redis = |name: &str| {
        let mut fields = inspection.redis.fields.iter();
        let field = fields.find(|(field, _)| *field == name);
        field.map(|(_, value)| value.clone())
    };
    let truth = inspection.storage.meta.as_ref();
    let all = [
        ("path", truth.map(|meta| meta.path().to_owned())),
        ("length", truth.map(|meta| meta.length().to_string())),
        (
            "e_tag",
            truth.and_then(|meta| Some(meta.e_tag()?.to_owned())),
        ),
        (
            "version",
            truth.and_then(|meta| Some(meta.version()?.to_owned())),
        ),
        ("last_modified", truth.and_then(modified)),
        (
            "attributes",
            truth.and_then(|meta| Some(meta.attributes()?.to_owned())),
        ),
        ("size", None),
        ("digest", None),
        ("mediatype", None),
    ];
    let all = all.into_iter();
    all.map(|(name, truth)| (name, in_redis(name), truth))
        .filter(|(_, redis, truth)| redis.is_some() || truth.is_some())
        .collect()
}

/// Formats the time as Redis has it: in seconds since 1970.
fn modified(meta: &LayerMeta) -> Option<String> {
    let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).ok();
    let since = since(meta.last_modified()?)?;
    Some(format!("{}.{:09}", since.as_secs(), since.subsec_nanos()))
}

fn verdict(inspection: &Inspection) -> (Style, String) {
    let Inspection {
        repository,
        redis,
        disagreements,
        ..
    } = inspection;
    if disagreements.is_empty() {
        let fences = [redis.layer.fence, redis.manifest.fence, redis.meta.fence];
        let is_known = redis.layer.found().is_some()
            || redis.manifest.found().is_some()
            || redis.meta.found().is_some();
        return match (fences.iter().any(Option::is_some), is_known) {
            (true, _) => (
                DOUBTFUL,
                "a change is under way; Redis and the storage agree about the rest".to_owned(),
            ),
            (false, true) => (GOOD, "Redis and the storage agree".to_owned()),
            (false, false) => (
                GOOD,
                "Redis has no fact about the blob; nodes ask the storage".to_owned(),
            ),
        };
    }
    let said: Vec<_> = disagreements.iter().map(Disagreement::to_string).collect();
    let is_member = |one: &Disagreement| matches!(one, Disagreement::Member { .. });
    let fix = match disagreements.iter().all(is_member) {
        true => format!("layercache purge --repository {repository}"),
        false => "layercache purge".to_owned(),
    };
    let said = said.join("; ");
    (
        BAD,
        format!("Redis and the storage disagree: {said}. `{fix}` removes the cached facts"),
    )
}
