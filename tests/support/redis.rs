//! A real Redis of a test's own.

use super::server::{Server, Signal};
use super::tools::require;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The servers that all has to work with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// The oldest one.
    Redis6_2,
    /// Debian's.
    Redis,
    /// Version 9.
    Valkey,
}

impl Version {
    const fn program(self) -> &'static str {
        match self {
            Self::Redis6_2 => "redis-6.2",
            Self::Redis => "redis-server",
            Self::Valkey => "valkey",
        }
    }

    /// What such a server says of itself.
    const fn line(self) -> &'static str {
        match self {
            Self::Redis6_2 => "redis_version:6.2.",
            Self::Redis => "redis_version:",
            Self::Valkey => "server_name:valkey",
        }
    }
}

/// A `redis-server` on a free port, without persistence, in a folder that goes with it.
#[derive(Debug)]
pub struct Redis {
    server: Server,
    program: PathBuf,
    args: Vec<String>,
    folder: TempDir,
}

impl Redis {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With arguments more, such as `&["--requirepass", "x"]`.
    pub async fn start_with(args: &[&str]) -> Self {
        Self::start_in(folder(), Version::Redis, args).await
    }

    /// A server of this version.
    ///
    /// # Panics
    /// If it is another one.
    pub async fn start_of(version: Version) -> Self {
        let redis = Self::start_in(folder(), version, &[]).await;
        let info = redis.cli(&["INFO", "server"]);
        assert!(info.contains(version.line()), "not {version:?}: {info}");
        redis
    }

    /// With what a dump holds.
    pub async fn start_from(dump: &Path) -> Self {
        let folder = folder();
        fs::copy(dump, folder.path().join("dump.rdb")).expect("a dump");
        Self::start_in(folder, Version::Redis, &[]).await
    }

    async fn start_in(folder: TempDir, version: Version, args: &[&str]) -> Self {
        let program = require(version.program());
        let args: Vec<_> = args.iter().map(|&arg| arg.to_owned()).collect();
        let command = |port| command(&program, port, folder.path(), &args);
        let server = Server::start(command, ready).await;
        Self {
            server,
            program,
            args,
            folder,
        }
    }

    pub const fn port(&self) -> u16 {
        self.server.port()
    }

    /// Its address, with the password if it requires one.
    pub fn url(&self) -> String {
        let user = self.password().map(|password| format!(":{password}@"));
        format!("redis://{}{}", user.unwrap_or_default(), self.address())
    }

    /// Its `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    fn password(&self) -> Option<&str> {
        let at = self.args.iter().position(|arg| arg == "--requirepass")?;
        self.args.get(at + 1).map(String::as_str)
    }

    /// What `redis-cli` prints for a command, one element a line.
    ///
    /// # Panics
    /// If the server cannot be reached or answers with an error.
    pub fn cli(&self, args: &[&str]) -> String {
        let answer = self.try_cli(args);
        answer.unwrap_or_else(|why| panic!("{args:?}: {why}"))
    }

    /// The same; an error is what it prints.
    pub fn try_cli(&self, args: &[&str]) -> Result<String, String> {
        let output = self.redis_cli().args(args).output().expect("redis-cli");
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        match output.status.success() {
            true => Ok(text.trim_end_matches('\n').to_owned()),
            false => Err(format!("{text}{errors}")),
        }
    }

    /// Runs a file of commands, one a line.
    pub fn load(&self, commands: &Path) {
        let file = fs::File::open(commands).expect("a file of commands");
        let output = self.redis_cli().stdin(file).output().expect("redis-cli");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {errors}", commands.display());
    }

    fn redis_cli(&self) -> Command {
        let mut command = Command::new(require("redis-cli"));
        command
            .args(["-h", "127.0.0.1", "-p", &self.port().to_string(), "-e"])
            .env("REDISCLI_AUTH", self.password().unwrap_or_default());
        if self.password().is_none() {
            command.env_remove("REDISCLI_AUTH");
        }
        command
    }

    /// `Signal::Stop` lets it hang with its connections open, `Signal::Cont` lets it go on.
    pub fn signal(&self, signal: Signal) {
        self.server.signal(signal);
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Ends it if it runs, and starts it again on its port: empty, or with what `SAVE` last wrote.
    pub async fn restart_on_same_port(&mut self) {
        self.kill();
        let port = self.port();
        let command = command(&self.program, port, self.folder.path(), &self.args);
        let server = Server::start_on(port, command, &ready(port)).await;
        self.server = server.unwrap_or_else(|why| panic!("not started again: {why}"));
    }

    /// Loses what `SAVE` wrote: the next start is an empty one.
    pub fn lose_dump(&self) {
        let dump = self.folder.path().join("dump.rdb");
        if dump.exists() {
            fs::remove_file(dump).expect("a dump to lose");
        }
    }

    pub fn log(&self) -> Vec<String> {
        self.server.log()
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder for Redis")
}

fn ready(_: u16) -> String {
    "Ready to accept connections".to_owned()
}

fn command(program: &Path, port: u16, folder: &Path, args: &[String]) -> Command {
    let mut command = Command::new(program);
    command
        .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"])
        .arg(folder)
        .args(["--save", "", "--appendonly", "no"])
        .args(args);
    command
}
