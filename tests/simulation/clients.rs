//! [`Clients`]: what clients ask, which node, and when.

use super::machine::Time;
use super::request::Request;
use super::setting::Setting;
use super::traffic::REPOSITORIES;
use histories::record::Fact;
use layercache::Freshness;
use std::time::Duration;

/// Out of how many requests the changes and bursts are counted.
const CHANGES: u32 = 1_000;
/// The most requests of a burst after its first one.
const MOST: u32 = 3;
/// One of this many requests asks for a signed URL, in a run that has them.
const SIGNED: u32 = 60;

/// A request, and what its client does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) node: usize,
    pub(crate) request: Request,
    /// If the request is a change: how much earlier the client asks all nodes about the same.
    pub(crate) after: Option<Time>,
    /// How long the client waits. `None` means for ever.
    pub(crate) patience: Option<Time>,
    /// How long after this request the next one comes.
    pub(crate) pause: Time,
}

/// Draws the requests of all clients.
#[derive(Debug)]
pub(crate) struct Clients {
    nodes: usize,
    blobs: u32,
    changes: u32,
    bursts: u32,
    batches: u32,
    signs: bool,
    /// How many requests of a burst are still to come, and the last one.
    burst: Option<(u32, Sent)>,
}

impl Clients {
    pub(crate) const fn of(setting: &Setting) -> Self {
        Self {
            nodes: setting.nodes(),
            blobs: setting.blobs,
            changes: setting.changes,
            bursts: setting.bursts,
            batches: setting.batches,
            signs: setting.signs,
            burst: None,
        }
    }

    pub(crate) fn next(&mut self, random: &mut fastrand::Rng) -> Sent {
        if let Some((left, before)) = self.burst.take() {
            return self.go_on(random, left, before);
        }
        let mut sent = Sent {
            node: random.usize(..self.nodes),
            request: self.request(random, self.changes),
            after: None,
            patience: None,
            pause: Duration::from_millis(random.u64(..6)),
        };
        if random.bool() {
            sent.after = Some(Duration::from_millis(random.u64(1..40)));
        }
        if random.u32(..60) == 0 {
            sent.patience = Some(Duration::from_millis(random.u64(1..50)));
        }
        if self.signs && random.u32(..SIGNED) == 0 {
            let (repository, blob) = (random.u32(..REPOSITORIES), random.u32(..self.blobs));
            let fact = match random.bool() {
                true => Fact::Link(repository, blob),
                false => Fact::Blob(blob),
            };
            let time = Duration::from_millis(random.u64(500..5_000));
            sent.request = Request::Sign(fact, random.u32(..4) == 0, time);
        }
        if random.u32(..CHANGES) < self.bursts {
            (sent.request, sent.after) = (self.request(random, CHANGES), None);
            self.burst = Some((random.u32(1..=MOST), sent));
        }
        sent
    }

    /// Draws the next request of a burst: another change at the same node, or the same request at
    /// another one, at nearly the same time.
    fn go_on(&mut self, random: &mut fastrand::Rng, left: u32, before: Sent) -> Sent {
        let mut sent = before;
        match random.bool() {
            true => sent.request = self.request(random, CHANGES),
            false => sent.node = random.usize(..self.nodes),
        }
        sent.pause = Duration::from_millis(random.u64(..3));
        if left > 1 {
            self.burst = Some((left - 1, sent));
        }
        sent
    }

    /// Draws a request. `changes` of 1,000 are changes.
    fn request(&self, random: &mut fastrand::Rng, changes: u32) -> Request {
        let (repository, blob) = (random.u32(..REPOSITORIES), random.u32(..self.blobs));
        let link = Fact::Link(repository, blob);
        let is_change = random.u32(..CHANGES) < changes;
        if is_change && random.u32(..CHANGES) < self.batches {
            return Request::DeleteMany(repository);
        }
        let (first, numbers) = if is_change { (800, 200) } else { (0, 800) };
        match first + random.u32(..numbers) {
            0..450 => Request::Stat(repository, blob, Freshness::Cached),
            450..460 => Request::Stat(repository, blob, Freshness::Verified),
            460..600 => Request::Contains(repository, blob),
            600..680 => Request::BlobStat(blob),
            680..740 => Request::Get {
                fact: Fact::Blob(blob),
                head: true,
            },
            740..750 => Request::Get {
                fact: Fact::Blob(blob),
                head: false,
            },
            750..780 => Request::Get {
                fact: link,
                head: random.bool(),
            },
            780..798 => Request::StatMany(repository),
            // These are rare, because they remove what an error might have left.
            798 => Request::ClearMemory,
            799 => match random.u32(..10) {
                0 => Request::Purge,
                1..5 => Request::Warm,
                _ => Request::StatMany(repository),
            },
            // Clients also create removed objects again.
            800..815 => Request::Link(repository, blob),
            815..830 => Request::PutLink(repository, blob),
            830..865 => Request::PutBlob(blob),
            865..875 => Request::Upload(blob),
            875..890 => Request::Mount(repository, blob),
            890..935 => Request::Unlink(repository, blob),
            935..950 => Request::DeleteBlob(blob),
            950..990 => Request::DeleteObject(if random.u32(..3) > 0 {
                link
            } else {
                Fact::Blob(blob)
            }),
            _ => Request::DeleteMany(repository),
        }
    }
}
