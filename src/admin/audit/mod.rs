//! [`Audit`]: whether the storage confirms what is cached.

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

use crate::cache::redis::RedisCache;
use crate::layout::{Distribution, Layout};
use crate::{Error, RedisConfig, RepositoryName};
use check::Checker;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::ObjectStore;
use page::Choice;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use storage::Storage;
use tokio::time::sleep;
use walk::Walk;

/// Which repositories are looked at.
type Filter = dyn Fn(&RepositoryName) -> bool + Send + Sync;

/// An audit: asks the storage of everything that is cached in Redis whether it is so, and takes away what is
/// not. Does nothing until it is awaited.
///
/// A registry whose cache is not told of a garbage collection answers afterwards that blobs are there which
/// are gone, takes manifests that name them, and serves images that nobody can pull. It works on the Redis
/// of this crate's nodes and of Go registries (docker/distribution 2 and 3), while they run.
///
/// ```
/// use layercache::RedisConfig;
/// use layercache::admin::Audit;
/// use layercache::layout::Distribution;
/// use object_store::memory::InMemory;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let audit = Audit::new(InMemory::new(), RedisConfig::new("redis://127.0.0.1"))?
///     .layout(Distribution::new("registry/docker/registry/v2".into()))
///     .repositories(|name| name.as_str().starts_with("team/"))
///     .sample(0.1)
///     .rate(2000.0)
///     .concurrency(4)
///     .findings(|finding| println!("{finding}"))
///     .fix(true);
/// match audit.await {
///     Ok(report) => println!("{} of {} findings removed", report.removed, report.findings()),
///     // To go on later, `resume_after` takes the position.
///     Err(error) => eprintln!("{error}; {:?}", error.progress.position),
/// }
/// # Ok(())
/// # }
/// ```
///
/// # What is a finding
/// What [`Wrong`] names. What looks wrong is looked at twice, some 100 ms apart, and in Redis before the storage
/// and after it: a change that is under way is no finding. What has a fence is being changed, and is
/// counted and left alone. A hash of which nothing is cached, what the layout has no place for, and digests
/// of an algorithm that this crate does not know are passed over; the manifests that a Go registry of
/// version 3 keeps among a repository's blobs are looked up as manifests.
///
/// # What is written
/// Without [`fix`](Self::fix) nothing, in Redis or in the storage. With it, a finding is taken away by the delete
/// protocol, with its lease, and all nodes are told to forget it; so is what a Go registry keeps beside a
/// membership. Then it is looked for again. The audit is not one of the nodes: nobody waits for it, and it
/// leaves no key behind, so that a Redis which only Go registries use is theirs alone as before. It does
/// not hear the nodes either; so an audit that has taken something away ends
/// [`trust`](RedisConfig::trust) later, when none of them can answer it.
///
/// # Cost
/// | | |
/// |---|---|
/// | Redis | 1 `SCAN` for 500 keys, 2 commands for each set and each 500 members, 1 for each hash |
/// | storage | a read and a `head` for a membership, a `head` for a blob; what is there is remembered of 16,384 blobs |
/// | a finding | 4 commands more, and the same questions again; 2 scripts to take it away |
/// | memory | a page of 500 keys or members, and 10 MiB at most of a list |
///
/// A page at a time is read from Redis, and the next one when the storage has answered all of it: the storage
/// sets the pace, with [`concurrency`](Self::concurrency) questions at a time. Where an entity tag proves
/// what a small object holds (S3) or the object is the membership (OCI layout), a repository of which 24
/// blobs or more are cached is listed instead of read, for as long as that is cheaper.
/// [`RedisConfig::timeout`] is two seconds here at least.
///
/// # Errors
/// [`AuditError`], with all that was found before: the storage failed, or Redis did not answer five times within
/// some four seconds, or a cluster has moved slots meanwhile.
///
/// # Cancellation
/// Dropping the future stops it at once. The last [`progress`](Self::progress) has the position to resume from;
/// at most a page is looked at again. What was being taken away then is not cached for
/// [`RedisConfig::fence`].
#[must_use = "nothing is looked at until this is awaited"]
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

/// How many keys and members are read in a second, unless it is said.
const RATE: f64 = 10_000.0;

/// How many questions the storage has at a time, unless it is said.
const CONCURRENCY: usize = 16;

/// How long to wait before Redis is asked again that could not be asked.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_millis(1000),
    Duration::from_millis(2000),
];

impl<S: ObjectStore> Audit<S> {
    /// An audit of what `redis` holds of `store`, by the layout of docker/distribution. Connects when it is
    /// awaited.
    ///
    /// # Errors
    /// An address that cannot be one is refused, and so are times that cannot work.
    pub fn new(store: S, redis: RedisConfig) -> Result<Self, Error> {
        let layout: Arc<dyn Layout> = Arc::new(Distribution::default());
        RedisCache::visitor(redis.clone(), Arc::clone(&layout))?;
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

    /// Sets what paths mean. Default: [`Distribution`].
    pub fn layout(mut self, layout: impl Layout) -> Self {
        self.layout = Arc::new(layout);
        self
    }

    /// Looks at these repositories alone, and at what is known of the blobs that are cached as theirs. Keys that
    /// belong to no repository are passed over. Default: all.
    pub fn repositories(
        mut self,
        filter: impl Fn(&RepositoryName) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.choice.filter = Some(Box::new(filter));
        self
    }

    /// Looks at this share of all blobs alone, from 0 to 1. Which ones, their digests decide: each audit takes the
    /// same, in all repositories, and a larger sample has all of a smaller one. What names no blob is
    /// always looked at. Default: 1.
    pub const fn sample(mut self, share: f64) -> Self {
        self.choice.sample = share;
        self
    }

    /// Takes away what is found. Default: `false`, and nothing is written.
    pub const fn fix(mut self, fix: bool) -> Self {
        self.fix = fix;
        self
    }

    /// Reads so many keys and members in a second at most, and one a minute at least. Default: 10,000. A number
    /// that is not positive is no bound.
    pub const fn rate(mut self, rate: f64) -> Self {
        self.rate = rate;
        self
    }

    /// Asks the storage so many questions at a time at most, and one at least. Default: 16.
    pub fn concurrency(mut self, questions: usize) -> Self {
        self.concurrency = questions.max(1);
        self
    }

    /// Passes over all up to this [`position`](AuditProgress::position) of before, with the same settings.
    pub fn resume_after(mut self, position: &AuditPosition) -> Self {
        self.after = Some(position.clone());
        self
    }

    /// Tells of each finding, when it is known what has become of it. Runs on the task that awaits this; it
    /// should not take long.
    pub fn findings(mut self, tell: impl FnMut(&Finding) + Send + 'static) -> Self {
        self.findings = Box::new(tell);
        self
    }

    /// Tells how far it has come, when it begins and after each page of some 500 keys or members. Runs on the
    /// task that awaits this; it should not take long.
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
        let redis = Arc::new(RedisCache::visitor(redis, Arc::clone(&layout))?);
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
                progress.position = position;
                tell(progress);
            }
            Ok(())
        };
        let walked = walked.await;
        // What was told as removed is not answered any more.
        checker.settle().await;
        walked
    }
}

/// Asks Redis; again, if it could not be asked.
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
