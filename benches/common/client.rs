//! A client of HTTP/1.1 with only the features that a measurement needs: one connection, kept
//! alive, and answers that are checked.

use std::fmt::Write as _;
use std::io;
use std::str;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The greatest length of an answer's head.
const MAX_HEAD: usize = 16 << 10;

/// A request, and the answer that it must get.
#[derive(Debug, Clone)]
pub struct Ask {
    request: Vec<u8>,
    target: String,
    has_body: bool,
    length: usize,
}

impl Ask {
    /// Makes a request for `target`, which has to exist and to be `length` bytes long.
    pub fn new(method: &str, target: &str, length: usize) -> Self {
        let mut request = String::new();
        let _ = write!(
            request,
            "{method} {target} HTTP/1.1\r\nHost: registry\r\nUser-Agent: versus\r\nAccept: */*\r\n"
        );
        // The Go registry sends OCI manifests only to clients that accept them.
        if target.contains("/manifests/") {
            request.push_str("Accept: application/vnd.oci.image.manifest.v1+json\r\n");
        }
        request.push_str("\r\n");
        Self {
            request: request.into_bytes(),
            target: format!("{method} {target}"),
            has_body: method != "HEAD",
            length,
        }
    }

    pub fn head(target: &str, length: usize) -> Self {
        Self::new("HEAD", target, length)
    }

    pub fn get(target: &str, length: usize) -> Self {
        Self::new("GET", target, length)
    }

    /// Checks the head of an answer, and returns an error that says what is wrong.
    fn check(&self, head: &[u8]) -> io::Result<()> {
        let head = str::from_utf8(head).map_err(|_| self.wrong("a head that is no text"))?;
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap_or_default();
        let length = lines.find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let is_length = name.eq_ignore_ascii_case("content-length");
            is_length.then(|| value.trim().parse::<usize>().ok())?
        });
        match status.starts_with("HTTP/1.1 200 ") && length == Some(self.length) {
            true => Ok(()),
            false => Err(self.wrong(head)),
        }
    }

    fn wrong(&self, answer: &str) -> io::Error {
        io::Error::other(format!("{}: {answer}", self.target))
    }
}

/// A connection that is kept alive.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects to a `host:port`.
    pub async fn connect(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(64 << 10),
        })
    }

    /// Sends a request and reads the whole answer. Returns when the first byte of the content
    /// arrived, or the head if there is no content.
    ///
    /// # Errors
    /// If the connection fails, or if the answer is not `200` with the right length.
    pub async fn ask(&mut self, ask: &Ask) -> io::Result<Instant> {
        self.stream.write_all(&ask.request).await?;
        self.buffer.clear();
        let head = loop {
            self.read(ask).await?;
            if let Some(end) = end_of_head(&self.buffer) {
                break end;
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(ask.wrong("a head without an end"));
            }
        };
        ask.check(&self.buffer[..head])?;
        let (mut taken, length) = match ask.has_body {
            true => (self.buffer.len() - head, ask.length),
            false => (self.buffer.len() - head, 0),
        };
        let mut first = (taken > 0 || length == 0).then(Instant::now);
        while taken < length {
            self.buffer.clear();
            taken += self.read(ask).await?;
            first.get_or_insert_with(Instant::now);
        }
        match taken == length {
            true => Ok(first.unwrap_or_else(Instant::now)),
            false => Err(ask.wrong("more than the announced length")),
        }
    }

    async fn read(&mut self, ask: &Ask) -> io::Result<usize> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(ask.wrong("the end of the connection")),
            read => Ok(read),
        }
    }
}

/// Returns where the content begins.
pub(super) fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).position(|end| end == b"\r\n\r\n")?;
    Some(end + 4)
}
