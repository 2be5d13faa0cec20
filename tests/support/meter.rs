//! A proxy between one client and Redis that counts the client's round trips.
//!
//! The proxy holds back the server's answers until the client sends nothing more without them. So
//! commands that the client sends at the same time count as one round trip, and commands that need
//! an answer first count as another one, however fast the server is.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// How long the client has to be silent before the proxy passes answers on.
const QUIET: Duration = Duration::from_millis(5);

/// How long no command has to come until an operation's background work counts as finished.
const OVER: Duration = Duration::from_millis(40);

/// A proxy on a loopback port of its own. The commands that a node sends for itself (handshakes,
/// heartbeats, acknowledgements) have a count of their own.
#[derive(Debug)]
pub struct Meter {
    port: u16,
    trips: Arc<Mutex<Trips>>,
    accepting: JoinHandle<()>,
}

/// The round trips: the commands of each, and how many are over.
#[derive(Debug, Default)]
struct Trips {
    begun: Vec<Vec<String>>,
    over: usize,
    /// The round trips that the node makes for itself.
    own: Vec<Vec<String>>,
}

impl Meter {
    /// Starts a proxy in front of the Redis on this loopback port.
    pub async fn start(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a free loopback port");
        let trips = Arc::default();
        Self {
            port: listener.local_addr().expect("its address").port(),
            accepting: tokio::spawn(accept(listener, server, Arc::clone(&trips))),
            trips,
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Forgets what was counted.
    pub fn reset(&self) {
        *trips(&self.trips) = Trips::default();
    }

    /// Returns how many round trips are over. A caller that has its answer now has waited for at
    /// most this many.
    pub fn over(&self) -> usize {
        trips(&self.trips).over
    }

    /// Returns the commands of each round trip so far.
    pub fn begun(&self) -> Vec<Vec<String>> {
        trips(&self.trips).begun.clone()
    }

    /// Returns the commands of each round trip that the node has made for itself. The script of a
    /// heartbeat is called `heartbeat`.
    pub fn own(&self) -> Vec<Vec<String>> {
        trips(&self.trips).own.clone()
    }

    /// Waits until the client sends nothing any more.
    pub async fn settled(&self) {
        let mut last = usize::MAX;
        loop {
            let (begun, over) = {
                let trips = trips(&self.trips);
                (trips.begun.len(), trips.over)
            };
            if begun == over && begun == last {
                return;
            }
            last = begun;
            sleep(OVER).await;
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn trips(trips: &Mutex<Trips>) -> MutexGuard<'_, Trips> {
    trips.lock().expect("a lock that is not poisoned")
}

async fn accept(listener: TcpListener, server: u16, trips: Arc<Mutex<Trips>>) {
    while let Ok((client, _)) = listener.accept().await {
        let server = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await;
        if let Ok(server) = server {
            tokio::spawn(connect(client, server, Arc::clone(&trips)));
        }
    }
}

async fn connect(mut client: TcpStream, mut server: TcpStream, all: Arc<Mutex<Trips>>) {
    for stream in [&client, &server] {
        stream.set_nodelay(true).expect("TCP_NODELAY");
    }
    let (mut requests, mut replies, mut held) = (Vec::new(), Vec::new(), Vec::new());
    // `missing` counts the answers to come. `is_beside` says whether a command joins the current
    // round trip, and `is_own_beside` the same of the node's own commands.
    let (mut missing, mut is_beside, mut is_own_beside) = (0, false, false);
    loop {
        let may_answer = missing == 0 && !held.is_empty();
        tokio::select! {
            read = client.read_buf(&mut requests) => {
                if read.unwrap_or(0) == 0 {
                    return;
                }
                while let Some((command, len)) = command(&requests) {
                    if server.write_all(&requests[..len]).await.is_err() {
                        return;
                    }
                    requests.drain(..len);
                    // Its answers come as push messages, which are not counted as answers.
                    missing += usize::from(command[0] != "SUBSCRIBE");
                    if is_counted(&command) {
                        let mut trips = trips(&all);
                        if !is_beside {
                            trips.begun.push(Vec::new());
                            is_beside = true;
                        }
                        let trip = trips.begun.last_mut().expect("a round trip has begun");
                        trip.push(command[0].clone());
                    } else {
                        let mut trips = trips(&all);
                        if !is_own_beside || trips.own.is_empty() {
                            trips.own.push(Vec::new());
                            is_own_beside = true;
                        }
                        let trip = trips.own.last_mut().expect("a round trip has begun");
                        trip.push(own_name(&command));
                    }
                }
            }
            read = server.read_buf(&mut replies) => {
                if read.unwrap_or(0) == 0 {
                    return;
                }
                while let Some(len) = value(&replies) {
                    missing -= usize::from(replies[0] != b'>');
                    held.extend(replies.drain(..len));
                }
            }
            () = sleep(QUIET), if may_answer => {
                if client.write_all(&held).await.is_err() {
                    return;
                }
                held.clear();
                is_own_beside = false;
                if std::mem::take(&mut is_beside) {
                    trips(&all).over += 1;
                }
            }
        }
    }
}

/// Returns whether a command belongs to an operation, and not to the node itself.
fn is_counted(command: &[String]) -> bool {
    if command.iter().any(|part| part.contains("::preflight")) {
        return false;
    }
    match command[0].as_str() {
        "SISMEMBER" | "HMGET" | "SCAN" | "SCARD" | "UNLINK" | "ZREM" => true,
        "EVAL" | "EVALSHA" => {
            let [_, _, _, keys @ ..] = command else {
                return false;
            };
            let is_nodes_own = keys[0].contains("layercache::{nodes}");
            // A message to all nodes, however, belongs to an operation. Without a message the script
            // reads the set of nodes for a heartbeat.
            !is_nodes_own || (keys.len() > 2 && keys[1].ends_with("::all"))
        }
        _ => false,
    }
}

/// Returns the name of a command that a node sends for itself. Its scripts with the key of the set of
/// nodes are those of a heartbeat.
fn own_name(command: &[String]) -> String {
    let is_script = ["EVAL", "EVALSHA"].contains(&command[0].as_str());
    let is_of_peers = command.get(3).is_some_and(|key| key.ends_with("{nodes}"));
    match is_script && is_of_peers {
        true => "heartbeat".to_owned(),
        false => command[0].clone(),
    }
}

/// Returns the first command of these bytes and its length, or `None` if it is incomplete.
fn command(bytes: &[u8]) -> Option<(Vec<String>, usize)> {
    let (parts, mut at) = line(bytes)?;
    let mut command = Vec::new();
    for _ in 0..parts {
        let (len, head) = line(bytes.get(at..)?)?;
        let part = bytes.get(at + head..at + head + len)?;
        command.push(String::from_utf8_lossy(part).into_owned());
        at += head + len + 2;
    }
    (at <= bytes.len()).then_some((command, at))
}

/// Returns the length of the first value of these bytes, or `None` if it is incomplete.
fn value(bytes: &[u8]) -> Option<usize> {
    let (count, mut at) = line(bytes)?;
    let values = match bytes[0] {
        b'$' | b'=' | b'!' => {
            // A `$-1` has no content.
            let is_nothing = bytes[1] == b'-';
            at += if is_nothing { 0 } else { count + 2 };
            0
        }
        b'*' | b'~' | b'>' if bytes[1] != b'-' => count,
        b'%' => count * 2,
        _ => 0,
    };
    for _ in 0..values {
        at += value(bytes.get(at..)?)?;
    }
    (at <= bytes.len()).then_some(at)
}

/// Returns the number of a line such as `*3` (0 if there is none) and the length of the line.
fn line(bytes: &[u8]) -> Option<(usize, usize)> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let number = std::str::from_utf8(bytes.get(1..end)?).unwrap_or_default();
    Some((number.parse().unwrap_or(0), end + 2))
}
