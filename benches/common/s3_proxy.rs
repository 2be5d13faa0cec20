//! A proxy in front of an S3 server that records every call, and delays each.

use super::client::end_of_head;
use std::io;
use std::net::Ipv4Addr;
use std::str;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// A call of S3: `GET`, and `/bucket/key?query`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub method: String,
    pub target: String,
}

/// A proxy on a loopback port of its own. Dropping it ends it.
#[derive(Debug)]
pub struct S3Proxy {
    port: u16,
    calls: Arc<Mutex<Vec<Call>>>,
    accepting: JoinHandle<()>,
}

impl S3Proxy {
    /// Starts a proxy in front of the server at `http://host:port`. Each call waits for `delay`
    /// before the proxy passes it on. Concurrent calls wait at the same time.
    ///
    /// The proxy copies bytes and parses only the heads of requests. Signatures stay valid, because
    /// it passes on the signed `Host`.
    pub async fn start(endpoint: &str, delay: Duration) -> Self {
        let server = endpoint.strip_prefix("http://").expect("an http address");
        let server: Arc<str> = server.trim_end_matches('/').into();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a free loopback port");
        let port = listener.local_addr().expect("its address").port();
        let calls = Arc::default();
        let notes = Arc::clone(&calls);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, notes) = (Arc::clone(&server), Arc::clone(&notes));
                tokio::spawn(async move { connect(client, &server, &notes, delay).await });
            }
        });
        Self {
            port,
            calls,
            accepting,
        }
    }

    /// Returns its `http://host:port`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns the calls since the last time.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }
}

impl Drop for S3Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn connect(
    client: TcpStream,
    server: &str,
    calls: &Mutex<Vec<Call>>,
    delay: Duration,
) -> io::Result<()> {
    let server = TcpStream::connect(server).await?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // The direction that ends first ends the other one too.
    tokio::select! {
        ended = requests(from_client, to_server, calls, delay) => ended,
        ended = answers(from_server, to_client) => ended,
    }
}

async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
    tokio::io::copy(&mut from, &mut to).await?;
    Ok(())
}

/// Passes requests on one after the other. S3 clients send a request only after the answer to the
/// one before.
async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    calls: &Mutex<Vec<Call>>,
    delay: Duration,
) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(64 << 10);
    while from.read_buf(&mut bytes).await? > 0 {
        let Some(end) = end_of_head(&bytes) else {
            continue;
        };
        let (call, body) = read_head(&bytes[..end])?;
        calls.lock().unwrap().push(call);
        if !delay.is_zero() {
            sleep(delay).await;
        }
        to.write_all(&bytes).await?;
        let rest = (end + body).saturating_sub(bytes.len());
        let mut rest = (&mut from).take(rest as u64);
        tokio::io::copy(&mut rest, &mut to).await?;
        bytes.clear();
    }
    Ok(())
}

/// Returns the call, and the length of its content in bytes.
fn read_head(head: &[u8]) -> io::Result<(Call, usize)> {
    let broken = || io::Error::other("no head of a request");
    let head = str::from_utf8(head).map_err(|_| broken())?;
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let call = Call {
        method: words.next().ok_or_else(broken)?.to_owned(),
        target: words.next().ok_or_else(broken)?.to_owned(),
    };
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse().ok())?
    });
    Ok((call, length.unwrap_or(0)))
}
