//! A proxy between one client and Redis that counts the client's round trips.
//!
//! What the server says is held back until the client has nothing more to ask without it: so all that
//! is asked at the same time is one round trip, and what is asked for an answer's sake is another one,
//! however fast the server is.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// How long a client has to say nothing before it is answered.
const QUIET: Duration = Duration::from_millis(5);

/// How long nothing has to be asked for all to be over that an operation has left behind.
const OVER: Duration = Duration::from_millis(40);

/// A proxy on a loopback port of its own. What a node does for its own sake (greetings, heartbeats,
/// acknowledgements) passes through, and is not counted.
#[derive(Debug)]
pub struct Meter {
    port: u16,
    trips: Arc<Mutex<Trips>>,
    accepting: JoinHandle<()>,
}

/// Round trips: the commands of each, and how many are over.
#[derive(Debug, Default)]
struct Trips {
    begun: Vec<Vec<String>>,
    over: usize,
}

impl Meter {
    /// Stands before the Redis on this loopback port.
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

    /// How many round trips are over: whoever has an answer now has waited for so many at most.
    pub fn over(&self) -> usize {
        trips(&self.trips).over
    }

    /// The commands of each round trip so far.
    pub fn begun(&self) -> Vec<Vec<String>> {
        trips(&self.trips).begun.clone()
    }

    /// Waits until nothing is asked any more.
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
    trips.lock().expect("nobody panics with it")
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
        stream.set_nodelay(true).expect("no delay of our own");
    }
    let (mut asked, mut said, mut held) = (Vec::new(), Vec::new(), Vec::new());
    // How many answers are to come, and whether what is asked now is asked beside what was before.
    let (mut missing, mut is_beside) = (0, false);
    loop {
        let may_answer = missing == 0 && !held.is_empty();
        tokio::select! {
            read = client.read_buf(&mut asked) => {
                if read.unwrap_or(0) == 0 {
                    return;
                }
                while let Some((command, len)) = command(&asked) {
                    if server.write_all(&asked[..len]).await.is_err() {
                        return;
                    }
                    asked.drain(..len);
                    // Its answers come as what nobody has asked for.
                    missing += usize::from(command[0] != "SUBSCRIBE");
                    if is_counted(&command) {
                        let mut trips = trips(&all);
                        if !is_beside {
                            trips.begun.push(Vec::new());
                            is_beside = true;
                        }
                        let trip = trips.begun.last_mut().expect("one has begun");
                        trip.push(command[0].clone());
                    }
                }
            }
            read = server.read_buf(&mut said) => {
                if read.unwrap_or(0) == 0 {
                    return;
                }
                while let Some(len) = value(&said) {
                    missing -= usize::from(said[0] != b'>');
                    held.extend(said.drain(..len));
                }
            }
            () = sleep(QUIET), if may_answer => {
                if client.write_all(&held).await.is_err() {
                    return;
                }
                held.clear();
                if std::mem::take(&mut is_beside) {
                    trips(&all).over += 1;
                }
            }
        }
    }
}

/// Whether a command is an operation's, and not the node's own.
fn is_counted(command: &[String]) -> bool {
    if command.iter().any(|part| part.contains("::preflight")) {
        return false;
    }
    match command[0].as_str() {
        "SISMEMBER" | "HMGET" | "SCAN" | "UNLINK" | "ZREM" => true,
        "EVAL" | "EVALSHA" => {
            let [_, _, _, keys @ ..] = command else {
                return false;
            };
            let is_nodes_own = keys[0].contains("layercache::{nodes}");
            // What all nodes are told, though, is an operation's.
            !is_nodes_own || keys.get(1).is_some_and(|key| key.ends_with("::all"))
        }
        _ => false,
    }
}

/// The first command of these bytes, and how long it is; `None` if it has not come to its end.
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

/// How long the first value of these bytes is; `None` if it has not come to its end.
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

/// The number of a line such as `*3`, 0 if it is none, and how long the line is.
fn line(bytes: &[u8]) -> Option<(usize, usize)> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let number = std::str::from_utf8(bytes.get(1..end)?).unwrap_or_default();
    Some((number.parse().unwrap_or(0), end + 2))
}
