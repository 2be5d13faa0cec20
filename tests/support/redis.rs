//! Starts a real Redis for one test.

use super::server::{Server, Signal, free_port, free_port_with_bus};
use super::tls::Certificates;
use super::tools::require;
use std::fs;
use std::io::{self, BufRead, BufReader, Seek, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// The servers that the library has to work with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// The oldest supported one.
    Redis6_2,
    /// The one that Debian ships.
    Redis,
    /// Version 9.
    Valkey,
}

impl Version {
    pub const fn program(self) -> &'static str {
        match self {
            Self::Redis6_2 => "redis-6.2",
            Self::Redis => "redis-server",
            Self::Valkey => "valkey",
        }
    }

    /// What this server's `INFO` says of its version.
    const fn line(self) -> &'static str {
        match self {
            Self::Redis6_2 => "redis_version:6.2.",
            Self::Redis => "redis_version:",
            Self::Valkey => "server_name:valkey",
        }
    }
}

/// How a server is configured.
#[derive(Debug, Clone)]
pub struct Setup {
    pub version: Version,
    pub args: Vec<String>,
    /// The server accepts only TLS, and asks for a client's certificate.
    pub tls: Option<Arc<Certificates>>,
    /// The server is part of a Redis Cluster, whose servers talk to each other on a second port.
    pub is_clustered: bool,
}

impl Setup {
    pub fn new(version: Version, args: &[&str]) -> Self {
        Self {
            version,
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            tls: None,
            is_clustered: false,
        }
    }

    pub fn with_tls(self, certificates: &Arc<Certificates>) -> Self {
        let tls = Some(Arc::clone(certificates));
        Self { tls, ..self }
    }

    fn command(&self, program: &Path, port: u16, folder: &Path) -> Command {
        let mut command = Command::new(program);
        let port = port.to_string();
        command.args(["--bind", "127.0.0.1", "--dir"]).arg(folder);
        match &self.tls {
            None => command.args(["--port", &port]),
            Some(certificates) => command
                .args(["--port", "0", "--tls-port", &port])
                .args(certificates.server_args()),
        };
        if self.is_clustered {
            command.args(["--cluster-enabled", "yes"]);
        }
        command.args(["--save", "", "--appendonly", "no"]);
        command.args(&self.args);
        command
    }

    pub fn password(&self) -> Option<&str> {
        let at = self.args.iter().position(|arg| arg == "--requirepass")?;
        self.args.get(at + 1).map(String::as_str)
    }

    /// Returns `redis-cli` for a server on this port.
    pub fn redis_cli(&self, port: u16) -> Command {
        let mut command = Command::new(require("redis-cli"));
        command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-e"]);
        match self.password() {
            Some(password) => command.env("REDISCLI_AUTH", password),
            None => command.env_remove("REDISCLI_AUTH"),
        };
        if let Some(certificates) = &self.tls {
            command.args(certificates.cli_args());
        }
        command
    }
}

/// A `redis-server` on a free port, without persistence, in a folder that is deleted with it.
#[derive(Debug)]
pub struct Redis {
    server: Server,
    program: PathBuf,
    setup: Setup,
    folder: TempDir,
}

impl Redis {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a server with additional arguments, such as `&["--requirepass", "x"]`.
    pub async fn start_with(args: &[&str]) -> Self {
        Self::start_as(Setup::new(Version::Redis, args)).await
    }

    /// Starts a server of this version.
    ///
    /// # Panics
    /// If the program is of another version.
    pub async fn start_of(version: Version) -> Self {
        Self::start_as(Setup::new(version, &[])).await
    }

    /// Starts a server without checking its version, because it may lack the commands that the
    /// check needs.
    pub async fn start_unchecked(args: &[&str]) -> Self {
        Self::start_in(folder(), Setup::new(Version::Redis, args)).await
    }

