//! Sends random reads and changes of a few keys to all nodes, and records all of them.

use super::ask::{Ask, Ended, REPOSITORIES, Shared, digest, name};
use super::check::check;
use super::flaky::Flaky;
use super::record::{Fact, History, now};
use futures::future::join_all;
use futures::{StreamExt, stream};
use layercache::layout::Distribution;
use layercache::{CacheStatus, CachedStore, Freshness, LayerMeta};
use object_store::{ObjectStore, ObjectStoreExt};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// The amount of concurrent work.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// The number of blobs in use.
    pub blobs: u32,
    /// Readers for each node.
    pub readers: usize,
    /// Changers for each node, except a quiet one.
    pub changers: usize,
    /// Whether the first node makes no changes and is read only for facts that it may have in
    /// memory. Such a node can be without Redis for long before it notices.
    pub has_quiet: bool,
}

/// Operations on all nodes, until [`Self::stop`].
#[derive(Debug)]
pub struct Traffic {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

/// A worker that uses one node after the other, or always the same node.
struct Worker {
    shared: Arc<Shared>,
    random: fastrand::Rng,
    node: usize,
}

impl Traffic {
    /// Puts all blobs and links into `store`, then starts the workers on these nodes.
    pub async fn start(
        nodes: &[CachedStore<Flaky>],
        store: &Flaky,
        history: &History,
        seed: u64,
        load: Load,
    ) -> Self {
        let shared = Arc::new(Shared {
            nodes: nodes.to_vec(),
            store: store.clone(),
            history: history.clone(),
            layout: Distribution::default(),
            retired: (0..load.blobs).map(|_| AtomicU32::new(0)).collect(),
            has_quiet: load.has_quiet,
            is_over: AtomicBool::new(false),
        });
        for blob in 0..load.blobs {
            shared.put_new(blob).await;
        }
        let mut seeds = fastrand::Rng::with_seed(seed);
        let mut worker = |node| Worker {
            shared: Arc::clone(&shared),
            random: seeds.fork(),
            node,
        };
        let mut workers = Vec::new();
        for node in 0..nodes.len() {
            workers.extend((0..load.readers).map(|_| tokio::spawn(worker(node).reads())));
            let changers = match node {
                0 if load.has_quiet => 0,
                _ => load.changers,
            };
            workers.extend((0..changers).map(|_| tokio::spawn(worker(node).changes())));
        }
        Self { shared, workers }
    }

    /// Waits until every node can make a change again.
    ///
    /// # Panics
    /// If that takes too long.
    pub async fn wait_until_well(&self) {
        const PATIENCE: Duration = Duration::from_secs(20);
        for node in 0..self.shared.nodes.len() {
            let changed = async {
                let repository = self.shared.repository(node, 0);
                while repository.unlink(&digest(u32::MAX)).await.is_err() {
                    sleep(Duration::from_millis(50)).await;
                }
            };
            let changed = timeout(PATIENCE, changed).await;
            changed.unwrap_or_else(|_| panic!("node {node} has not recovered"));
        }
    }

    /// Waits until the history is large enough for a verdict. A slow machine takes longer.
    ///
    /// # Panics
    /// If that takes too long.
    pub async fn wait_until_enough(&self) {
        const PATIENCE: Duration = Duration::from_secs(60);
        let is_enough = async {
            while !check(&self.shared.history.so_far()).is_enough(1) {
                sleep(Duration::from_millis(500)).await;
            }
        };
        let is_enough = timeout(PATIENCE, is_enough).await;
        is_enough.expect("enough operations");
    }

    /// Removes all links through one node, all at once, while the other operations go on.
    pub async fn unlink_all(&self, node: usize) {
        let shared = &self.shared;
        let unlink = |repository: u32, blob: u32| async move {
            let (begin, of, target) = (now(), shared.repository(node, repository), digest(blob));
            let ended = Ended::from(of.unlink(&target).await);
            let fact = Fact::Link(repository, blob);
            let what = "unlink_all";
            shared.changed(node, fact, false, begin, ended, what).await;
        };
        let links = (0..REPOSITORIES).flat_map(|repository| {
            (0..shared.slots()).map(move |slot| unlink(repository, shared.blob(slot)))
        });
        join_all(links).await;
    }

