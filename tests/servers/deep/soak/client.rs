//! Sends requests to a node over HTTP, and decides what each answer means.

use super::ledger::{Attempt, End, Ledger, Op, outcome};
use super::things::{Thing, blob_content, manifest_content, repository};
use layercache::CacheStatus;
use reqwest::header::CONTENT_LENGTH;
use reqwest::{Client, Method, RequestBuilder};
use std::time::Duration;
use test_support::history::record::{Fact, Span, now};
use test_support::image::sha256;
use tokio::time::timeout;

/// Longer than a node tries to reach S3. A node that has not answered by then will not answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// All nodes, and the ledger of their requests.
#[derive(Debug)]
pub(crate) struct Nodes {
    pub(crate) client: Client,
    pub(crate) urls: Vec<String>,
    pub(crate) ledger: Ledger,
}

/// The outcome of a request.
enum Reply {
    Answer(Answer),
    Refused,
    Failed(String),
    Silent,
}

struct Answer {
    status: u16,
    by: CacheStatus,
    length: Option<usize>,
    location: Option<String>,
    body: Vec<u8>,
}

impl Reply {
    fn end(&self) -> (End, String) {
        match self {
            Self::Answer(_) => (End::Answered, String::new()),
            Self::Refused => (End::Refused, String::new()),
            Self::Failed(why) => (End::Failed, why.clone()),
            Self::Silent => (End::Silent, "no answer in time".to_owned()),
        }
    }
}

