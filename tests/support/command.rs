//! Runs the command `layercache` as a process.

use super::example::binary;
use super::http::PATIENCE;
use serde_json::Value;
use std::path::PathBuf;
use std::process::Stdio;
use tokio::process::{Child, Command};

/// The result of a process of the command.
#[derive(Debug)]
pub struct CommandOutput {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// Returns the command, without the environment variables that it would read.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(program());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["LAYERCACHE_", "AWS_", "GOOGLE_", "AZURE_", "NO_COLOR"]
            .iter()
            .any(|start| text.starts_with(start))
        {
            command.env_remove(&name);
        }
    }
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

pub async fn run(args: &[&str]) -> CommandOutput {
    run_with(args, &[]).await
}

/// Runs the command with these environment variables.
pub async fn run_with(args: &[&str], env: &[(String, String)]) -> CommandOutput {
    let mut command = command(args);
    command.envs(env.iter().map(|(name, value)| (name, value)));
    output_of(command.spawn().unwrap()).await
}

pub async fn output_of(child: Child) -> CommandOutput {
    let output = child.wait_with_output();
    let output = tokio::time::timeout(PATIENCE * 3, output).await;
    let output = output.expect("the command ends").unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    CommandOutput {
        code: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

impl CommandOutput {
    /// # Panics
    /// If it has ended with another code, or with unexpected output.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert!(!self.err.contains("panicked"), "{self:#?}");
        assert!(
            !self.out.contains('\x1b') && !self.err.contains('\x1b'),
            "colours in a pipe: {self:#?}"
        );
        if code != 2 {
            assert!(!self.err.contains("error:"), "{self:#?}");
        }
        self
    }

    /// Checks that the command has failed with an error that contains these words.
    #[track_caller]
    pub fn refused(self, words: &[&str]) -> Self {
        let output = self.expect(2);
        assert!(output.err.starts_with("error: "), "{output:#?}");
        for word in words {
            assert!(output.err.contains(word), "no `{word}`: {output:#?}");
        }
        output
    }

    #[track_caller]
    pub fn has(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.out.contains(word), "no `{word}`: {self:#?}");
        }
        self
    }

    #[track_caller]
    pub fn keeps(self, secret: &str) -> Self {
        assert!(
            !self.out.contains(secret) && !self.err.contains(secret),
            "{self:#?}"
        );
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.out.lines().count(), 1, "{self:#?}");
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    /// Returns the cells of the table line that begins like this.
    #[track_caller]
    pub fn row(&self, first: &str) -> Vec<&str> {
        let mut rows = self
            .out
            .lines()
            .map(|line| line.split('\t').collect::<Vec<_>>());
        let row = rows.find(|row| row[0].trim() == first);
        row.unwrap_or_else(|| panic!("no row `{first}`: {self:#?}"))
    }
}

/// Returns the path of the command.
///
/// # Panics
/// If the program is missing.
pub fn program() -> PathBuf {
    binary("layercache")
}
