//! `layercache audit`: asks the storage whether the facts in Redis are true.

use crate::Verdict;
use crate::command_error::{CommandError, Stopped};
use crate::out::{Out, measure};
use crate::redis::RedisOptions;
use crate::stop::Stop;
use crate::storage::StorageOptions;
use crate::style::{BAD, DOUBTFUL, FAINT, GOOD, PLAIN, paint};
use crate::table::Table;
use anstyle::Style;
use clap::Args;
use indicatif::ProgressBar;
use layercache_cli::admin::{
    Audit, AuditError, AuditPosition, AuditProgress, AuditReport, Fate, Finding,
};
use serde_json::{Value, json};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How often progress is printed if there is no progress bar.
const EVERY: Duration = Duration::from_secs(5);

/// Compare the facts in Redis with the storage, and with --fix remove the wrong ones
///
/// Use it after a garbage collection, and whenever you doubt the cache. It can run while registries
/// run: nodes of layercache and the Go registry, versions 2 and 3. A fact that changes during the
/// audit is not a finding. Without --fix the command writes nothing.
///
/// It prints each finding as a line when it finds it: the finding's name, the key, the member of
/// the set, what is wrong, and what the command did about it. With --json each finding is a
/// document, and the last document is the summary. The command exits with 1 if there was any
/// finding, removed or not.
#[derive(Args, Clone)]
pub(crate) struct Options {
    #[command(flatten)]
    storage: StorageOptions,

    #[command(flatten)]
    redis: RedisOptions,

    /// Check only these repositories: a name, or a pattern such as `team/*` or `{a,b}/**`; can be
    /// repeated
    #[arg(long, value_name = "GLOB")]
    repository: Vec<String>,

    /// Check only this share of all blobs, such as 5%; every audit selects the same blobs
    #[arg(long, value_name = "N%", default_value = "100%", value_parser = parse_share)]
    sample: f64,

    /// Remove the wrong facts that are found
    #[arg(long)]
    fix: bool,

    /// The most keys to read from Redis in a second
    #[arg(long, value_name = "KEYS", default_value_t = 10_000)]
    rate: u32,

    /// The most concurrent requests to the storage
    #[arg(long, value_name = "N", default_value_t = 16)]
    concurrency: usize,

    /// Continue after this position, which an interrupted audit with the same settings has printed
    #[arg(long, value_name = "POSITION")]
    resume_after: Option<AuditPosition>,
}

/// Parses `5%`, `0.1%` or `5` as a share from 0 to 1.
fn parse_share(text: &str) -> Result<f64, String> {
    let percent = text.strip_suffix('%').unwrap_or(text).trim().parse();
    match percent {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err("write a percentage from 0% to 100%".to_owned()),
    }
}

pub(crate) async fn run(options: Options, out: &Out, stop: &mut Stop) -> Result<Verdict, Stopped> {
    let storage = options.storage.required()?;
    let redis = options.redis.required()?;
    let cannot = || {
        CommandError::new(format!(
            "cannot audit {} against {}",
            redis.place, storage.place
        ))
    };
    let audit = Audit::new(Arc::clone(&storage.store), redis.config.clone());
    let mut audit = audit
        .map_err(|error| cannot().because(error))?
        .layout(options.storage.layout()?)
        .sample(options.sample)
        .fix(options.fix)
        .rate(options.rate.into())
        .concurrency(options.concurrency);
    if !options.repository.is_empty() {
        let globs = options.repository.clone();
        audit = audit.repositories(move |name| {
            let is_like = |glob: &String| fast_glob::glob_match(glob, name.as_str());
            globs.iter().any(is_like)
        });
    }
    if let Some(position) = &options.resume_after {
        audit = audit.resume_after(position);
    }

    let reporter = Arc::new(Reporter::new(*out));
    let (findings, progress) = (Arc::clone(&reporter), Arc::clone(&reporter));
    let audit = audit
        .findings(move |finding| findings.finding(finding))
        .progress(move |so_far| progress.progress(so_far));
    let done = tokio::select! {
        done = stop.or(audit.into_future()) => done,
        () = reporter.output_closed.notified() => None,
    };
    reporter.bar.finish_and_clear();
    if let Some(error) = reporter.state().failure.take() {
        return Err(error.into());
    }
    match done {
        Some(Ok(report)) => {
            summarise(&report, options.fix, out)?;
            Ok(match report.findings() {
                0 => Verdict::Fine,
                _ => Verdict::Findings,
            })
        }
        Some(Err(error)) => {
            let AuditError { progress, source } = error;
            let next = how_to_continue(&progress, &options);
            let help = format!("run `layercache check` to find the problem; {next}");
            Err(cannot().because(source).help(help).into())
        }
        None => {
            let progress = reporter.state().progress.clone();
            Err(Stopped::Interrupted(how_to_continue(&progress, &options)))
        }
    }
}

/// Says how far the audit had come, and how to continue.
fn how_to_continue(progress: &AuditProgress, options: &Options) -> String {
    let position = progress.position.as_ref().or(options.resume_after.as_ref());
    let next = match position {
        Some(position) => format!("to continue, repeat the command with --resume-after {position}"),
        None => "to start again, repeat the command".to_owned(),
    };
    let report = &progress.report;
    format!(
        "{} entries checked, {} findings; {next}",
        report.looked_at(),
        report.findings()
    )
}

/// Prints each finding when it is found, and the progress.
struct Reporter {
    out: Out,
    bar: ProgressBar,
    state: Mutex<State>,
    output_closed: Notify,
}

