//! Both servers behind one interface: a connection takes a request, and gives back what came.

use simulated_redis::{ConnectionId, Server};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a server has sent, without the details that the versions of the protocol differ in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Item {
    /// A status, an error, a number, or another value on one line, with its first character.
    Line(String),
    /// A text, with the character that introduces it.
    Text(char, Vec<u8>),
    Nothing(String),
    Many(char, Vec<Self>),
}

pub(crate) fn now() -> Duration {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock");
    Duration::from_micros(u64::try_from(now.as_micros()).expect("a time"))
}

/// Takes the first item from the bytes, if it is whole.
pub(crate) fn take(bytes: &mut Vec<u8>) -> Option<Item> {
    let mut at = 0;
    let item = read(bytes, &mut at)?;
    bytes.drain(..at);
    Some(item)
}

fn read(bytes: &[u8], at: &mut usize) -> Option<Item> {
    let rest = bytes.get(*at..)?;
    let end = rest.windows(2).position(|two| two == b"\r\n")?;
    let line = String::from_utf8_lossy(&rest[..end]).into_owned();
    *at += end + 2;
    let kind = line.chars().next()?;
    let length: i64 = line[1..].parse().unwrap_or(0);
    match kind {
        '_' => Some(Item::Nothing(line)),
        '$' | '*' if length < 0 => Some(Item::Nothing(line)),
        '$' | '=' => {
            let length = usize::try_from(length).ok()?;
            let text = bytes.get(*at..*at + length)?.to_vec();
            bytes.get(*at + length + 1)?;
            *at += length + 2;
            Some(Item::Text(kind, text))
        }
        '*' | '~' | '>' | '%' => {
            let count = if kind == '%' { 2 * length } else { length };
            let items: Option<Vec<_>> = (0..count).map(|_| read(bytes, at)).collect();
            Some(Item::Many(kind, items?))
        }
        _ => Some(Item::Line(line)),
    }
}

pub(crate) fn request(words: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// The text of the `PING` that shows that everything before it has been answered.
const MARKER: &[u8] = b"everything before this was answered";

fn is_marker(item: &Item) -> bool {
    match item {
        Item::Text(_, text) => text == MARKER,
        // The answer on a connection of version 2 that has subscriptions.
        Item::Many('*', items) => items.len() == 2 && is_marker(&items[1]),
        _ => false,
    }
}

pub(crate) trait Connection {
    /// Sends a request, and returns everything that has come since the last one.
    fn ask(&mut self, words: &[Vec<u8>]) -> Vec<Item> {
        self.send(&request(words));
        match words {
            // The `PING` would use it up.
            [word] if word == b"ASKING" => vec![self.receive()],
            _ => self.rest(),
        }
    }

    /// Returns everything that has come since the last request.
    fn rest(&mut self) -> Vec<Item> {
        self.send(&request(&[b"PING".to_vec(), MARKER.to_vec()]));
        let mut items = Vec::new();
        loop {
            let item = self.receive();
            if is_marker(&item) {
                return items;
            }
            items.push(item);
        }
    }

    fn send(&mut self, bytes: &[u8]);
    fn receive(&mut self) -> Item;
}

/// A connection to a real server.
pub(crate) struct Real {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Real {
    pub(crate) fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_nodelay(true).expect("an option");
        let patience = Some(Duration::from_secs(30));
        stream.set_read_timeout(patience).expect("an option");
        Self {
            stream,
            input: Vec::new(),
        }
    }
}

impl Connection for Real {
    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("a request");
    }

    fn receive(&mut self) -> Item {
        loop {
            if let Some(item) = take(&mut self.input) {
                return item;
            }
            let mut some = [0; 65536];
            let count = self.stream.read(&mut some).expect("a reply");
            assert!(count > 0, "the server has closed the connection");
            self.input.extend_from_slice(&some[..count]);
        }
    }
}

/// A connection to a simulated server.
pub(crate) struct Simulated<'a> {
    pub(crate) server: &'a mut Server,
    pub(crate) id: ConnectionId,
    pub(crate) input: &'a mut Vec<u8>,
}

impl Connection for Simulated<'_> {
    fn send(&mut self, bytes: &[u8]) {
        self.server.receive(self.id, bytes, now());
        self.input.extend(self.server.take_output(self.id));
    }

    fn receive(&mut self) -> Item {
        take(self.input).expect("a reply of the simulated server")
    }
}
