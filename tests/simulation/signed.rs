//! Signed URLs: a client lets somebody else change an object, without a node.

use super::faults::Fault;
use super::machine::Time;
use super::request::Request;
use super::store::SimStore;
use super::world::{Event, World};
use async_trait::async_trait;
use histories::record::{Change, Fact, Outcome, Span};
use object_store::Result;
use object_store::path::Path;
use object_store::signer::{Method, Signer, Url};
use std::time::Duration;

/// How much longer than its URL a fence stands, from when the client asked for the URL: the store's
/// clock may be that far behind.
const SKEW: Time = Duration::from_secs(120);

/// How long the end of an expired URL may take.
const END: Time = Duration::from_secs(8);

/// A URL that a node has signed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signed {
    pub(crate) fact: Fact,
    /// Whether the URL creates the object, or deletes it.
    pub(crate) creates: bool,
    pub(crate) node: usize,
    /// When the client asked for the URL.
    pub(crate) asked: u64,
    pub(crate) time: Time,
}

/// A change that the holder of a URL has made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Used {
    pub(crate) change: Change,
    /// When the client asked for the URL.
    pub(crate) asked: u64,
}

#[async_trait]
impl Signer for SimStore {
    async fn signed_url(&self, _: Method, path: &Path, _: Time) -> Result<Url> {
        Ok(Url::parse(&format!("https://store/{path}")).expect("an address"))
    }
}

impl World {
    /// A node has signed a URL, at `at`. Its holder uses it once: at some time until the URL expires,
    /// or at the last moment that a slow clock of the store allows, just after Redis has lost the
    /// fence.
    pub(crate) fn signed(&mut self, at: Time, signed: Signed) {
        let end = Time::from_nanos(signed.asked) + signed.time + SKEW;
        self.signed_until = self.signed_until.max(end + END);
        let millis = signed.time.as_millis() as u64;
        let used = match self.random.bool() {
            true => at + Duration::from_millis(self.random.u64(..millis)),
            false => end - Duration::from_millis(self.random.u64(1..1_500)),
        };
        self.at(used, Event::Use(signed));
        if used < at + signed.time {
            return;
        }
        let before = |random: &mut fastrand::Rng| Duration::from_millis(random.u64(..400));
        let lost = used - before(&mut self.random);
        for server in 0..self.topology.shape.data() {
            self.at(lost, Event::Lose(Fault::Evict(server, "fence::", 1)));
        }
        for _ in 0..8 {
            for node in 0..self.machines.len() {
                let asked = lost + before(&mut self.random);
                let request = match signed.fact {
                    Fact::Blob(blob) => Request::BlobStat(blob),
                    Fact::Link(repository, blob) => Request::Contains(repository, blob),
                };
                self.at(asked, Event::Ask(node, request));
            }
        }
    }

    /// The holder of a URL uses it.
    pub(crate) fn use_signed(&mut self, signed: Signed) {
        let begin = self.clock.next();
        match signed.creates {
            true => self.put_now(signed.fact),
            false => self.delete_now(signed.fact),
        }
        let end = self.clock.next();
        let change = Change {
            fact: signed.fact,
            present: signed.creates,
            span: Span { begin, end },
            outcome: Outcome::Done,
            node: signed.node,
            what: "a signed URL",
        };
        let asked = signed.asked;
        self.truth.used.push(Used { change, asked });
    }
}
