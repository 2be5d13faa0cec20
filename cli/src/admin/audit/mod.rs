//! [`Audit`]: does the storage confirm what Redis has cached?

mod check;
mod finding;
mod judge;
mod list;
mod pace;
mod page;
mod position;
mod progress;
mod storage;
mod walk;

pub use finding::{Fate, Finding, Wrong};
pub use position::{AuditPosition, AuditPositionError};
pub use progress::{AuditError, AuditProgress, AuditReport};

use check::Checker;
use futures::FutureExt;
use futures::future::BoxFuture;
use layercache::internals::AdminClient;
use layercache::layout::{Distribution, Layout};
use layercache::{Error, RedisConfig, RepositoryName};
use object_store::ObjectStore;
use page::Choice;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use storage::Storage;
use tokio::time::sleep;
use walk::Walk;

/// Selects the repositories that are audited.
type Filter = dyn Fn(&RepositoryName) -> bool + Send + Sync;

/// Audits Redis: asks the storage about everything that Redis has cached, and removes what the
/// storage does not confirm. Does nothing until it is awaited.
///
/// If a garbage collection runs without the cache's knowledge, the registry keeps answering that
/// deleted blobs exist. It accepts manifests that name them and serves images that cannot be
/// pulled. An audit finds these entries. It works on the Redis of this crate's nodes and of Go
/// registries (docker/distribution 2 and 3), while they run.
///
/// # What is a finding
/// [`Wrong`] lists the kinds of findings. The audit checks each suspect twice, some 100 ms apart,
/// and asks Redis before the storage and after it. So a change that is under way is never reported.
/// A key with a fence is being changed; it is counted and left alone.
///
/// The audit skips hashes that cache nothing, objects that the layout has no place for, and digests
/// of an algorithm that this crate does not know. A Go registry of version 3 keeps manifests among
/// a repository's blobs; the audit looks them up as manifests.
///
/// # What is written
/// By default the audit writes nothing, neither in Redis nor in the storage. With
/// [`fix`](Self::fix) it removes each finding by the delete protocol, together with its lease and
/// with the keys that a Go registry keeps beside a membership. It tells all nodes to forget the
/// key, and then looks for the finding once more.
///
/// The audit is not a node: no node waits for it, and it leaves no key behind, so a Redis that only
/// Go registries use gets no foreign keys. It receives no messages of the nodes either. So an audit
/// that has removed something ends one [`trust_timeout`](RedisConfig::with_trust_timeout) later,
/// when no node can answer a removed entry any more.
///
/// # Cost
/// | | |
/// |---|---|
/// | Redis | 1 `SCAN` for 500 keys, 2 commands for each set and each 500 members, 1 for each hash |
/// | storage | a read and a `head` for a membership, a `head` for a blob; the answers for 16,384 blobs are kept |
/// | a finding | 4 more commands, and the same questions again; 2 scripts to remove it |
/// | memory | a page of 500 keys or members, and 10 MiB at most of a list |
///
/// The audit reads one page at a time from Redis, and reads the next one when the storage has
/// answered for the whole page. So the storage sets the pace, with
/// [`concurrency`](Self::concurrency) questions at a time. If a repository has 24 cached blobs or
/// more, its links are listed instead of read, for as long as that is cheaper. That works where an
/// entity tag proves what a small object holds (S3), or where the object is the membership (OCI
/// layout). [`RedisConfig::with_timeout`] is at least two seconds here.
///
/// # Errors
/// Returns an [`AuditError`], with all findings so far, if the storage failed, if Redis did not
/// answer five times within some four seconds, or if a cluster moved slots during the audit.
///
/// # Cancellation
/// Dropping the future stops the audit at once. The last [`progress`](Self::progress) has the
/// position to resume from; at most one page is checked again. Keys that were being removed at that
/// moment stay uncached for [`RedisConfig::with_fence_ttl`].
#[must_use = "the audit begins when this is awaited"]
pub struct Audit<S: ObjectStore> {
    store: S,
    redis: RedisConfig,
    layout: Arc<dyn Layout>,
    choice: Choice,
    fix: bool,
    rate: f64,
    concurrency: usize,
    after: Option<AuditPosition>,
    findings: Box<dyn FnMut(&Finding) + Send>,
    progress: Box<dyn FnMut(&AuditProgress) + Send>,
}

/// Default number of keys and members that are read per second.
const RATE: f64 = 10_000.0;

/// Default number of concurrent questions to the storage.
const CONCURRENCY: usize = 16;

/// The shortest timeout of Redis: an audit is in no hurry, so it waits for a busy server.
const PATIENCE: Duration = Duration::from_secs(2);

/// Pauses before the audit asks Redis again after a failure.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_millis(1000),
    Duration::from_millis(2000),
];

