//! One node, asked for its metrics again and again.

use super::figures::Counts;
use super::parse::parse;
use crate::command_error::CommandError;
use reqwest::{Client, StatusCode, Url};

/// No node says more.
const MOST: usize = 16 << 20;

/// A node, and what it said last.
#[derive(Debug)]
pub(super) struct WatchedNode {
    url: Url,
    last: Option<Counts>,
}

/// What a node says now.
#[derive(Debug)]
pub(super) struct Sample {
    /// Its address, without anything secret.
    pub(super) name: String,
    /// What it has counted since it began, or why it is away.
    pub(super) now: Result<Counts, String>,
    /// What it had counted the time before.
    pub(super) before: Option<Counts>,
}

impl WatchedNode {
    /// The node at `address`, of which the scheme and the path may be left out.
    pub(super) fn new(address: &str) -> Result<Self, CommandError> {
        // Not repeated: there may be a password in it.
        let odd = || {
            CommandError::new("an address of a node is none")
                .help("write http://host:port/metrics, or host:port")
        };
        let text = match address.contains("://") {
            true => address.to_owned(),
            false => format!("http://{address}"),
        };
        let mut url = Url::parse(&text).map_err(|error| odd().because(error))?;
        if url.scheme() != "http" {
            return Err(odd().because("nodes are asked through http"));
        }
        if url.host_str().is_none() {
            return Err(odd());
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

    pub(super) async fn look(&mut self, client: &Client) -> Sample {
        let now = self.ask(client).await;
        // One that was away is compared with what it said before that.
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
        let mut response = asked.map_err(away)?;
        if response.status() != StatusCode::OK {
            return Err(format!("it answers {}", response.status()));
        }
        let mut body = Vec::new();
        while let Some(some) = response.chunk().await.map_err(away)? {
            if body.len() + some.len() > MOST {
                return Err("it says too much for metrics".to_owned());
            }
            body.extend_from_slice(&some);
        }
        let text = String::from_utf8(body).map_err(|_| "it says no text".to_owned())?;
        let series = parse(&text).map_err(|odd| format!("it says no metrics: {odd}"))?;
        let counts = Counts::read(&series);
        match counts.is_empty() {
            true => Err("its metrics have nothing of layercache".to_owned()),
            false => Ok(counts),
        }
    }
}

/// Why there is no answer, without the address.
fn away(error: reqwest::Error) -> String {
    match (error.is_timeout(), error.is_connect()) {
        (true, _) => "it does not answer".to_owned(),
        (_, true) => "it cannot be reached".to_owned(),
        _ => error.without_url().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_be_short_and_shows_no_secret() {
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
            let trouble = WatchedNode::new(address).unwrap_err();
            assert!(!format!("{trouble:?}").contains("s3cret"), "{address}");
        }
    }
}
