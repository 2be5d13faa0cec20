//! Records what was done and how it ended, as a [`History`] and by operation.

use layercache::CacheStatus;
use std::sync::Mutex;
use test_support::history::record::{Change, Fact, History, Outcome, Read, Records, Span, now};

/// The operations of a client.
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
    /// Answered, with any answer.
    Answered,
    /// Refused for now; nothing was changed.
    Refused,
    /// The server reported a failure, or the answer was cut off.
    Failed,
    /// No answer in time.
    Silent,
}

/// One operation.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) op: Op,
    pub(crate) span: Span,
    pub(crate) node: usize,
    pub(crate) end: End,
    /// The text of a failure.
    pub(crate) why: String,
}

/// The faults of the servers and of the network.
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

/// A fault, from its beginning until its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    pub(crate) span: Span,
}

/// Records everything. All clients share it.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    history: History,
    attempts: Mutex<Vec<Attempt>>,
    faults: Mutex<Vec<Fault>>,
}

/// All records, once no client writes any more.
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

    /// Records an event that must never happen, even during a fault, such as wrong content.
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

/// Returns how an operation that has ended stands in the history. After a reported failure, S3 may
/// still carry out the change for a short time.
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