    /// Stops, and waits for the running operations.
    pub async fn stop(self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        for worker in self.workers {
            worker.await.unwrap();
        }
    }
}

impl Worker {
    fn slot(&mut self) -> u32 {
        self.random.u32(..self.shared.slots())
    }

    /// Sleeps mostly for a time in the first range, and sometimes for one in the second.
    async fn sleep(&mut self, mostly: Range<u64>, sometimes: Range<u64>) {
        let millis = match self.random.u32(..5) {
            0 | 1 => self.random.u64(sometimes),
            _ => self.random.u64(mostly),
        };
        sleep(Duration::from_millis(millis)).await;
    }

    fn question(&mut self, node: usize, repository: u32, blob: u32) -> Ask {
        let link = Fact::Link(repository, blob);
        let get = |fact, head| Ask::Get { fact, head };
        let any = match node {
            0 if self.shared.has_quiet => 0..560,
            _ => 0..1000,
        };
        match self.random.u32(any) {
            0..560 => Ask::Stat(Freshness::Cached),
            560..565 => Ask::Stat(Freshness::Verified),
            565..750 => Ask::Contains,
            750..850 => Ask::BlobStat,
            850..920 => get(Fact::Blob(blob), true),
            920..930 => get(Fact::Blob(blob), false),
            930..950 => get(link, true),
            950..960 => get(link, false),
            960..997 => Ask::Contains,
            _ => Ask::StatMany,
        }
    }

    async fn reads(mut self) {
        while !self.shared.is_over() {
            if self.random.u32(..200) == 0 {
                self.shared.nodes[self.node].clear_memory();
            }
            for _ in 0..self.random.u32(1..30) {
                let (repository, slot) = (self.random.u32(..REPOSITORIES), self.slot());
                let blob = self.shared.blob(slot);
                let kind = self.question(self.node, repository, blob);
                let read = self.shared.ask(self.node, kind, repository, blob);
                // A few callers give up before the answer comes.
                match self.random.u32(..100) {
                    0 => drop(timeout(Duration::from_millis(1), read).await),
                    _ => read.await,
                }
            }
            sleep(Duration::from_millis(self.random.u64(2..10))).await;
        }
    }

    /// Makes changes in such an order that blobs mostly exist and are in memory: what it deletes it
    /// soon puts again, and then it leaves the blob alone for a while.
    async fn changes(mut self) {
        while !self.shared.is_over() {
            let (repository, slot) = (self.random.u32(..REPOSITORIES), self.slot());
            let blob = self.shared.blob(slot);
            let is_blob = self.random.u32(..3) == 0;
            match self.random.u32(..10) {
                0 => self.delete_many(repository).await,
                1 => {}
                _ if is_blob => self.delete_blob(blob).await,
                _ => self.unlink(repository, blob).await,
            }
            self.sleep(0..20, 50..600).await;
            match self.random.u32(..8) {
                _ if is_blob => self.put_blob(blob).await,
                0 => self.mount(repository, blob).await,
                _ => self.link(repository, blob).await,
            }
            self.sleep(50..400, 0..20).await;
        }
    }

    /// Makes a change, or gives up on it. After a complete change, reads of the fact go to all
    /// nodes at once.
    async fn change<R: Into<Ended>>(
        &mut self,
        fact: Fact,
        present: bool,
        what: &'static str,
        change: impl Future<Output = R>,
    ) {
        let begin = now();
        let patience = match self.random.u32(..100) {
            0 => Duration::from_millis(self.random.u64(..10)),
            _ => Duration::from_secs(60),
        };
        let ended = match timeout(patience, change).await {
            Ok(result) => result.into(),
            Err(_) => Ended::Dropped,
        };
        let shared = Arc::clone(&self.shared);
        shared
            .changed(self.node, fact, present, begin, ended, what)
            .await;
        if let Ended::Done = ended {
            self.look(fact);
        }
    }

    /// Asks all nodes about a fact that has just changed, without waiting for their answers.
    fn look(&mut self, fact: Fact) {
        let (repository, blob) = match fact {
            Fact::Blob(blob) => (self.random.u32(..REPOSITORIES), blob),
            Fact::Link(repository, blob) => (repository, blob),
        };
        for node in 0..self.shared.nodes.len() {
            let kind = self.question(node, repository, blob);
            let shared = Arc::clone(&self.shared);
            tokio::spawn(async move { shared.ask(node, kind, repository, blob).await });
        }
    }

