//! What clients ask of the nodes, and what is recorded of it.

use super::busy::Busy;
use super::clock::Clock;
use super::collect::Collected;
use super::outbox::{Emission, Outbox};
use super::request::Request;
use super::running::Running;
use super::signed::Signed;
use super::store::{INJECTED, SimStore};
use super::truth::Doubt;
use super::values::{Values, version_of};
use futures::{StreamExt, stream};
use histories::record::{Change, Fact, History, Outcome, Read, Span};
use layercache::layout::{Distribution, Layout};
use layercache::{
    CacheStatus, CachedStore, Digest, Error, Freshness, LayerMeta, Link, Repository,
    RepositoryName, StoreBackend,
};
use object_store::path::Path;
use object_store::signer::{Method, Signer};
use object_store::{GetOptions, ObjectStore, ObjectStoreExt};
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::{Instant, timeout};

pub(crate) const REPOSITORIES: u32 = 2;

/// A node, as its clients see it.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) stores: Vec<CachedStore<SimStore>>,
    pub(crate) busy: Busy,
    pub(crate) outbox: Outbox,
    pub(crate) limits: Limits,
    pub(crate) node: usize,
    pub(crate) clock: Clock,
    pub(crate) history: History,
    pub(crate) running: Running,
    pub(crate) values: Values,
    pub(crate) collected: Collected,
    /// The number of blobs.
    pub(crate) blobs: u32,
}

/// How long a request may take, beside the time of the store.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limits {
    pub(crate) read: Duration,
    pub(crate) change: Duration,
}

/// How a change ended for its caller.
enum Ended {
    Done,
    Refused,
    InDoubt(Doubt),
}

impl Client {
    /// Sends a request, and records how it ended. With `patience`, the client gives up after that
    /// time.
    pub(crate) async fn send(self, request: Request, patience: Option<Duration>) {
        let patience = patience.unwrap_or(Duration::from_secs(3600));
        let caller = (self.clock.next(), self.node, request);
        self.running.callers.lock().unwrap().push(caller);
        let (began, busy) = (Instant::now(), self.busy.total());
        let is_change = request.is_change();
        match is_change {
            true => self.change(request, patience).await,
            // A client that has gone sees no answer.
            false => drop(timeout(patience, self.read(request)).await),
        }
        let mut callers = self.running.callers.lock().unwrap();
        callers.retain(|(at, ..)| *at != caller.0);
        let took = began.elapsed().saturating_sub(self.busy.total() - busy);
        let limit = match request {
            // They are no reads of a client, and wait for Redis as long as it takes.
            Request::Purge | Request::Warm => return,
            // It changes nothing itself, and waits for the other nodes as a change does.
            Request::Sign(..) => self.limits.change,
            _ if is_change => self.limits.change,
            _ => self.limits.read,
        };
        if took > limit {
            let node = self.node;
            let failure = format!(
                "{request:?} at node {node} took {took:?} beside the store, and may take {limit:?}"
            );
            self.history.failure(failure);
        }
    }

    /// Returns the store that has this blob.
    fn store(&self, blob: u32) -> &CachedStore<SimStore> {
        &self.stores[blob as usize % self.stores.len()]
    }

    fn store_of(&self, fact: Fact) -> &CachedStore<SimStore> {
        let (Fact::Blob(blob) | Fact::Link(_, blob)) = fact;
        self.store(blob)
    }

    /// Returns the blobs of the first store.
    fn all_of_first(&self) -> impl Iterator<Item = u32> {
        (0..self.blobs).step_by(self.stores.len())
    }

    fn repository(&self, number: u32, blob: u32) -> Repository<StoreBackend> {
        self.store(blob).registry().repository(name(number))
    }

