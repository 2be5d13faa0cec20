//! A TCP proxy between one node and Redis that makes faults like those of a network.

use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// A proxy on a loopback port of its own. Dropping it ends it and its connections.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    faults: watch::Sender<Faults>,
    accepting: JoinHandle<()>,
}

/// How the proxy treats the bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    Flow,
    /// Bytes arrive late, in order, by a random time between these two.
    Delay(Duration, Duration),
    /// Bytes arrive when this fault ends. Until then the other side does not even see the end of
    /// the connection.
    Hold,
    /// Bytes are lost. A connection that has lost bytes stays half open until it is reset.
    Swallow,
}

#[derive(Debug, Clone, Copy)]
struct Faults {
    to_server: Line,
    to_client: Line,
    refuses: bool,
    resets: u64,
}

impl Proxy {
    /// Starts a proxy in front of the server on this loopback port. The server may start later.
    pub async fn start(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a free loopback port");
        let faults = watch::Sender::new(Faults {
            to_server: Line::Flow,
            to_client: Line::Flow,
            refuses: false,
            resets: 0,
        });
        Self {
            port: listener.local_addr().expect("its address").port(),
            accepting: tokio::spawn(accept(listener, server, faults.subscribe())),
            faults,
        }
    }

    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Treats the bytes of all connections like this from now on.
    pub fn set(&self, to_server: Line, to_client: Line) {
        self.faults.send_modify(|faults| {
            faults.to_server = to_server;
            faults.to_client = to_client;
        });
    }

    /// Ends all connections.
    pub fn reset(&self) {
        self.faults.send_modify(|faults| faults.resets += 1);
    }

    /// Sets whether new connections are refused. The proxy accepts a refused connection and ends it
    /// at once.
    pub fn refuse(&self, refuses: bool) {
        self.faults.send_modify(|faults| faults.refuses = refuses);
    }

    /// Ends all faults. Lost bytes stay lost.
    pub fn restore(&self) {
        self.set(Line::Flow, Line::Flow);
        self.refuse(false);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, server: u16, faults: watch::Receiver<Faults>) {
    while let Ok((client, _)) = listener.accept().await {
        if !faults.borrow().refuses {
            tokio::spawn(connect(client, server, faults.clone()));
        }
    }
}

async fn connect(client: TcpStream, server: u16, mut faults: watch::Receiver<Faults>) {
    let resets = faults.borrow().resets;
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await else {
        return;
    };
    for stream in [&client, &server] {
        stream.set_nodelay(true).expect("no delay of our own");
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (there, back) = (faults.clone(), faults.clone());
    // The direction that ends first ends the other one too.
    tokio::select! {
        () = pump(from_client, to_server, there, |faults| faults.to_server) => {}
        () = pump(from_server, to_client, back, |faults| faults.to_client) => {}
        _ = faults.wait_for(|faults| faults.resets != resets) => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut faults: watch::Receiver<Faults>,
    line: impl Fn(&Faults) -> Line,
) {
    let mut bytes = vec![0; 64 << 10];
    let mut is_lost = false;
    loop {
        let read = from.read(&mut bytes).await.unwrap_or(0);
        let now = faults.wait_for(|faults| line(faults) != Line::Hold).await;
        let Ok(now) = now.map(|faults| line(&faults)) else {
            return;
        };
        if let Line::Delay(least, most) = now {
            let random = least.as_micros() as u64..=most.as_micros() as u64;
            sleep(Duration::from_micros(fastrand::u64(random))).await;
        }
        is_lost |= now == Line::Swallow;
        let written = match is_lost {
            true => Ok(()),
            false => to.write_all(&bytes[..read]).await,
        };
        if read == 0 || written.is_err() {
            return;
        }
    }
}