    async fn link(&mut self, repository: u32, blob: u32) {
        let fact = Fact::Link(repository, blob);
        let shared = Arc::clone(&self.shared);
        if self.random.bool() {
            let repository = shared.repository(self.node, repository);
            let digest = digest(blob);
            let link = repository.link(&digest);
            return self.change(fact, true, "link", link).await;
        }
        let (store, path) = (shared.nodes[self.node].clone(), shared.path(fact));
        let put = async move {
            let put = store.put(&path, digest(blob).to_string().into()).await;
            put.map(drop)
        };
        self.change(fact, true, "put link", put).await;
    }

    async fn put_blob(&mut self, blob: u32) {
        let fact = Fact::Blob(blob);
        let (store, path) = (self.shared.nodes[self.node].clone(), self.shared.path(fact));
        if self.random.u32(..4) == 0 {
            let upload = async move {
                let mut upload = store.put_multipart(&path).await?;
                upload.put_part("content".into()).await?;
                upload.complete().await.map(drop)
            };
            return self.change(fact, true, "put_multipart", upload).await;
        }
        let put = async move { store.put(&path, "content".into()).await.map(drop) };
        self.change(fact, true, "put blob", put).await;
    }

    async fn mount(&mut self, repository: u32, blob: u32) {
        let shared = Arc::clone(&self.shared);
        let source = (repository + 1) % REPOSITORIES;
        let into = shared.repository(self.node, repository);
        let begin = now();
        let result = into.mount(&name(source), &digest(blob)).await;
        if let Ok(found) = &result {
            let facts = [Fact::Link(source, blob), Fact::Blob(blob)];
            let answer = Ok((found.is_some(), CacheStatus::Miss));
            shared.read(self.node, &facts, answer, begin, "mount");
        }
        let ended = match result.map(|found: Option<LayerMeta>| found.is_some()) {
            Ok(false) => return,
            Ok(true) => Ended::Done,
            Err(error) => Ended::from(Err(error)),
        };
        let fact = Fact::Link(repository, blob);
        shared
            .changed(self.node, fact, true, begin, ended, "mount")
            .await;
        if let Ended::Done = ended {
            self.look(fact);
        }
    }

    async fn unlink(&mut self, repository: u32, blob: u32) {
        let fact = Fact::Link(repository, blob);
        let repository = self.shared.repository(self.node, repository);
        let digest = digest(blob);
        self.change(fact, false, "unlink", repository.unlink(&digest))
            .await;
    }

    async fn delete_blob(&mut self, blob: u32) {
        let fact = Fact::Blob(blob);
        if self.random.bool() {
            let blobs = self.shared.nodes[self.node].registry().blobs();
            let digest = digest(blob);
            let delete = blobs.delete(&digest);
            return self.change(fact, false, "blobs.delete", delete).await;
        }
        let (store, path) = (self.shared.nodes[self.node].clone(), self.shared.path(fact));
        let delete = async move { store.delete(&path).await };
        self.change(fact, false, "delete", delete).await;
    }

    /// Deletes some blobs and links in one batch.
    async fn delete_many(&mut self, repository: u32) {
        let shared = Arc::clone(&self.shared);
        let blobs: Vec<_> = (0..shared.slots())
            .filter(|_| self.random.u32(..4) == 0)
            .map(|slot| shared.blob(slot))
            .collect();
        let facts: Vec<_> = blobs
            .into_iter()
            .flat_map(|blob| [Fact::Link(repository, blob), Fact::Blob(blob)])
            .filter(|_| self.random.u32(..3) > 0)
            .collect();
        let paths: Vec<_> = facts.iter().map(|fact| Ok(shared.path(*fact))).collect();
        let begin = now();
        let results = shared.nodes[self.node].delete_stream(stream::iter(paths).boxed());
        let results: Vec<_> = results.collect().await;
        assert_eq!(results.len(), facts.len(), "one output for each input");
        let results = facts.iter().zip(results).map(|(fact, result)| {
            let ended = Ended::from(result.map(drop));
            shared.changed(self.node, *fact, false, begin, ended, "delete_stream")
        });
        join_all(results).await;
        if let Some(fact) = facts.first() {
            self.look(*fact);
        }
    }
}