    async fn read(&self, request: Request) {
        let begin = self.clock.next();
        match request {
            Request::Stat(repository, blob, freshness) => {
                let of = self.repository(repository, blob);
                let answer = of.stat(&digest(blob), freshness).await;
                let answer = answer.map(|it| (it.value.is_some(), it.status, version(&it.value)));
                let facts = [Some(Fact::Link(repository, blob)), Some(Fact::Blob(blob))];
                self.answered("stat", facts, begin, answer);
            }
            Request::Contains(repository, blob) => {
                let of = self.repository(repository, blob);
                let answer = of.contains(&digest(blob), Freshness::Cached).await;
                let answer = answer.map(|it| (it.value, it.status, None));
                let facts = [Some(Fact::Link(repository, blob)), None];
                self.answered("contains", facts, begin, answer);
            }
            Request::BlobStat(blob) => {
                let blobs = self.store(blob).registry().blobs();
                let answer = blobs.stat(&digest(blob), Freshness::Cached).await;
                let answer = answer.map(|it| (it.value.is_some(), it.status, version(&it.value)));
                self.answered("blobs.stat", [Some(Fact::Blob(blob)), None], begin, answer);
            }
            Request::Get { fact, head } => {
                let options = GetOptions::new().with_head(head);
                let answer = match self.store_of(fact).get_opts(&path(fact), options).await {
                    Ok(result) => {
                        let status = *result.extensions.get().expect("a status");
                        Ok((true, status, version_of(result.meta.e_tag.as_deref())))
                    }
                    Err(object_store::Error::NotFound { .. }) => {
                        Ok((false, CacheStatus::Miss, None))
                    }
                    Err(error) => Err(error),
                };
                self.answered("get_opts", [Some(fact), None], begin, answer);
            }
            Request::StatMany(repository) => {
                let of = self.repository(repository, 0);
                let digests: Vec<_> = self.all_of_first().map(digest).collect();
                match of.stat_many(&digests, Freshness::Cached).await {
                    Ok(answers) => {
                        for (blob, answer) in self.all_of_first().zip(answers) {
                            let version = version(&answer.value);
                            let answer = (answer.value.is_some(), answer.status, version);
                            let answer = Ok::<_, Error>(answer);
                            let facts =
                                [Some(Fact::Link(repository, blob)), Some(Fact::Blob(blob))];
                            self.answered("stat_many", facts, begin, answer);
                        }
                    }
                    Err(error) => self.answered("stat_many", [None, None], begin, Err(error)),
                }
            }
            Request::Sign(fact, creates, time) => {
                let method = if creates { Method::PUT } else { Method::DELETE };
                let (store, asked) = (self.store_of(fact), begin);
                let node = self.node;
                match store.signed_url(method, &path(fact), time).await {
                    Ok(_) => self.outbox.emit(Emission::Signed(Signed {
                        fact,
                        creates,
                        node,
                        asked,
                        time,
                    })),
                    // Without Redis a node signs no URL that deletes.
                    Err(_) if !creates => {}
                    Err(error) => {
                        let failure = format!("no URL for a creation at node {node}: {error}");
                        self.history.failure(failure);
                    }
                }
            }
            Request::ClearMemory => self.stores[0].clear_memory(),
            Request::Purge => {
                // Redis may be away.
                let _ = self.stores[0].purge().await;
            }
            Request::Warm => {
                // A list shows the objects of both stores. The store or Redis may be away.
                if let [store] = &*self.stores {
                    let _ = store.warm(None).await;
                }
            }
            _ => unreachable!("{request:?} is no read"),
        }
    }

    fn answered(
        &self,
        what: &'static str,
        facts: [Option<Fact>; 2],
        begin: u64,
        answer: Result<(bool, CacheStatus, Option<u64>), impl ToString>,
    ) {
        let end = self.clock.next();
        match answer.map_err(|error| error.to_string()) {
            Ok((present, status, version)) => {
                let read = Read {
                    facts,
                    present,
                    span: Span { begin, end },
                    status,
                    node: self.node,
                    what,
                };
                self.history.read(read);
                // The metadata is that of the last fact.
                if let (Some(version), Some(fact)) = (version, read.facts().last()) {
                    self.values.read(fact, version, self.node, begin, status);
                }
            }
            Err(error) if error.contains(INJECTED) => {}
            Err(error) => {
                let node = self.node;
                self.history
                    .failure(format!("{what} at node {node}: {error}"));
            }
        }
    }