impl Nodes {
    fn ask(&self, node: usize, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("{}{path}", self.urls[node]))
    }

    /// Reads a thing, records the answer, and returns whether the thing is there. Returns `None` if
    /// the node did not say that.
    pub(crate) async fn read(&self, op: Op, node: usize, thing: Thing) -> Option<bool> {
        let method = match op {
            Op::HeadBlob | Op::HeadManifest => Method::HEAD,
            _ => Method::GET,
        };
        let begin = now();
        let reply = send(self.ask(node, method, &thing.path())).await;
        self.ended(op, node, begin, &reply);
        self.only(op, &reply, &[200, 404]);
        let Reply::Answer(answer) = reply else {
            return None;
        };
        let present = answer.status == 200;
        if present {
            self.is_right(op, thing, &answer);
        }
        let facts = thing.facts();
        self.ledger
            .read((op, node), facts, present, answer.by, begin);
        Some(present)
    }

    /// Checks the content of an answer. No fault of the servers may lead to wrong content.
    fn is_right(&self, op: Op, thing: Thing, answer: &Answer) {
        let (digest, length) = thing.identity();
        let is_right = match op {
            Op::HeadBlob | Op::HeadManifest => answer.length == Some(length),
            _ => answer.body.len() == length && sha256(&answer.body) == digest,
        };
        if !is_right {
            let (name, length) = (op.name(), answer.length);
            self.ledger.never(format!(
                "{name} {thing:?}: another content, {length:?} bytes long"
            ));
        }
    }

    fn ended(&self, op: Op, node: usize, begin: u64, reply: &Reply) -> End {
        let (end, why) = reply.end();
        self.ledger.attempt(Attempt {
            op,
            span: Span::since(begin),
            node,
            end,
            why,
        });
        end
    }

    fn changed(&self, of: (Op, usize), facts: &[Fact], present: bool, end: End, begin: u64) {
        let (outcome, span) = outcome(end, begin);
        for fact in facts {
            self.ledger.change(of, *fact, present, outcome, span);
        }
    }

    /// Pushes a blob, in one request or in chunks.
    pub(crate) async fn push(&self, op: Op, node: usize, in_repository: u32, blob: u32) -> End {
        let content = blob_content(blob);
        let digest = sha256(&content);
        let uploads = format!("/v2/{}/blobs/uploads/", repository(in_repository));
        let begin = now();
        let reply = match op {
            Op::PushInChunks => self.push_in_chunks(node, &uploads, &digest, content).await,
            _ => {
                let path = format!("{uploads}?digest={digest}");
                send(self.ask(node, Method::POST, &path).body(content)).await
            }
        };
        let end = self.ended(op, node, begin, &reply);
        self.only(op, &reply, &[201]);
        let fact = Thing::Blob(in_repository, blob).fact();
        self.changed((op, node), &[fact], true, end, begin);
        end
    }

    async fn push_in_chunks(
        &self,
        node: usize,
        uploads: &str,
        digest: &str,
        content: Vec<u8>,
    ) -> Reply {
        let begun = send(self.ask(node, Method::POST, uploads)).await;
        let Reply::Answer(Answer {
            location: Some(upload),
            ..
        }) = begun
        else {
            return begun;
        };
        let mut reply = Reply::Silent;
        for chunk in content.chunks((content.len() / 2).max(1)) {
            reply = send(self.ask(node, Method::PATCH, &upload).body(chunk.to_vec())).await;
            if !matches!(reply, Reply::Answer(Answer { status: 202, .. })) {
                break;
            }
        }
        if let Reply::Answer(Answer { status: 202, .. }) = reply {
            let path = format!("{upload}?digest={digest}");
            reply = send(self.ask(node, Method::PUT, &path)).await;
        }
        if !matches!(reply, Reply::Answer(Answer { status: 201, .. })) {
            self.cancel(node, &upload).await;
        }
        reply
    }

    /// Cancels an upload. If that fails, the node removes it itself after some time.
    async fn cancel(&self, node: usize, upload: &str) {
        drop(send(self.ask(node, Method::DELETE, upload)).await);
    }

    /// Mounts a blob from another repository, if it is there.
    pub(crate) async fn mount(&self, node: usize, from: u32, to: u32, blob: u32) -> End {
        let op = Op::Mount;
        let (digest, _) = Thing::Blob(from, blob).identity();
        let path = format!(
            "/v2/{}/blobs/uploads/?mount={digest}&from={}",
            repository(to),
            repository(from)
        );
        let begin = now();
        let reply = send(self.ask(node, Method::POST, &path)).await;
        let end = self.ended(op, node, begin, &reply);
        self.only(op, &reply, &[201, 202]);
        let fact = Thing::Blob(to, blob).fact();
        let source = [Some(Thing::Blob(from, blob).fact()), None];
        if let Reply::Answer(answer) = reply {
            let is_mounted = answer.status == 201;
            let of = (op, node);
            self.ledger
                .read(of, source, is_mounted, CacheStatus::Bypass, begin);
            if !is_mounted {
                if let Some(upload) = answer.location {
                    self.cancel(node, &upload).await;
                }
                return end;
            }
        }
        self.changed((op, node), &[fact], true, end, begin);
        end
    }

    pub(crate) async fn put_manifest(&self, node: usize, in_repository: u32, number: u32) -> End {
        let op = Op::PutManifest;
        let (thing, tag) = (
            Thing::Manifest(in_repository, number),
            Thing::Tag(in_repository, number),
        );
        let request = self.ask(node, Method::PUT, &tag.path());
        let begin = now();
        let reply = send(request.body(manifest_content(number))).await;
        let end = self.ended(op, node, begin, &reply);
        // All parts of the manifest are always there, so only this answer is right.
        self.only(op, &reply, &[201]);
        let facts = [thing.fact(), tag.fact()];
        self.changed((op, node), &facts, true, end, begin);
        end
    }

    /// Deletes a blob, or a manifest and its tag.
    pub(crate) async fn delete(&self, op: Op, node: usize, thing: Thing) -> End {
        let begin = now();
        let reply = send(self.ask(node, Method::DELETE, &thing.path())).await;
        let end = self.ended(op, node, begin, &reply);
        self.only(op, &reply, &[202, 404]);
        if let Reply::Answer(Answer { status: 404, .. }) = reply {
            let facts = [Some(thing.fact()), None];
            let of = (op, node);
            self.ledger
                .read(of, facts, false, CacheStatus::Bypass, begin);
            return end;
        }
        self.changed((op, node), &thing.deleted(), false, end, begin);
        end
    }

    fn only(&self, op: Op, reply: &Reply, expected: &[u16]) {
        if let Reply::Answer(Answer { status, body, .. }) = reply
            && !expected.contains(status)
        {
            let text = String::from_utf8_lossy(body);
            self.ledger.never(format!("{}: {status} {text}", op.name()));
        }
    }

    /// Returns whether the node accepts a change within a second.
    pub(crate) async fn takes_changes(&self, node: usize) -> bool {
        let begin = now();
        let end = self.push(Op::PushAtOnce, node, 0, PROBE).await;
        end == End::Answered && now() - begin < 1_000_000_000
    }
}

/// The blob that [`Nodes::takes_changes`] pushes.
const PROBE: u32 = 3_000_000_000;

async fn send(request: RequestBuilder) -> Reply {
    let answer = async {
        let response = request.send().await?;
        let header = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
        let by = header("cache-status").unwrap_or_default();
        let answer = Answer {
            status: response.status().as_u16(),
            by: match by.rsplit('=').next() {
                Some("memory") => CacheStatus::Memory,
                Some("redis") => CacheStatus::Redis,
                Some("miss") => CacheStatus::Miss,
                _ => CacheStatus::Bypass,
            },
            length: header(CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok()),
            location: header("location"),
            body: Vec::new(),
        };
        let body = response.bytes().await?.to_vec();
        Ok::<_, reqwest::Error>(Answer { body, ..answer })
    };
    match timeout(PATIENCE, answer).await {
        Err(_) => Reply::Silent,
        Ok(Err(error)) => Reply::Failed(format!("{error:?}")),
        Ok(Ok(answer)) => classify(answer),
    }
}

/// A refusal says so in its text. Any other failure may have changed something.
fn classify(answer: Answer) -> Reply {
    if answer.status < 500 && answer.status != 429 {
        return Reply::Answer(answer);
    }
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    match answer.status {
        503 if text.contains("\"UNAVAILABLE\"") && text.contains("refused") => Reply::Refused,
        status => Reply::Failed(format!("{status} {text}")),
    }
}
