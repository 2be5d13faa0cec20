//! A registry that holds data and secrets, for tests that send it bad input.

use super::http::{Answer, Http, Image, Node};
use super::redis::Redis;
use std::collections::BTreeSet;

const PASSWORD: &str = "pa55w0rd-of-redis";

/// A registry with an image, an unfinished upload, and secrets.
pub struct World {
    pub node: Node,
    pub image: Image,
    /// The path of the upload.
    pub upload: String,
    before: BTreeSet<String>,
    redis: Redis,
}

impl World {
    pub async fn start() -> Self {
        let redis = Redis::start_with(&["--requirepass", PASSWORD]).await;
        let node = Node::start_with(&["--redis", &redis.url(), "--redis-timeout", "5s"]).await;
        let image = Image::new(1);
        node.http.push("a/b", "latest", &image).await;
        Self {
            upload: node.http.begin_upload("a/b").await,
            before: node.stored(),
            node,
            image,
            redis,
        }
    }

    pub fn http(&self) -> &Http {
        &self.node.http
    }

    /// Checks that an answer reveals nothing about the server.
    #[track_caller]
    pub fn keeps_secrets(&self, answer: &Answer) {
        let folder = self.node.folder().to_str().unwrap();
        answer.hides(&[folder, PASSWORD, &self.redis.address(), "root:x:0:0"]);
    }

    #[track_caller]
    pub fn refused(&self, answer: Answer, status: u16, code: &str) {
        self.keeps_secrets(&answer);
        answer.refused(status, code);
    }

    /// Sends a request with this target, which no real client would send, and expects a refusal:
    /// for `GET` with a text, for `HEAD` without one.
    pub async fn refuses(&self, target: &str, status: u16, code: &str) {
        let get = self.http().raw(head("GET", target, "")).await;
        let get = get.unwrap_or_else(|| panic!("no answer to {target}"));
        assert_eq!(get.status, status, "GET {target}: {get:?}");
        self.refused(get, status, code);
        let head = self.http().raw(head("HEAD", target, "")).await.unwrap();
        assert_eq!(
            (head.status, &*head.body),
            (status, &b""[..]),
            "HEAD {target}"
        );
    }

    /// Does what [`Self::refuses`] does, with a request that would change something.
    pub async fn refuses_change(&self, method: &str, target: &str, status: u16, code: &str) {
        let request = head(method, target, "Content-Length: 2\r\n") + "{}";
        let answer = self.http().raw(request).await;
        let answer = answer.unwrap_or_else(|| panic!("no answer to {method} {target}"));
        assert_eq!(answer.status, status, "{method} {target}: {answer:?}");
        self.refused(answer, status, code);
    }

    /// Checks that nothing has changed in the storage, that the log is clean, and that the next
    /// client is served.
    pub async fn is_unharmed(&self) {
        assert_eq!(self.node.stored(), self.before);
        self.http().get("/v2/").await.expect(200);
        self.http().pulls("a/b", "latest", &self.image).await;
        let status = self.http().get(&self.upload).await.expect(204);
        assert_eq!(status.header("range"), Some("0-0"));
        for line in self.node.registry.log() {
            assert!(
                !line.contains(PASSWORD) && !line.contains("panicked"),
                "{line}"
            );
        }
    }
}

pub fn head(method: &str, target: &str, headers: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n")
}