    async fn change(&self, request: Request, patience: Duration) {
        let begin = self.clock.next();
        for (fact, present) in self.targets(request) {
            self.running.changes.lock().unwrap().push(Change {
                fact,
                present,
                span: Span { begin, end: begin },
                outcome: Outcome::Unknown,
                node: self.node,
                what: "a change of a machine that died",
            });
        }
        match request {
            Request::Link(repository, blob) => {
                let of = self.repository(repository, blob);
                let ended = end_of(timeout(patience, of.link(&digest(blob))).await);
                self.changed("link", Fact::Link(repository, blob), true, begin, ended);
            }
            Request::PutLink(repository, blob) => {
                let fact = Fact::Link(repository, blob);
                let text = digest(blob).to_string();
                let (path, put) = (path(fact), text.into());
                let put = self.store(blob).put(&path, put);
                let ended = end_of_store(timeout(patience, put).await);
                self.changed("put link", fact, true, begin, ended);
            }
            Request::PutBlob(blob) => {
                let fact = Fact::Blob(blob);
                let path = path(fact);
                let put = self.store(blob).put(&path, "content".into());
                let ended = end_of_store(timeout(patience, put).await);
                self.changed("put blob", fact, true, begin, ended);
            }
            Request::Upload(blob) => {
                let fact = Fact::Blob(blob);
                let path = path(fact);
                let upload = async {
                    let mut upload = self.store(blob).put_multipart(&path).await?;
                    upload.put_part("content".into()).await?;
                    upload.complete().await
                };
                let ended = end_of_store(timeout(patience, upload).await);
                self.changed("upload", fact, true, begin, ended);
            }
            Request::Mount(repository, blob) => {
                let (into, from) = (
                    self.repository(repository, blob),
                    (repository + 1) % REPOSITORIES,
                );
                let (from, digest) = (name(from), digest(blob));
                let mount = timeout(patience, into.mount(&from, &digest)).await;
                let ended = match mount {
                    Ok(Ok(None)) => return self.ended(Fact::Link(repository, blob), begin),
                    result => end_of(result),
                };
                self.changed("mount", Fact::Link(repository, blob), true, begin, ended);
            }
            Request::Unlink(repository, blob) => {
                let of = self.repository(repository, blob);
                let ended = end_of(timeout(patience, of.unlink(&digest(blob))).await);
                self.changed("unlink", Fact::Link(repository, blob), false, begin, ended);
            }
            Request::DeleteBlob(blob) => {
                let blobs = self.store(blob).registry().blobs();
                let ended = end_of(timeout(patience, blobs.delete(&digest(blob))).await);
                self.changed("blobs.delete", Fact::Blob(blob), false, begin, ended);
            }
            Request::DeleteObject(fact) => {
                let path = path(fact);
                let ended =
                    end_of_store(timeout(patience, self.store_of(fact).delete(&path)).await);
                self.changed("delete", fact, false, begin, ended);
            }
            Request::DeleteMany(repository) => self.delete_many(repository, begin).await,
            _ => unreachable!("{request:?} is no change"),
        }
    }

    /// Returns what a change may change, and to what.
    fn targets(&self, request: Request) -> Vec<(Fact, bool)> {
        match request {
            Request::Link(repository, blob)
            | Request::PutLink(repository, blob)
            | Request::Mount(repository, blob) => vec![(Fact::Link(repository, blob), true)],
            Request::PutBlob(blob) | Request::Upload(blob) => vec![(Fact::Blob(blob), true)],
            Request::Unlink(repository, blob) => vec![(Fact::Link(repository, blob), false)],
            Request::DeleteBlob(blob) => vec![(Fact::Blob(blob), false)],
            Request::DeleteObject(fact) => vec![(fact, false)],
            Request::DeleteMany(repository) => {
                let facts = self.some(repository).into_iter();
                facts.map(|fact| (fact, false)).collect()
            }
            _ => Vec::new(),
        }
    }