    /// Starts a server with the content of a dump.
    pub async fn start_from(dump: &Path) -> Self {
        let folder = folder();
        fs::copy(dump, folder.path().join("dump.rdb")).expect("a dump");
        Self::start_in(folder, Setup::new(Version::Redis, &[])).await
    }

    /// Starts a server on this port, on which no server has run yet.
    pub async fn start_on(port: u16) -> Self {
        let setup = Setup::new(Version::Redis, &[]);
        let (folder, program) = (folder(), require(setup.version.program()));
        let command = setup.command(&program, port, folder.path());
        let server = Server::start_on(port, command, &ready(port)).await;
        Self {
            server: server.unwrap_or_else(|why| panic!("not started: {why}")),
            program,
            setup,
            folder,
        }
    }

    /// # Panics
    /// If the program is of another version.
    pub async fn start_as(setup: Setup) -> Self {
        let redis = Self::start_in(folder(), setup).await;
        let version = redis.setup.version;
        let info = redis.cli(&["INFO", "server"]);
        assert!(info.contains(version.line()), "not {version:?}: {info}");
        redis
    }

    async fn start_in(folder: TempDir, setup: Setup) -> Self {
        let program = require(setup.version.program());
        let command = |port| setup.command(&program, port, folder.path());
        let port = match setup.is_clustered {
            true => free_port_with_bus,
            false => free_port,
        };
        let server = Server::start_at(port, command, ready).await;
        Self {
            server,
            program,
            setup,
            folder,
        }
    }

    pub const fn port(&self) -> u16 {
        self.server.port()
    }

    /// Returns its address, with the password if it requires one, and with a client's certificate
    /// if it uses TLS.
    pub fn url(&self) -> String {
        let user = self
            .setup
            .password()
            .map(|password| format!(":{password}@"));
        let (scheme, query) = match &self.setup.tls {
            None => ("redis", String::new()),
            Some(certificates) => ("rediss", format!("?{}", certificates.query())),
        };
        let (user, address) = (user.unwrap_or_default(), self.address());
        format!("{scheme}://{user}{address}{query}")
    }

    /// Returns its `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns what `redis-cli` prints for a command, one element a line.
    ///
    /// # Panics
    /// If the server cannot be reached or answers with an error.
    pub fn cli(&self, args: &[&str]) -> String {
        self.try_cli(args).unwrap_or_else(|why| panic!("{why}"))
    }

    /// Does what [`Self::cli`] does, and returns errors.
    ///
    /// Most callers run on the one thread of the runtime that their nodes use. Starting a process
    /// there blocks the thread on a busy machine, and the nodes send no heartbeats meanwhile. So
    /// the command goes over a socket where possible.
    pub fn try_cli(&self, args: &[&str]) -> Result<String, String> {
        // Only `redis-cli` understands options.
        let has_options = args.first().is_some_and(|first| first.starts_with('-'));
        match self.setup.tls {
            None if !has_options => self.ask(args).map_err(|why| format!("{args:?}: {why}")),
            _ => output_of(self.setup.redis_cli(self.port()).args(args)),
        }
    }

    /// Sends the command again when the connection ends without a reply. A Sentinel that gives a
    /// server another role ends all its connections (`CLIENT KILL TYPE normal`), including this
    /// one. So a command may run twice; no test sends a command for which that matters.
    fn ask(&self, args: &[&str]) -> io::Result<String> {
        for _ in 0..2 {
            match self.ask_once(args) {
                Err(why) if is_cut_off(&why) => {}
                answer => return answer,
            }
        }
        self.ask_once(args)
    }

