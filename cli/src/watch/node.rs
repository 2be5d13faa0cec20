//! How the metrics of one node are read: with one request for each sample.

use super::figures::Counts;
use super::parse::parse;
use crate::command_error::CommandError;
use reqwest::{Client, StatusCode, Url};

/// The most bytes of an answer that are read. The metrics of a node are far shorter.
const MOST: usize = 16 << 20;

/// A node, and the counts of its last successful answer.
#[derive(Debug)]
pub(super) struct WatchedNode {
    url: Url,
    last: Option<Counts>,
}

/// The result of one request to a node.
#[derive(Debug)]
pub(super) struct Sample {
    /// The address of the node, without user and password.
    pub(super) name: String,
    /// The counts since the node started, or the reason why they could not be read.
    pub(super) now: Result<Counts, String>,
    /// The counts of the last successful answer before this one, if there is one.
    pub(super) before: Option<Counts>,
}

impl WatchedNode {
    /// Makes a node from `address`. The scheme and the path may be left out; they are `http` and
    /// `/metrics` by default.
    pub(super) fn new(address: &str) -> Result<Self, CommandError> {
        // The error does not repeat the address, because it may hold a password.
        let invalid = || {
            CommandError::new("the address of a node is not valid")
                .help("write http://host:port/metrics, or host:port")
        };
        let text = match address.contains("://") {
            true => address.to_owned(),
            false => format!("http://{address}"),
        };
        let mut url = Url::parse(&text).map_err(|error| invalid().because(error))?;
        if url.scheme() != "http" {
            return Err(invalid().because("its scheme is not http"));
        }
        if url.host_str().is_none() {
            return Err(invalid());
        }
        if url.path() == "/" {
            url.set_path("/metrics");
        }
        Ok(Self { url, last: None })
    }

    fn name(&self) -> String {
        let host = self.url.host_str().unwrap_or("?");
        let port = self.url.port_or_known_default().unwrap_or(80);
        match self.url.path() {
            "/metrics" => format!("{host}:{port}"),
            path => format!("{host}:{port}{path}"),
        }
    }

    pub(super) async fn sample(&mut self, client: &Client) -> Sample {
        let now = self.ask(client).await;
        // After failures, a node is compared with its last successful answer.
        let before = match &now {
            Ok(counts) => self.last.replace(counts.clone()),
            Err(_) => None,
        };
        Sample {
            name: self.name(),
            now,
            before,
        }
    }

    async fn ask(&self, client: &Client) -> Result<Counts, String> {
        let asked = client.get(self.url.clone()).send().await;
        let mut response = asked.map_err(reason)?;
        if response.status() != StatusCode::OK {
            return Err(format!("the node answers {}", response.status()));
        }
        let mut body = Vec::new();
        while let Some(some) = response.chunk().await.map_err(reason)? {
            if body.len() + some.len() > MOST {
                return Err("the answer is too long for metrics".to_owned());
            }
            body.extend_from_slice(&some);
        }
        let text = String::from_utf8(body).map_err(|_| "the answer is not text".to_owned())?;
        let series = parse(&text).map_err(|error| format!("the answer is not metrics: {error}"))?;
        let counts = Counts::read(&series);
        match counts.is_empty() {
            true => Err("the metrics are not of layercache".to_owned()),
            false => Ok(counts),
        }
    }
}

/// Returns the reason why a request failed, without the address.
fn reason(error: reqwest::Error) -> String {
    match (error.is_timeout(), error.is_connect()) {
        (true, _) => "the node does not answer".to_owned(),
        (_, true) => "the node cannot be reached".to_owned(),
        _ => error.without_url().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_be_short_and_its_secret_is_not_shown() {
        for (address, name) in [
            ("a:9", "a:9"),
            ("http://a", "a:80"),
            ("http://me:s3cret@a:9/metrics", "a:9"),
            ("http://a:9/all", "a:9/all"),
            ("[::1]:9", "[::1]:9"),
        ] {
            assert_eq!(WatchedNode::new(address).unwrap().name(), name);
        }
        for address in [
            "",
            "https://a",
            "ftp://a",
            "http://",
            "a b",
            "redis://:s3cret@a",
        ] {
            let error = WatchedNode::new(address).unwrap_err();
            assert!(!format!("{error:?}").contains("s3cret"), "{address}");
        }
    }
}
