//! What was done, when, and how it ended.

use layercache::CacheStatus;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Instant;

/// One fact that is put and deleted, by its own bracket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fact {
    /// There is a blob of this number.
    Blob(u32),
    /// It is in the repository of the first number.
    Link(u32, u32),
}

/// From before an operation's call until after its return, in nanoseconds of the one clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub begin: u64,
    pub end: u64,
}

/// How a change ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was acknowledged.
    Done,
    /// Nothing was changed.
    Refused,
    /// It may have happened, until its span ends.
    Unknown,
}

/// A put of a fact, or its delete.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    pub fact: Fact,
    pub present: bool,
    pub span: Span,
    pub outcome: Outcome,
    pub node: usize,
    pub what: &'static str,
}

/// An answer: `present` if all of its facts are, absent if one of them is.
#[derive(Debug, Clone, Copy)]
pub struct Read {
    pub facts: [Option<Fact>; 2],
    pub present: bool,
    pub span: Span,
    pub status: CacheStatus,
    pub node: usize,
    pub what: &'static str,
}

/// Everything that was done. Cloning is a reference count.
#[derive(Debug, Clone, Default)]
pub struct History(Arc<Mutex<Records>>);

#[derive(Debug, Clone, Default)]
pub struct Records {
    pub changes: Vec<Change>,
    pub reads: Vec<Read>,
    /// What was done to the servers and the network, and when.
    pub faults: Vec<(Span, String)>,
    /// What must not happen at all, such as a read that fails because of a cache.
    pub failures: Vec<String>,
}

/// The one clock.
pub fn now() -> u64 {
    static BASE: LazyLock<Instant> = LazyLock::new(Instant::now);
    // Nothing happens at 0, when all facts are absent.
    u64::try_from(BASE.elapsed().as_nanos()).unwrap() + 1
}

impl Span {
    /// It never ends: what began may yet happen.
    pub const fn open(begin: u64) -> Self {
        Self {
            begin,
            end: u64::MAX,
        }
    }

    pub fn since(begin: u64) -> Self {
        Self { begin, end: now() }
    }
}

impl Read {
    pub fn facts(&self) -> impl Iterator<Item = Fact> {
        self.facts.into_iter().flatten()
    }
}

impl History {
    pub fn change(&self, change: Change) {
        self.0.lock().unwrap().changes.push(change);
    }

    pub fn read(&self, read: Read) {
        self.0.lock().unwrap().reads.push(read);
    }

    pub fn fault(&self, begin: u64, what: impl Into<String>) {
        let fault = (Span::since(begin), what.into());
        self.0.lock().unwrap().faults.push(fault);
    }

    pub fn failure(&self, what: String) {
        self.0.lock().unwrap().failures.push(what);
    }

    /// What has ended so far.
    pub fn so_far(&self) -> Records {
        self.0.lock().unwrap().clone()
    }

    /// All of it, when nobody records any more.
    pub fn take(&self) -> Records {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}
