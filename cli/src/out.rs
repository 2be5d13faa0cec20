//! How a command writes its output: for people, for pipes and for scripts.

use crate::command_error::CommandError;
use crate::table::Table;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

/// Writes to standard output, and removes styles unless it is a terminal with colours. If the
/// reader has closed the pipe, a write returns an error and does not panic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Out {
    json: bool,
    is_terminal: bool,
}

impl Out {
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            is_terminal: io::stdout().is_terminal(),
        }
    }

    /// Whether the output is JSON, for a script.
    pub(crate) const fn is_json(&self) -> bool {
        self.json
    }

    /// Whether the output goes to a terminal, for a person.
    pub(crate) const fn is_terminal(&self) -> bool {
        self.is_terminal && !self.json
    }

    /// Writes a line.
    pub(crate) fn line(&self, line: impl Display) -> io::Result<()> {
        self.text(&format!("{line}\n"))
    }

    /// Writes a JSON document as one line.
    pub(crate) fn json(&self, document: &impl Serialize) -> io::Result<()> {
        self.line(serde_json::to_string(document)?)
    }

    /// Writes a table: in columns for people, with tabs for pipes.
    pub(crate) fn table(&self, table: &Table) -> io::Result<()> {
        match self.is_terminal() {
            true => self.text(&table.columns()?),
            false => self.text(&table.tabs()),
        }
    }

    /// Clears the terminal, and writes a text that has its own line ends.
    pub(crate) fn screen(&self, text: &str) -> io::Result<()> {
        // Without colours, `anstream` would remove these codes, too.
        io::stdout().write_all(b"\x1b[H\x1b[2J")?;
        self.text(text)
    }

    fn text(&self, text: &str) -> io::Result<()> {
        let mut out = anstream::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// Writes a line to standard error, beside the output.
    pub(crate) fn note(&self, text: &str) {
        // Standard error may be closed. The command goes on without it.
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// Writes an error to standard error: what failed, why, and what to do.
    pub(crate) fn error(&self, error: &CommandError) {
        let mut text = format!("error: {}", error.what());
        for cause in error.causes() {
            text += &format!("\n  because: {cause}");
        }
        if let Some(advice) = error.advice() {
            text += &format!("\n  help: {advice}");
        }
        self.note(&text);
    }

    /// Returns a progress bar on standard error. It is hidden if standard error is not a terminal.
    /// Its message says how far the work has come.
    pub(crate) fn progress(&self) -> ProgressBar {
        let bar = ProgressBar::new_spinner();
        set_template(&bar, "{spinner} {elapsed} {wide_msg}");
        if !bar.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        bar
    }
}

/// Makes a bar show its position among `steps`.
pub(crate) fn measure(bar: &ProgressBar, steps: u64) {
    if bar.length().is_none() {
        set_template(bar, "{bar:30} {pos}/{len} {eta} {wide_msg}");
    }
    bar.set_length(steps);
}

fn set_template(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
}