    fn some(&self, repository: u32) -> Vec<Fact> {
        let blobs = self.all_of_first().filter(|blob| blob % 3 == 0);
        let facts = blobs.flat_map(|blob| [Fact::Link(repository, blob), Fact::Blob(blob)]);
        facts.collect()
    }

    fn ended(&self, fact: Fact, begin: u64) {
        let mut changes = self.running.changes.lock().unwrap();
        changes.retain(|change| change.fact != fact || change.span.begin != begin);
    }

    async fn delete_many(&self, repository: u32, begin: u64) {
        let facts = self.some(repository);
        let paths: Vec<_> = facts.iter().map(|fact| Ok(path(*fact))).collect();
        let mut results = self.stores[0].delete_stream(stream::iter(paths).boxed());
        for fact in facts {
            let result = results.next().await.expect("one output for each input");
            let ended = end_of_store(Ok::<_, Infallible>(result));
            self.changed("delete_stream", fact, false, begin, ended);
        }
    }

    fn changed(&self, what: &'static str, fact: Fact, present: bool, begin: u64, ended: Ended) {
        self.ended(fact, begin);
        let change = |outcome| Change {
            fact,
            present,
            span: Span {
                begin,
                end: self.clock.next(),
            },
            outcome,
            node: self.node,
            what,
        };
        match ended {
            Ended::Done => {
                self.history.change(change(Outcome::Done));
                self.outbox.emit(Emission::Changed(fact, present));
            }
            Ended::Refused if present => {
                let node = self.node;
                let failure = format!("{what} at node {node}: a creation was refused");
                self.history.failure(failure);
            }
            Ended::Refused => self.history.change(change(Outcome::Refused)),
            Ended::InDoubt(doubt) => self.running.doubt(change(Outcome::Unknown), doubt),
        }
    }
}

fn version(meta: &Option<LayerMeta>) -> Option<u64> {
    version_of(meta.as_ref()?.e_tag())
}

fn end_of<T, E>(result: Result<Result<T, Error>, E>) -> Ended {
    match result {
        Ok(Ok(_)) => Ended::Done,
        Ok(Err(error)) => end_of_error(Some(&error)),
        Err(_) => Ended::InDoubt(Doubt::Gone),
    }
}

fn end_of_store<T, E>(result: Result<object_store::Result<T>, E>) -> Ended {
    match result {
        Ok(Ok(_)) => Ended::Done,
        Ok(Err(error)) => end_of_error(Error::from_store(&error)),
        Err(_) => Ended::InDoubt(Doubt::Gone),
    }
}

fn end_of_error(error: Option<&Error>) -> Ended {
    match error {
        Some(Error::ChangeRefused { .. }) => Ended::Refused,
        Some(Error::ChangeUnconfirmed { .. }) => Ended::InDoubt(Doubt::Unconfirmed),
        _ => Ended::InDoubt(Doubt::Failed),
    }
}

pub(crate) fn path(fact: Fact) -> Path {
    let layout = Distribution::default();
    match fact {
        Fact::Blob(blob) => layout.blob_path(&digest(blob)),
        Fact::Link(repository, blob) => {
            layout.link_path(&Link::layer(name(repository), digest(blob)))
        }
    }
    .expect("the layout has both")
}

pub(crate) fn name(repository: u32) -> RepositoryName {
    let name = format!("library/number-{repository}");
    name.parse().expect("a name")
}

pub(crate) fn digest(blob: u32) -> Digest {
    let mut hash = [7; 32];
    hash[..4].copy_from_slice(&blob.to_be_bytes());
    Digest::Sha256(hash)
}
