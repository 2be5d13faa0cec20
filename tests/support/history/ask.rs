//! Sends reads to any node, ends changes, and records both as a client sees them.

use super::flaky::{Flaky, INJECTED};
use super::record::{Change, Fact, History, Outcome, Read, Span, now};
use layercache::layout::{Distribution, Layout};
use layercache::{
    Answer, CacheStatus, CachedStore, Digest, Error, Freshness, Link, Repository, RepositoryName,
    StoreBackend,
};
use object_store::path::Path;
use object_store::{GetOptions, ObjectStore};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// The number of repositories that link each blob.
pub(super) const REPOSITORIES: u32 = 2;

/// What all workers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) nodes: Vec<CachedStore<Flaky>>,
    pub(super) store: Flaky,
    pub(super) history: History,
    pub(super) layout: Distribution,
    /// For each slot, how often its blob was given up for a new one.
    pub(super) retired: Vec<AtomicU32>,
    /// Whether the first node is read only for facts that it may have in memory.
    pub(super) has_quiet: bool,
    pub(super) is_over: AtomicBool,
}

impl Shared {
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    pub(super) fn slots(&self) -> u32 {
        self.retired.len() as u32
    }

    /// The blob that a slot has now.
    pub(super) fn blob(&self, slot: u32) -> u32 {
        slot + self.slots() * self.retired[slot as usize].load(Ordering::SeqCst)
    }

    /// Puts a blob that no worker has read yet, and all its links, straight into the store.
    pub(super) async fn put_new(&self, blob: u32) {
        let links = (0..REPOSITORIES).map(|repository| Fact::Link(repository, blob));
        for fact in links.chain([Fact::Blob(blob)]) {
            let content = match fact {
                Fact::Blob(_) => "content".to_owned(),
                Fact::Link(..) => digest(blob).to_string(),
            };
            let begin = now();
            self.store.put_now(&self.path(fact), content).await;
            self.history.change(Change {
                fact,
                present: true,
                span: Span::since(begin),
                outcome: Outcome::Done,
                node: 0,
                what: "none",
            });
        }
    }

    /// Gives a slot another blob. If a change of the old blob may still take effect at any time,
    /// the check could explain any answer about it.
    pub(super) async fn retire(&self, fact: Fact) {
        let (Fact::Blob(blob) | Fact::Link(_, blob)) = fact;
        let (slot, times) = ((blob % self.slots()) as usize, blob / self.slots());
        if self.retired[slot].load(Ordering::SeqCst) == times {
            self.put_new(blob + self.slots()).await;
            let order = Ordering::SeqCst;
            let _ = self.retired[slot].compare_exchange(times, times + 1, order, order);
        }
    }

    pub(super) fn path(&self, fact: Fact) -> Path {
        match fact {
            Fact::Blob(blob) => self.layout.blob_path(&digest(blob)).unwrap(),
            Fact::Link(repository, blob) => {
                let link = Link::layer(name(repository), digest(blob));
                self.layout.link_path(&link).unwrap()
            }
        }
    }

    pub(super) fn repository(&self, node: usize, number: u32) -> Repository<StoreBackend> {
        self.nodes[node].registry().repository(name(number))
    }

    pub(super) fn read(
        &self,
        node: usize,
        facts: &[Fact],
        answer: Observed,
        begin: u64,
        what: &'static str,
    ) {
        let (present, status) = match answer {
            Ok(answer) => answer,
            Err(error) if error.contains(INJECTED) => return,
            Err(error) => return self.history.failure(format!("{what} at {node}: {error}")),
        };
        self.history.read(Read {
            facts: [facts.first().copied(), facts.get(1).copied()],
            present,
            span: Span::since(begin),
            status,
            node,
            what,
        });
    }

