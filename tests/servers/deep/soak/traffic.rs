//! Runs clients that change and read things of their own, and things that all clients share.

use super::client::Nodes;
use super::ledger::{End, Op};
use super::things::{ANCHOR, LARGE, Thing};
use futures::future::join_all;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// The number of clients. Each has one task that makes changes, and some that read.
const CLIENTS: u32 = 4;
const READERS: usize = 2;

/// The number of blobs and manifests that a group uses at a time.
const BLOBS: usize = 16;
const MANIFESTS: usize = 4;

/// From this slot on, a deleted blob is replaced by a new one.
const FRESH: usize = 8;

/// Two repositories, and their content. The slots hold numbers.
#[derive(Debug)]
struct Group {
    repositories: [u32; 2],
    blobs: Vec<AtomicU32>,
    manifests: Vec<AtomicU32>,
}

/// Clients that work until [`Traffic::stop`].
#[derive(Debug)]
pub(crate) struct Traffic {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    nodes: Arc<Nodes>,
    common: Arc<Group>,
    next: AtomicU32,
    is_over: AtomicBool,
}

struct Worker {
    shared: Arc<Shared>,
    own: Arc<Group>,
    random: fastrand::Rng,
    is_first: bool,
}

impl Shared {
    fn new_number(&self) -> u32 {
        self.next.fetch_add(1, Ordering::SeqCst)
    }

    fn group(&self, number: u32) -> Arc<Group> {
        let slots = |count| {
            (0..count)
                .map(|_| self.new_number().into())
                .collect::<Vec<_>>()
        };
        Arc::new(Group {
            repositories: [2 * number, 2 * number + 1],
            blobs: slots(BLOBS),
            manifests: slots(MANIFESTS),
        })
    }
}

impl Traffic {
    /// Starts the clients, before the first fault.
    ///
    /// # Panics
    /// If the first pushes fail.
    pub(crate) async fn start(nodes: &Arc<Nodes>, seed: u64) -> Self {
        let common = Arc::new(Group {
            repositories: [0, 1],
            blobs: (0..BLOBS as u32).map(AtomicU32::new).collect(),
            manifests: (0..MANIFESTS as u32).map(AtomicU32::new).collect(),
        });
        let shared = Arc::new(Shared {
            nodes: Arc::clone(nodes),
            common,
            next: AtomicU32::new(100),
            is_over: AtomicBool::new(false),
        });
        let groups: Vec<_> = (1..=CLIENTS).map(|number| shared.group(number)).collect();
        for group in groups.iter().chain([&shared.common]) {
            for repository in group.repositories {
                let end = nodes.push(Op::PushAtOnce, 0, repository, ANCHOR).await;
                assert_eq!(end, End::Answered, "the first pushes");
            }
        }
        let mut seeds = fastrand::Rng::with_seed(seed);
        let mut workers = Vec::new();
        for (group, client) in groups.iter().zip(0..) {
            let mut worker = || Worker {
                shared: Arc::clone(&shared),
                own: Arc::clone(group),
                random: seeds.fork(),
                is_first: client == 0,
            };
            workers.push(tokio::spawn(worker().changes()));
            workers.extend((0..READERS).map(|_| tokio::spawn(worker().reads())));
        }
        Self { shared, workers }
    }

    /// Stops, and waits for the running operations.
    pub(crate) async fn stop(self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        for worker in self.workers {
            worker.await.unwrap();
        }
    }
}

impl Worker {
    fn is_over(&self) -> bool {
        self.shared.is_over.load(Ordering::SeqCst)
    }

    /// Returns the client's own group, or sometimes the common one.
    fn group(&mut self) -> Arc<Group> {
        match self.random.u32(..10) {
            0..7 => Arc::clone(&self.own),
            _ => Arc::clone(&self.shared.common),
        }
    }

    fn node(&mut self) -> usize {
        self.random.usize(..self.shared.nodes.urls.len())
    }

    async fn pause(&mut self, least: u64, most: u64) {
        sleep(Duration::from_millis(self.random.u64(least..most))).await;
    }

