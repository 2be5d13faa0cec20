//! Serves a small part of S3 and makes faults on demand, down to the bytes of an answer.

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{BackoffConfig, ClientOptions, RetryConfig};
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long its clients wait for an answer.
pub const TIMEOUT: Duration = Duration::from_millis(500);

/// A bucket on loopback that answers as the test says.
#[derive(Debug)]
pub struct Bucket {
    port: u16,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    objects: Mutex<HashMap<String, Vec<u8>>>,
    requests: Mutex<usize>,
    trouble: watch::Sender<Trouble>,
}

/// How requests are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    None,
    /// With this error.
    Status(u16, &'static str),
    /// The first requests, this many, with this error.
    Few(usize, u16, &'static str),
    /// With nothing, until this fault ends.
    Hang,
    /// The server ends the connection instead of answering.
    Reset,
    /// Reads find nothing, whatever was written.
    Blind,
    /// Reads state this length instead of the true one.
    Length(usize),
    /// Reads state no length.
    NoLength,
    /// Reads state no entity tag and no time.
    NoTag,
    /// The content ends before it is complete.
    Cut,
}

impl Bucket {
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a free loopback port");
        let shared = Arc::new(Shared {
            objects: Mutex::default(),
            requests: Mutex::default(),
            trouble: watch::Sender::new(Trouble::None),
        });
        Self {
            port: listener.local_addr().expect("its address").port(),
            serving: tokio::spawn(accept(listener, Arc::clone(&shared))),
            shared,
        }
    }

    /// Returns a client that tries once.
    pub fn client(&self) -> AmazonS3 {
        self.client_that_tries(0)
    }

    /// Returns a client that retries this often.
    pub fn client_that_tries(&self, max_retries: usize) -> AmazonS3 {
        let retry = RetryConfig {
            max_retries,
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(10),
                ..Default::default()
            },
            ..Default::default()
        };
        AmazonS3Builder::new()
            .with_endpoint(format!("http://127.0.0.1:{}", self.port))
            .with_client_options(
                ClientOptions::new()
                    .with_timeout(TIMEOUT)
                    .with_allow_http(true),
            )
            .with_retry(retry)
            .with_region("us-east-1")
            .with_bucket_name("bucket")
            .with_access_key_id("any")
            .with_secret_access_key("any")
            .build()
            .expect("a client")
    }

    /// Answers requests like this from now on, including requests that hang.
    pub fn set_trouble(&self, trouble: Trouble) {
        self.shared.trouble.send_replace(trouble);
    }

    /// Returns the number of requests that have arrived.
    pub fn requests(&self) -> usize {
        *self.shared.requests.lock().unwrap()
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        // This task ends with the connection, and only the test's own client connects.
        tokio::spawn(async move { serve(BufReader::new(stream), &shared).await });
    }
}

struct Request {
    method: String,
    key: String,
    /// Only this many first bytes are wanted.
    part: Option<usize>,
    body: Vec<u8>,
}

async fn serve(mut stream: BufReader<TcpStream>, shared: &Shared) -> Option<()> {
    loop {
        let request = read(&mut stream).await?;
        *shared.requests.lock().unwrap() += 1;
        let mut trouble = shared.trouble.subscribe();
        let trouble = *trouble.wait_for(|now| *now != Trouble::Hang).await.ok()?;
        let is_read = matches!(&*request.method, "GET" | "HEAD");
        let answer = match trouble {
            Trouble::Reset => return None,
            Trouble::Status(code, name) => error(&request, code, name),
            Trouble::Few(left, code, name) => {
                let next = match left {
                    0 | 1 => Trouble::None,
                    left => Trouble::Few(left - 1, code, name),
                };
                shared.trouble.send_replace(next);
                error(&request, code, name)
            }
            Trouble::Blind if is_read => error(&request, 404, "NoSuchKey"),
            trouble if is_read => get(&request, shared, trouble),
            _ => change(&request, shared),
        };
        stream.get_mut().write_all(&answer).await.ok()?;
        if trouble == Trouble::Cut {
            return None;
        }
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let (mut first, mut length, mut part) = (String::new(), 0, None);
    stream.read_line(&mut first).await.ok()?;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.parse().expect("a length");
            }
            Some((name, value)) if name.eq_ignore_ascii_case("range") => {
                let last = value.strip_prefix("bytes=0-").expect("from the first byte");
                part = Some(last.parse::<usize>().expect("a number") + 1);
            }
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    let mut words = first.split(' ');
    Some(Request {
        method: words.next()?.to_owned(),
        key: words
            .next()?
            .strip_prefix("/bucket/")
            .unwrap_or_default()
            .to_owned(),
        part,
        body,
    })
}

fn error(request: &Request, code: u16, name: &str) -> Vec<u8> {
    let text = format!("<Error><Code>{name}</Code></Error>");
    let body = if request.method == "HEAD" { "" } else { &text };
    let length = text.len();
    format!("HTTP/1.1 {code} {name}\r\nContent-Length: {length}\r\n\r\n{body}").into()
}

fn get(request: &Request, shared: &Shared, trouble: Trouble) -> Vec<u8> {
    let Some(mut content) = shared.objects.lock().unwrap().get(&request.key).cloned() else {
        return error(request, 404, "NoSuchKey");
    };
    let mut answer = "HTTP/1.1 200 OK\r\n".to_owned();
    if let Some(part) = request.part {
        let (last, whole) = (part - 1, content.len());
        answer =
            format!("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-{last}/{whole}\r\n");
        content.truncate(part);
    }
    let length = match trouble {
        Trouble::Length(length) => length,
        _ => content.len(),
    };
    if trouble != Trouble::NoLength {
        answer += &format!("Content-Length: {length}\r\n");
    }
    if trouble != Trouble::NoTag {
        answer += "ETag: \"1\"\r\nLast-Modified: Tue, 24 Nov 2026 00:00:00 GMT\r\n";
    }
    let mut answer = (answer + "\r\n").into_bytes();
    if request.method == "GET" {
        let length = match trouble {
            Trouble::Cut => content.len() / 2,
            _ => length.min(content.len()),
        };
        answer.extend_from_slice(&content[..length]);
    }
    answer
}

fn change(request: &Request, shared: &Shared) -> Vec<u8> {
    let mut objects = shared.objects.lock().unwrap();
    let mut result = String::new();
    match &*request.method {
        "PUT" => drop(objects.insert(request.key.clone(), request.body.clone())),
        // A `POST`; the tests send it only to delete objects.
        _ => {
            let text = String::from_utf8_lossy(&request.body);
            let keys = text.split("<Key>").skip(1);
            for key in keys.filter_map(|rest| rest.split_once("</Key>")) {
                objects.remove(key.0);
                result += &format!("<Deleted><Key>{}</Key></Deleted>", key.0);
            }
            result = format!("<DeleteResult>{result}</DeleteResult>");
        }
    }
    let length = result.len();
    format!("HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: {length}\r\n\r\n{result}").into()
}
