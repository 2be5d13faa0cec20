//! `layercache check`: what is wrong with a Redis and a storage.

use crate::out::{Out, Tone};
use crate::redis::{RedisOptions, refused};
use crate::stop::Stop;
use crate::storage::StorageOptions;
use crate::trouble::{Stopped, Trouble};
use crate::{Verdict, interrupted};
use clap::Args;
use layercache::admin::{Grade, Remark, check_redis, check_storage};
use serde::Serialize;

/// Say what is wrong with the Redis and the storage, and how to mend it
///
/// Checks what is named, one or both. Writes nothing that stays. One line for each thing: ok, advice or
/// wrong. Exits with 1 if something is wrong. With --json one document.
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
    remarks: Vec<Line<'a>>,
}

#[derive(Serialize)]
struct Line<'a> {
    grade: &'static str,
    what: &'a str,
    fix: Option<&'a str>,
}

pub(crate) async fn run(options: Options, out: &Out, stop: &mut Stop) -> Result<Verdict, Stopped> {
    let redis = options.redis.config();
    let layout = options.storage.layout()?;
    let storage = options.storage.open()?;
    if redis.is_none() && storage.is_none() {
        return Err(Trouble::new("there is nothing to check")
            .help("name what to check with --redis URL, --storage URL, or both")
            .into());
    }
    let bar = out.progress();
    bar.set_message("asking");
    let asked = async {
        let mut remarks = Vec::new();
        if let Some(config) = &redis {
            remarks.extend(check_redis(config).await.map_err(refused)?);
        }
        if let Some(storage) = &storage {
            remarks.extend(check_storage(&storage.store, &layout).await);
        }
        Ok::<_, Trouble>(remarks)
    };
    let asked = stop.or(asked).await;
    bar.finish_and_clear();
    let remarks = asked.ok_or_else(|| interrupted("before all was checked"))??;
    let worst = remarks.iter().map(|remark| remark.grade).max();
    let good = worst != Some(Grade::Wrong);
    if out.is_json() {
        let remarks = remarks.iter().map(Line::new).collect();
        out.json(&Document { good, remarks })?;
    } else {
        for remark in &remarks {
            show(out, remark)?;
        }
    }
    Ok(match good {
        true => Verdict::Fine,
        false => Verdict::Findings,
    })
}

impl<'a> Line<'a> {
    fn new(remark: &'a Remark) -> Self {
        Self {
            grade: name(remark.grade),
            what: &remark.what,
            fix: remark.fix.as_deref(),
        }
    }
}

const fn name(grade: Grade) -> &'static str {
    match grade {
        Grade::Good => "ok",
        Grade::Advice => "advice",
        Grade::Wrong => "wrong",
    }
}

fn show(out: &Out, remark: &Remark) -> Result<(), Stopped> {
    let tone = match remark.grade {
        Grade::Good => Tone::Good,
        Grade::Advice => Tone::Doubtful,
        Grade::Wrong => Tone::Bad,
    };
    let name = name(remark.grade);
    // Names of objects come from outside.
    let text = remark.to_string().replace(char::is_control, " ");
    match out.is_terminal() {
        true => out.line(format!("{} {text}", out.paint(tone, &format!("{name:<6}"))))?,
        false => out.line(format!("{name}\t{text}"))?,
    }
    Ok(())
}
