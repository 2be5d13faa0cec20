//! Records what was done, when, and how it ended.

use layercache::CacheStatus;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Instant;

/// A fact that is put and deleted. Each fact has a change protocol of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fact {
    /// The blob of this number exists.
    Blob(u32),
    /// The blob of the second number is in the repository of the first number.
    Link(u32, u32),
}

/// The time from before an operation's call until after its return, in nanoseconds of [`now`].
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
    /// It changed nothing.
    Refused,
    /// It may have happened, at any time until its span ends.
    Unknown,
}

/// A put or a delete of a fact.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    pub fact: Fact,
    pub present: bool,
    pub span: Span,
    pub outcome: Outcome,
    pub node: usize,
    pub what: &'static str,
}

/// An answer: `present` if all of its facts are present, absent if one of them is absent.
#[derive(Debug, Clone, Copy)]
pub struct Read {
    pub facts: [Option<Fact>; 2],
    pub present: bool,
    pub span: Span,
    pub status: CacheStatus,
    pub node: usize,
    pub what: &'static str,
}

/// All records. A clone only increments a reference count.
#[derive(Debug, Clone, Default)]
pub struct History(Arc<Mutex<Records>>);

#[derive(Debug, Clone, Default)]
pub struct Records {
    pub changes: Vec<Change>,
    pub reads: Vec<Read>,
    /// The faults that were made in the servers and the network, and when.
    pub faults: Vec<(Span, String)>,
    /// Events that must never happen, such as a read that fails because of a cache.
    pub failures: Vec<String>,
}

/// Returns the time in nanoseconds, from one clock for the whole process.
pub fn now() -> u64 {
    static BASE: LazyLock<Instant> = LazyLock::new(Instant::now);
    // 0 stands for the time before all changes, when all facts are absent.
    u64::try_from(BASE.elapsed().as_nanos()).unwrap() + 1
}

impl Span {
    /// Makes a span that never ends, for a change that may still take effect.
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

    /// Returns the records so far.
    pub fn so_far(&self) -> Records {
        self.0.lock().unwrap().clone()
    }

    /// Takes all records, once no worker records any more.
    pub fn take(&self) -> Records {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}