    async fn reads(mut self) {
        while !self.is_over() {
            let (group, node) = (self.group(), self.node());
            let repository = group.repositories[self.random.usize(..2)];
            let blob = group.blobs[self.random.usize(..BLOBS)].load(Ordering::SeqCst);
            let manifest = group.manifests[self.random.usize(..MANIFESTS)].load(Ordering::SeqCst);
            let (op, thing) = match self.random.u32(..100) {
                0..45 => (Op::HeadBlob, Thing::Blob(repository, blob)),
                45..70 => (Op::GetBlob, Thing::Blob(repository, blob)),
                70..80 => (Op::HeadManifest, Thing::Manifest(repository, manifest)),
                80..92 => (Op::GetManifest, Thing::Manifest(repository, manifest)),
                _ => (Op::GetTag, Thing::Tag(repository, manifest)),
            };
            self.shared.nodes.read(op, node, thing).await;
            self.pause(5, 35).await;
        }
    }

    async fn changes(mut self) {
        while !self.is_over() {
            let (group, side) = (self.group(), self.random.usize(..2));
            match self.random.u32(..200) {
                0 if self.is_first => self.large(&group).await,
                0..150 => self.blob(&group, side).await,
                _ => self.manifest(&group, side).await,
            }
            self.pause(10, 60).await;
        }
    }

    async fn blob(&mut self, group: &Group, side: usize) {
        let at = self.random.usize(..BLOBS);
        let (here, there) = (group.repositories[side], group.repositories[1 - side]);
        let (number, node) = (group.blobs[at].load(Ordering::SeqCst), self.node());
        let nodes = Arc::clone(&self.shared.nodes);
        let mut is_used_up = false;
        let end = match self.random.u32(..10) {
            0..3 => nodes.push(Op::PushAtOnce, node, here, number).await,
            3..5 => nodes.push(Op::PushInChunks, node, here, number).await,
            5..7 => nodes.mount(node, there, here, number).await,
            _ => {
                is_used_up = at >= FRESH;
                let blob = Thing::Blob(here, number);
                nodes.delete(Op::DeleteBlob, node, blob).await
            }
        };
        self.look(&[
            (Op::HeadBlob, Thing::Blob(here, number)),
            (Op::GetBlob, Thing::Blob(here, number)),
        ])
        .await;
        // A change without an answer may still happen at any time, so its slot gets a new blob.
        if end == End::Silent || (is_used_up && end == End::Answered) {
            group.blobs[at].store(self.shared.new_number(), Ordering::SeqCst);
        }
    }

    async fn manifest(&mut self, group: &Group, side: usize) {
        let at = self.random.usize(..MANIFESTS);
        let repository = group.repositories[side];
        let (number, node) = (group.manifests[at].load(Ordering::SeqCst), self.node());
        let nodes = Arc::clone(&self.shared.nodes);
        let thing = Thing::Manifest(repository, number);
        let end = match self.random.u32(..5) {
            0..3 => nodes.put_manifest(node, repository, number).await,
            _ => nodes.delete(Op::DeleteManifest, node, thing).await,
        };
        let tag = Thing::Tag(repository, number);
        self.look(&[(Op::HeadManifest, thing), (Op::GetTag, tag)])
            .await;
        if end == End::Silent {
            group.manifests[at].store(self.shared.new_number(), Ordering::SeqCst);
        }
    }

    /// Pushes, reads and deletes a blob that is stored in parts.
    async fn large(&mut self, group: &Group) {
        let (repository, node) = (group.repositories[0], self.node());
        let nodes = Arc::clone(&self.shared.nodes);
        let blob = Thing::Blob(repository, LARGE);
        let end = nodes.push(Op::PushInChunks, node, repository, LARGE).await;
        self.look(&[(Op::GetBlob, blob)]).await;
        if end == End::Answered {
            nodes.delete(Op::DeleteBlob, node, blob).await;
            self.look(&[(Op::HeadBlob, blob)]).await;
        }
    }

    /// Asks all nodes about things that have just changed.
    async fn look(&self, at: &[(Op, Thing)]) {
        let nodes = &self.shared.nodes;
        let all = (0..nodes.urls.len()).flat_map(|node| {
            at.iter()
                .map(move |(op, thing)| nodes.read(*op, node, *thing))
        });
        join_all(all).await;
    }
}