    /// Sends one read (`stat`, `contains` and so on) to a node and records the answer.
    pub(super) async fn ask(&self, node: usize, kind: Ask, repository: u32, blob: u32) {
        let (link, meta) = (Fact::Link(repository, blob), Fact::Blob(blob));
        let (of, target) = (self.repository(node, repository), digest(blob));
        let blobs = self.nodes[node].registry().blobs();
        let begin = now();
        match kind {
            Ask::Stat(freshness) => {
                let answer = observed(of.stat(&target, freshness).await, |meta| meta.is_some());
                self.read(node, &[link, meta], answer, begin, "stat");
            }
            Ask::Contains => {
                let answer = of.contains(&target, Freshness::Cached).await;
                self.read(node, &[link], observed(answer, |is| *is), begin, "contains");
            }
            Ask::BlobStat => {
                let answer = blobs.stat(&target, Freshness::Cached).await;
                let answer = observed(answer, |meta| meta.is_some());
                self.read(node, &[meta], answer, begin, "blobs.stat");
            }
            Ask::Get { fact, head } => {
                let options = GetOptions::new().with_head(head);
                let result = self.nodes[node].get_opts(&self.path(fact), options).await;
                let answer = match result {
                    Ok(result) => Ok((true, *result.extensions.get().unwrap())),
                    Err(object_store::Error::NotFound { .. }) => Ok((false, CacheStatus::Miss)),
                    Err(error) => Err(error.to_string()),
                };
                self.read(node, &[fact], answer, begin, "get_opts");
            }
            Ask::StatMany => {
                let blobs: Vec<_> = (0..self.slots()).map(|slot| self.blob(slot)).collect();
                let digests: Vec<_> = blobs.iter().map(|blob| digest(*blob)).collect();
                match of.stat_many(&digests, Freshness::Cached).await {
                    Ok(answers) => {
                        for (blob, answer) in blobs.into_iter().zip(answers) {
                            let facts = [Fact::Link(repository, blob), Fact::Blob(blob)];
                            let answer = observed(Ok(answer), |meta| meta.is_some());
                            self.read(node, &facts, answer, begin, "stat_many");
                        }
                    }
                    Err(error) => self.read(node, &[], Err(error.to_string()), begin, "stat_many"),
                }
            }
        }
    }

    pub(super) async fn changed(
        &self,
        node: usize,
        fact: Fact,
        present: bool,
        begin: u64,
        ended: Ended,
        what: &'static str,
    ) {
        let (outcome, span) = match ended {
            Ended::Done => (Outcome::Done, Span::since(begin)),
            Ended::Refused => (Outcome::Refused, Span::since(begin)),
            Ended::Failed => {
                self.store.settled(&self.path(fact)).await;
                (Outcome::Unknown, Span::since(begin))
            }
            Ended::Dropped => {
                self.retire(fact).await;
                (Outcome::Unknown, Span::open(begin))
            }
        };
        self.history.change(Change {
            fact,
            present,
            span,
            outcome,
            node,
            what,
        });
    }
}

/// An answer with its status, or the text of an error.
type Observed = Result<(bool, CacheStatus), String>;

fn observed<T>(answer: Result<Answer<T>, Error>, present: impl Fn(&T) -> bool) -> Observed {
    match answer {
        Ok(answer) => Ok((present(&answer.value), answer.status)),
        Err(error) => Err(error.to_string()),
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Ask {
    Stat(Freshness),
    Contains,
    BlobStat,
    Get {
        fact: Fact,
        head: bool,
    },
    /// Asks for all blobs in use.
    StatMany,
}

/// How a change ended for its caller.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ended {
    Done,
    Refused,
    /// The store's outcome is known once the store has settled.
    Failed,
    /// The caller dropped the change.
    Dropped,
}

impl From<Result<(), Error>> for Ended {
    fn from(result: Result<(), Error>) -> Self {
        match result {
            Ok(()) => Self::Done,
            Err(Error::ChangeRefused { .. }) => Self::Refused,
            Err(Error::Backend { .. } | Error::ChangeUnconfirmed { .. }) => Self::Failed,
            Err(error) => panic!("a change ended with {error}"),
        }
    }
}

impl From<object_store::Result<()>> for Ended {
    fn from(result: object_store::Result<()>) -> Self {
        match result {
            Ok(()) => Self::Done,
            Err(object_store::Error::Generic { source, .. })
                if matches!(source.downcast_ref(), Some(Error::ChangeRefused { .. })) =>
            {
                Self::Refused
            }
            Err(_) => Self::Failed,
        }
    }
}

pub fn name(repository: u32) -> RepositoryName {
    format!("library/number-{repository}").parse().unwrap()
}

pub fn digest(blob: u32) -> Digest {
    let mut hash = [7; 32];
    hash[..4].copy_from_slice(&blob.to_be_bytes());
    Digest::Sha256(hash)
}