impl<S: ObjectStore> Audit<S> {
    /// Makes an audit of the entries that `redis` holds of `store`, with the layout of
    /// docker/distribution. Connects when it is awaited.
    ///
    /// # Errors
    /// Returns an error if the address is not valid, or if the durations do not fit together.
    pub fn new(store: S, redis: RedisConfig) -> Result<Self, Error> {
        let layout: Arc<dyn Layout> = Arc::new(Distribution::default());
        let timeout = redis.timeout().max(PATIENCE);
        let redis = redis.with_timeout(timeout);
        AdminClient::new(redis.clone(), Arc::clone(&layout))?;
        Ok(Self {
            store,
            redis,
            layout,
            choice: Choice {
                filter: None,
                sample: 1.0,
            },
            fix: false,
            rate: RATE,
            concurrency: CONCURRENCY,
            after: None,
            findings: Box::new(|_| ()),
            progress: Box::new(|_| ()),
        })
    }

    /// Sets the layout, which says what each path means. Default: [`Distribution`].
    pub fn layout(mut self, layout: impl Layout) -> Self {
        self.layout = Arc::new(layout);
        self
    }

    /// Audits only these repositories, and the metadata of the blobs that are cached as theirs.
    /// Skips keys that belong to no repository. Default: all repositories.
    pub fn repositories(
        mut self,
        filter: impl Fn(&RepositoryName) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.choice.filter = Some(Box::new(filter));
        self
    }

    /// Audits only this share of all blobs, from 0 to 1. A blob's digest decides whether it is in
    /// the sample. So each audit takes the same blobs, in all repositories, and a larger sample
    /// contains every smaller one. Keys that name no blob are always audited. Default: 1.
    pub const fn sample(mut self, share: f64) -> Self {
        self.choice.sample = share;
        self
    }

    /// Sets whether findings are removed. Default: `false`, which writes nothing.
    pub const fn fix(mut self, fix: bool) -> Self {
        self.fix = fix;
        self
    }

    /// Sets the maximum number of keys and members that are read per second. The smallest rate is
    /// one per minute. A rate that is not positive sets no limit. Default: 10,000.
    pub const fn rate(mut self, rate: f64) -> Self {
        self.rate = rate;
        self
    }

    /// Sets the maximum number of concurrent questions to the storage. Minimum: 1. Default: 16.
    pub fn concurrency(mut self, questions: usize) -> Self {
        self.concurrency = questions.max(1);
        self
    }

    /// Resumes after this [`position`](AuditProgress::position), which an earlier audit with the
    /// same settings has reported. Skips everything up to it.
    pub fn resume_after(mut self, position: &AuditPosition) -> Self {
        self.after = Some(position.clone());
        self
    }

    /// Sets a callback that receives each finding, once its fate is known. It runs on the task that
    /// awaits the audit, so it should not take long.
    pub fn findings(mut self, tell: impl FnMut(&Finding) + Send + 'static) -> Self {
        self.findings = Box::new(tell);
        self
    }

    /// Sets a callback that receives the progress, at the start and after each page of some 500
    /// keys or members. It runs on the task that awaits the audit, so it should not take long.
    pub fn progress(mut self, tell: impl FnMut(&AuditProgress) + Send + 'static) -> Self {
        self.progress = Box::new(tell);
        self
    }

    async fn run(self) -> Result<AuditReport, AuditError> {
        let mut progress = AuditProgress {
            position: self.after.clone(),
            ..AuditProgress::default()
        };
        match self.look_through(&mut progress).await {
            Ok(()) => Ok(progress.report),
            Err(source) => Err(AuditError { progress, source }),
        }
    }

    async fn look_through(self, progress: &mut AuditProgress) -> Result<(), Error> {
        let Self {
            store,
            redis,
            layout,
            choice,
            fix,
            rate,
            concurrency,
            after,
            mut findings,
            progress: mut tell,
        } = self;
        let redis = Arc::new(AdminClient::new(redis, Arc::clone(&layout))?);
        let storage = Storage::new(store, layout);
        let mut checker = Checker::new(Arc::clone(&redis), storage, concurrency, fix);
        let walked = async {
            let mut walk = Walk::begin(&redis, &choice, rate, after.as_ref()).await?;
            progress.keys_in_all = walk.keys_in_all;
            tell(progress);
            while let Some(page) = walk.next().await? {
                let (keys, position) = (page.keys, page.position.clone());
                let found = checker.check(page, &mut progress.report).await?;
                found.iter().for_each(&mut *findings);
                progress.keys += keys;
                progress.restarts = walk.restarts;
                progress.position = position;
                tell(progress);
            }
            Ok(())
        };
        let walked = walked.await;
        // Wait until no node answers an entry that was reported as removed.
        checker.finish().await;
        walked
    }
}

/// Asks Redis. Tries again if Redis could not be asked.
async fn insist<T, F: Future<Output = Result<T, Error>>>(ask: impl Fn() -> F) -> Result<T, Error> {
    for pause in PAUSES {
        match ask().await {
            Err(Error::Cache { .. }) => sleep(pause).await,
            other => return other,
        }
    }
    ask().await
}

impl<S: ObjectStore> IntoFuture for Audit<S> {
    type Output = Result<AuditReport, AuditError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.run().boxed()
    }
}

impl<S: ObjectStore> fmt::Debug for Audit<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit")
            .field("store", &self.store)
            .field("redis", &self.redis)
            .field("layout", &self.layout)
            .field("sample", &self.choice.sample)
            .field("fix", &self.fix)
            .field("rate", &self.rate)
            .field("concurrency", &self.concurrency)
            .field("after", &self.after)
            .finish_non_exhaustive()
    }
}