    fn ask_once(&self, args: &[&str]) -> io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port()))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut replies = BufReader::new(stream.try_clone()?);
        let auth = self.setup.password().map(|password| ["AUTH", password]);
        let commands = [auth.as_ref().map(|auth| &auth[..]), Some(args)];
        let mut text = String::new();
        for command in commands.into_iter().flatten() {
            stream.write_all(&request(command))?;
            text = reply(&mut replies)?;
        }
        Ok(text.trim_end_matches('\n').to_owned())
    }

    /// Returns what `redis-cli` prints for some commands on one connection. The arguments of the
    /// commands must not contain spaces.
    pub fn cli_lines(&self, commands: &[&str]) -> String {
        let mut file = tempfile::tempfile().expect("a file of commands");
        let written = file.write_all((commands.join("\n") + "\n").as_bytes());
        written.and_then(|()| file.rewind()).expect("a file");
        let mut command = self.setup.redis_cli(self.port());
        // An error of one command is an answer: a server alone does not know the commands of a
        // cluster.
        let output = command.stdin(file).output().expect("redis-cli");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a file of commands, one a line.
    pub fn load(&self, commands: &Path) {
        let file = fs::File::open(commands).expect("a file of commands");
        let mut command = self.setup.redis_cli(self.port());
        let output = command.stdin(file).output().expect("redis-cli");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {errors}", commands.display());
    }

    /// Sends a signal. `Signal::Stop` lets the server hang with its connections open,
    /// `Signal::Cont` lets it go on.
    pub fn signal(&self, signal: Signal) {
        self.server.signal(signal);
    }

    /// Returns whether it is neither ended nor stopped.
    pub fn runs(&self) -> bool {
        self.server.runs()
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Ends it if it runs, and starts it again on its port: empty, or with what `SAVE` last wrote.
    pub async fn restart_on_same_port(&mut self) {
        self.kill();
        let port = self.port();
        let command = self.setup.command(&self.program, port, self.folder.path());
        let server = Server::start_on(port, command, &ready(port)).await;
        self.server = server.unwrap_or_else(|why| panic!("not started again: {why}"));
    }

    /// Deletes what `SAVE` wrote, so that the next start is an empty one.
    pub fn lose_dump(&self) {
        let dump = self.folder.path().join("dump.rdb");
        if dump.exists() {
            fs::remove_file(dump).expect("the dump");
        }
    }

    pub fn log(&self) -> Vec<String> {
        self.server.log()
    }
}

/// How long a server may take to answer a command.
const PATIENCE: Duration = Duration::from_secs(60);

fn is_cut_off(why: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(why.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

fn request(args: &[&str]) -> Vec<u8> {
    let head = format!("*{}\r\n", args.len());
    let args = args
        .iter()
        .map(|arg| format!("${}\r\n{arg}\r\n", arg.len()));
    args.fold(head, |all, arg| all + &arg).into_bytes()
}

/// Reads a reply and formats it as `redis-cli` prints it into a pipe.
fn reply(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let line = line.trim_end_matches("\r\n");
    let odd = || io::Error::other(format!("no reply: {line}"));
    let (kind, rest) = line.split_at_checked(1).ok_or_else(odd)?;
    let length = || rest.parse::<i64>().map_err(|_| odd());
    match kind {
        "+" | ":" => Ok(rest.to_owned()),
        "-" => Err(io::Error::other(rest.to_owned())),
        "$" => {
            let Ok(length) = usize::try_from(length()?) else {
                return Ok(String::new());
            };
            let mut text = vec![0; length + 2];
            from.read_exact(&mut text)?;
            text.truncate(length);
            Ok(String::from_utf8_lossy(&text).into_owned())
        }
        "*" => {
            let elements: io::Result<Vec<_>> = (0..length()?).map(|_| reply(from)).collect();
            Ok(elements?.join("\n"))
        }
        _ => Err(odd()),
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder for Redis")
}

fn ready(_: u16) -> String {
    "Ready to accept connections".to_owned()
}

/// Runs a command of `redis-cli` and returns its output, or why it failed.
pub fn output_of(command: &mut Command) -> Result<String, String> {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("redis-cli");
    let text = String::from_utf8_lossy(&stdout);
    match status.success() {
        true => Ok(text.trim_end_matches('\n').to_owned()),
        false => {
            let errors = String::from_utf8_lossy(&stderr);
            Err(format!("{:?}: {text}{errors}", command.get_args()))
        }
    }
}
