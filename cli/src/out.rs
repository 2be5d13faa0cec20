//! How a command writes its answer: for people, for pipes and for scripts.

use crate::command_error::CommandError;
use crate::table::Table;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

/// Writes the answer to standard output. If the reader has closed the pipe, a write returns an
/// error and does not panic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Out {
    json: bool,
    is_terminal: bool,
    has_colours: bool,
}

/// What a colour means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Good,
    Doubtful,
    Bad,
    Faint,
    Strong,
}

impl Out {
    pub(crate) fn new(json: bool) -> Self {
        let is_terminal = io::stdout().is_terminal();
        // The rule of no-color.org: the variable counts if it is set and not empty.
        let wants_none = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            json,
            is_terminal,
            has_colours: is_terminal && !wants_none,
        }
    }

    /// Whether the answer is JSON, for a script.
    pub(crate) const fn is_json(&self) -> bool {
        self.json
    }

    /// Whether the answer goes to a terminal, for a person.
    pub(crate) const fn is_terminal(&self) -> bool {
        self.is_terminal && !self.json
    }

    /// Writes a line.
    pub(crate) fn line(&self, line: impl Display) -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "{line}")?;
        out.flush()
    }

    /// Writes a JSON document as one line.
    pub(crate) fn json(&self, document: &impl Serialize) -> io::Result<()> {
        self.line(serde_json::to_string(document)?)
    }

    /// Writes a table: in columns for people, with tabs for pipes.
    pub(crate) fn table(&self, table: &Table) -> io::Result<()> {
        self.text(&table.print(self))
    }

    /// Writes a text that has its own line ends.
    pub(crate) fn text(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// Returns the text in a colour, or unchanged if the output has no colours.
    pub(crate) fn paint(&self, tone: Tone, text: &str) -> String {
        if !self.has_colours {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Doubtful => "33",
            Tone::Bad => "31",
            Tone::Faint => "2",
            Tone::Strong => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// Writes a line to standard error, beside the answer.
    pub(crate) fn note(&self, text: &str) {
        // Standard error may be closed. The command goes on without it.
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// Writes an error to standard error: what failed, why, and what to do.
    pub(crate) fn error(&self, trouble: &CommandError) {
        let mut text = format!("error: {}", trouble.what());
        for cause in trouble.causes() {
            text += &format!("\n  because: {cause}");
        }
        if let Some(advice) = trouble.advice() {
            text += &format!("\n  help: {advice}");
        }
        self.note(&text);
    }

    /// Returns a progress bar on standard error. It is hidden if standard error is no terminal. Its
    /// message says how far the work has come.
    pub(crate) fn progress(&self) -> ProgressBar {
        let bar = ProgressBar::new_spinner();
        style(&bar, "{spinner} {elapsed} {wide_msg}");
        if !bar.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        bar
    }
}

/// Makes a bar show its position among `steps`.
pub(crate) fn measure(bar: &ProgressBar, steps: u64) {
    if bar.length().is_none() {
        style(bar, "{bar:30} {pos}/{len} {eta} {wide_msg}");
    }
    bar.set_length(steps);
}

fn style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
}
