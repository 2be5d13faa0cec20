//! What was done, and how it ended: as a [`History`], and by operation.

use crate::support::history::record::{Change, Fact, History, Outcome, Read, Records, Span, now};
use layercache::CacheStatus;
use std::sync::Mutex;

/// What a client can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    HeadBlob,
    GetBlob,
    HeadManifest,
    GetManifest,
    GetTag,
    PushAtOnce,
    PushInChunks,
    Mount,
    DeleteBlob,
    PutManifest,
    DeleteManifest,
}

impl Op {
    pub(crate) const ALL: [Self; 11] = [
        Self::HeadBlob,
        Self::GetBlob,
        Self::HeadManifest,
        Self::GetManifest,
        Self::GetTag,
        Self::PushAtOnce,
        Self::PushInChunks,
        Self::Mount,
        Self::DeleteBlob,
        Self::PutManifest,
        Self::DeleteManifest,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::HeadBlob => "HEAD blob",
            Self::GetBlob => "GET blob",
            Self::HeadManifest => "HEAD manifest",
            Self::GetManifest => "GET manifest",
            Self::GetTag => "GET tag",
            Self::PushAtOnce => "push blob",
            Self::PushInChunks => "push in chunks",
            Self::Mount => "mount blob",
            Self::DeleteBlob => "DELETE blob",
            Self::PutManifest => "PUT manifest",
            Self::DeleteManifest => "DELETE manifest",
        }
    }

    pub(crate) const fn is_read(self) -> bool {
        use Op::{GetBlob, GetManifest, GetTag, HeadBlob, HeadManifest};
        matches!(
            self,
            HeadBlob | GetBlob | HeadManifest | GetManifest | GetTag
        )
    }
}

/// How an operation ended, as its client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Answered, whatever the answer.
    Answered,
    /// Refused for now, with nothing changed.
    Refused,
    /// The server says that it has failed, or the answer was cut off.
    Failed,
    /// No answer at all in time.
    Silent,
}

/// One operation.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) op: Op,
    pub(crate) span: Span,
    pub(crate) node: usize,
    pub(crate) end: End,
    /// What was said of a failure.
    pub(crate) why: String,
}

/// What can be done to the servers and the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    RedisKilled,
    RedisFrozen,
    RedisFilled,
    RedisClientsKilled,
    S3Late,
    S3Reset,
    S3Refuses,
    S3Held,
}

impl Kind {
    pub(crate) const ALL: [Self; 8] = [
        Self::RedisKilled,
        Self::RedisFrozen,
        Self::RedisFilled,
        Self::RedisClientsKilled,
        Self::S3Late,
        Self::S3Reset,
        Self::S3Refuses,
        Self::S3Held,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::RedisKilled => "Redis killed, started empty",
            Self::RedisFrozen => "Redis frozen",
            Self::RedisFilled => "Redis full",
            Self::RedisClientsKilled => "Redis kills its clients",
            Self::S3Late => "S3 late",
            Self::S3Reset => "S3 resets connections",
            Self::S3Refuses => "S3 refuses connections",
            Self::S3Held => "S3 hangs",
        }
    }

    pub(crate) const fn is_of_s3(self) -> bool {
        use Kind::{S3Held, S3Late, S3Refuses, S3Reset};
        matches!(self, S3Late | S3Reset | S3Refuses | S3Held)
    }
}

/// From when on something was wrong until it was healed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    pub(crate) span: Span,
}

/// Takes everything down. Shared by all clients.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    history: History,
    attempts: Mutex<Vec<Attempt>>,
    faults: Mutex<Vec<Fault>>,
}

/// All of it, when nobody writes any more.
#[derive(Debug)]
pub(crate) struct Books {
    pub(crate) records: Records,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) faults: Vec<Fault>,
}

impl Ledger {
    pub(crate) fn attempt(&self, attempt: Attempt) {
        self.attempts.lock().unwrap().push(attempt);
    }

    pub(crate) fn fault(&self, kind: Kind, begin: u64) {
        let span = Span::since(begin);
        self.faults.lock().unwrap().push(Fault { kind, span });
        self.history.fault(begin, kind.name());
    }

    /// What must not happen whatever is wrong with the servers, such as another content.
    pub(crate) fn never(&self, what: String) {
        self.history.failure(what);
    }

    pub(crate) fn read(
        &self,
        (op, node): (Op, usize),
        facts: [Option<Fact>; 2],
        present: bool,
        status: CacheStatus,
        begin: u64,
    ) {
        self.history.read(Read {
            facts,
            present,
            span: Span::since(begin),
            status,
            node,
            what: op.name(),
        });
    }

    pub(crate) fn change(
        &self,
        (op, node): (Op, usize),
        fact: Fact,
        present: bool,
        outcome: Outcome,
        span: Span,
    ) {
        self.history.change(Change {
            fact,
            present,
            span,
            outcome,
            node,
            what: op.name(),
        });
    }

    pub(crate) fn take(&self) -> Books {
        Books {
            records: self.history.take(),
            attempts: std::mem::take(&mut self.attempts.lock().unwrap()),
            faults: std::mem::take(&mut self.faults.lock().unwrap()),
        }
    }
}

/// How an operation that is over stands in the history. What a server has failed at may still be
/// under way in S3 for a moment.
pub(crate) fn outcome(end: End, begin: u64) -> (Outcome, Span) {
    const MOMENT: u64 = 10_000_000_000;
    let until = |end| Span { begin, end };
    match end {
        End::Answered => (Outcome::Done, until(now())),
        End::Refused => (Outcome::Refused, until(now())),
        End::Failed => (Outcome::Unknown, until(now() + MOMENT)),
        End::Silent => (Outcome::Unknown, Span::open(begin)),
    }
}
