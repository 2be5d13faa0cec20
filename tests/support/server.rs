//! A child process that serves on loopback: the test starts, watches, signals and ends it by its
//! own id.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::ops::Range;
use std::process::{self, Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How long a server may take to start, or to end after a signal.
const PATIENCE: Duration = Duration::from_secs(20);
const ATTEMPTS: usize = 5;

/// A running child process. Dropping this ends it.
#[derive(Debug)]
pub struct Server {
    child: Child,
    port: u16,
    log: Arc<Mutex<Vec<String>>>,
    ended: bool,
    stopped: AtomicBool,
}

/// A signal for a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// The process stops, with its connections open.
    Stop,
    /// The process goes on.
    Cont,
    /// The process is told to end.
    Term,
}

/// The ports of servers. The system takes the ports of outgoing connections from higher ones: such a
/// connection could otherwise have a server's port while the server is down for a moment. The ports
/// 10,000 above are lower than these too.
const PORTS: Range<u16> = 10_000..20_000;

/// Returns a loopback port that is free and that this process has not returned before.
pub fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU32> = LazyLock::new(|| AtomicU32::new(process::id()));
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed) % PORTS.len() as u32;
        let port = PORTS.start + number as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Returns a free port whose port 10,000 above is free too: the servers of a Redis Cluster talk to
/// each other there.
pub fn free_port_with_bus() -> u16 {
    loop {
        let port = free_port();
        let bus = port.checked_add(10_000);
        if bus.is_some_and(|bus| TcpListener::bind(("127.0.0.1", bus)).is_ok()) {
            return port;
        }
    }
}

impl Server {
    /// Starts a server on a free port, and waits until it writes `ready`.
    ///
    /// Another process may take the port between the check and the start. Then the server ends, and
    /// the function tries another port.
    pub async fn start(command: impl Fn(u16) -> Command, ready: impl Fn(u16) -> String) -> Self {
        Self::start_at(free_port, command, ready).await
    }

    /// Does what [`Self::start`] does, on one of these ports.
    pub async fn start_at(
        ports: impl Fn() -> u16,
        command: impl Fn(u16) -> Command,
        ready: impl Fn(u16) -> String,
    ) -> Self {
        let mut failure = String::new();
        for _ in 0..ATTEMPTS {
            let port = ports();
            match Self::start_on(port, command(port), &ready(port)).await {
                Ok(server) => return server,
                Err(why) => failure = why,
            }
        }
        panic!("not started in {ATTEMPTS} attempts: {failure}");
    }

    /// Starts a server on this port, and waits until one of its lines contains `ready`.
    pub async fn start_on(port: u16, mut command: Command, ready: &str) -> Result<Self, String> {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.map_err(|error| format!("{command:?}: {error}"))?;
        let log = Arc::default();
        follow(child.stdout.take(), &log);
        follow(child.stderr.take(), &log);
        let mut server = Self {
            child,
            port,
            log,
            ended: false,
            stopped: AtomicBool::new(false),
        };

        let deadline = Instant::now() + PATIENCE;
        loop {
            if server.has_logged(ready) {
                return Ok(server);
            }
            let ended = server.child.try_wait().expect("the state of a child");
            if ended.is_some() || Instant::now() > deadline {
                // Its last lines may not have been read yet.
                tokio::time::sleep(Duration::from_millis(50)).await;
                let state =
                    ended.map_or("not ready in time".to_owned(), |status| status.to_string());
                return Err(format!("{command:?}: {state}\n{}", server.log().join("\n")));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Returns whether it is neither ended nor stopped.
    pub fn runs(&self) -> bool {
        !self.ended && !self.stopped.load(Ordering::SeqCst)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns everything it has written so far to standard output and error, line by line.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    pub fn has_logged(&self, text: &str) -> bool {
        let log = self.log.lock().unwrap();
        log.iter().any(|line| line.contains(text))
    }

    pub fn signal(&self, signal: Signal) {
        assert!(!self.ended, "another process may have its id now");
        let name = match signal {
            Signal::Stop => "STOP",
            Signal::Cont => "CONT",
            Signal::Term => "TERM",
        };
        // This uses the shell's own `kill`, because a small machine may have no other.
        let status = Command::new("sh")
            .args(["-c", "kill -s \"$0\" \"$1\"", name, &self.pid().to_string()])
            .status()
            .expect("a shell");
        assert!(status.success(), "{name} to {}: {status}", self.pid());
        let is_stopped = signal == Signal::Stop;
        self.stopped.store(is_stopped, Ordering::SeqCst);
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        // This fails if it has ended already, which does not matter.
        let _ = self.child.kill();
        self.child.wait().expect("the end of a child");
        self.ended = true;
    }

    /// Asks it to end, and waits for its end.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::Term);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("the state of a child") {
                self.ended = true;
                return status;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("still there after SIGTERM:\n{}", self.log().join("\n"));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let log = self.log();
            let last = &log[log.len().saturating_sub(30)..];
            eprintln!("--- the last lines of the server on port {}:", self.port);
            eprintln!("{}", last.join("\n"));
        }
    }
}

/// Reads and keeps the output, so that the child never blocks on a full pipe.
fn follow(output: Option<impl Read + Send + 'static>, log: &Arc<Mutex<Vec<String>>>) {
    let output = BufReader::new(output.expect("a pipe"));
    let log = Arc::clone(log);
    thread::spawn(move || {
        for line in output.split(b'\n') {
            let Ok(line) = line else { return };
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            log.lock().unwrap().push(line);
        }
    });
}

/// Waits until a URL answers anything at all over HTTP.
pub async fn answers(url: &str) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = reqwest::get(url).await {
        assert!(Instant::now() < deadline, "{url}: {error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