struct State {
    progress: AuditProgress,
    /// When progress was last printed.
    said: Instant,
    failure: Option<io::Error>,
}

impl Reporter {
    fn new(out: Out) -> Self {
        let state = State {
            progress: AuditProgress::default(),
            said: Instant::now(),
            failure: None,
        };
        Self {
            bar: out.progress(),
            out,
            state: Mutex::new(state),
            output_closed: Notify::new(),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finding(&self, finding: &Finding) {
        let written = self.bar.suspend(|| match self.out.is_json() {
            true => self.out.json(&document(finding)),
            false => self.out.line(line(finding, &self.out)),
        });
        if let Err(error) = written {
            self.state().failure.get_or_insert(error);
            self.output_closed.notify_one();
        }
    }

    fn progress(&self, so_far: &AuditProgress) {
        let report = &so_far.report;
        measure(&self.bar, so_far.keys_in_all.max(so_far.keys));
        self.bar.set_position(so_far.keys);
        let message = format!("{} ok, {} findings", report.ok, report.findings());
        let mut state = self.state();
        if so_far.restarts > state.progress.restarts {
            let note =
                "a Redis server was restarted or replaced: its keys are checked from the first";
            self.bar.suspend(|| self.out.note(note));
        }
        state.progress = so_far.clone();
        if self.bar.is_hidden() && state.said.elapsed() >= EVERY {
            state.said = Instant::now();
            let (keys, in_all) = (so_far.keys, so_far.keys_in_all);
            let position = so_far.position.as_ref().map(ToString::to_string);
            self.out.note(&format!(
                "{keys} of {in_all} keys, {message}; position {}",
                position.unwrap_or_default()
            ));
        }
        self.bar.set_message(message);
    }
}

const fn fate(fate: Fate) -> &'static str {
    match fate {
        Fate::Left => "left",
        Fate::Removed => "removed",
        Fate::Returned => "returned",
    }
}

/// Formats a finding: in columns for people, with tabs for pipes. Keys and members come from
/// outside, so their control characters are replaced before they reach a terminal.
fn line(finding: &Finding, out: &Out) -> String {
    let style = match finding.fate {
        Fate::Removed => GOOD,
        Fate::Left | Fate::Returned => BAD,
    };
    let wrong = finding.wrong.to_string();
    let member = finding.member.as_deref().unwrap_or_default();
    let [key, member, wrong] = [finding.key.as_str(), member, &wrong]
        .map(|text| text.replace(char::is_control, "\u{fffd}"));
    let (name, fate) = (finding.wrong.name(), fate(finding.fate));
    match out.is_terminal() {
        true => {
            let name = paint(style, format_args!("{name:<16}"));
            let member = if member.is_empty() {
                member
            } else {
                format!(" {member}")
            };
            let end = paint(FAINT, format_args!(": {wrong}, {fate}"));
            format!("{name}  {key}{member}{end}")
        }
        false => [name, &key, &member, &wrong, fate].join("\t"),
    }
}

fn document(finding: &Finding) -> Value {
    json!({
        "finding": finding.wrong.name(),
        "key": finding.key,
        "member": finding.member,
        "repository": finding.repository.as_ref().map(ToString::to_string),
        "digest": finding.digest.map(|digest| digest.to_string()),
        "detail": finding.wrong.to_string(),
        "fate": fate(finding.fate),
    })
}

fn summarise(report: &AuditReport, fix: bool, out: &Out) -> io::Result<()> {
    let findings: Vec<_> = report.by_name().collect();
    if out.is_json() {
        let by_name: serde_json::Map<_, _> = findings
            .iter()
            .map(|(name, count)| ((*name).to_owned(), json!(count)))
            .collect();
        return out.json(&json!({ "summary": {
            "memberships": report.memberships,
            "metas": report.metas,
            "others": report.others,
            "ok": report.ok,
            "skipped": report.skipped,
            "changing": report.changing,
            "changed": report.changed,
            "findings": report.findings(),
            "by_name": by_name,
            "removed": report.removed,
            "returned": report.returned,
            "questions": report.questions,
            "lists": report.lists,
        }}));
    }
    let mut table = Table::new(["audited", "count"]);
    let mut row = |name: &str, count: u64, style: Style| {
        table.styled_row([(name.to_owned(), PLAIN), (count.to_string(), style)]);
    };
    row("memberships", report.memberships, PLAIN);
    row("blobs", report.metas, PLAIN);
    row("other keys", report.others, PLAIN);
    row("ok", report.ok, GOOD);
    for (name, count) in [
        ("skipped", report.skipped),
        ("being changed", report.changing),
        ("changed during the audit", report.changed),
    ] {
        if count > 0 {
            row(name, count, FAINT);
        }
    }
    for (name, count) in findings {
        row(name, count, BAD);
    }
    match report.findings() {
        0 => row("findings", 0, GOOD),
        count => row("findings", count, BAD),
    }
    if fix {
        row("removed", report.removed, GOOD);
    }
    if report.returned > 0 {
        row("cached again", report.returned, DOUBTFUL);
    }
    out.table(&table)?;
    if report.findings() > 0 && !fix {
        out.note("nothing was changed; --fix removes the findings");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::parse_share;

    #[test]
    fn a_share_is_a_percentage() {
        for (text, share) in [("5%", 0.05), ("100", 1.0), ("0.5 %", 0.005), ("0%", 0.0)] {
            assert_eq!(parse_share(text), Ok(share), "{text}");
        }
        for text in ["", "%", "-1%", "101%", "NaN", "five"] {
            assert!(parse_share(text).is_err(), "{text}");
        }
    }
}
