//! [`Deadline`]: when must an operation on the shared tier be over?

use std::time::Duration;
use tokio::time::Instant;

/// The moment at which an operation on the shared tier must be over, and whether the operation
/// waits for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline {
    at: Instant,
    patience: Patience,
}

/// How an operation behaves while there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// A read fails at once, and its caller asks the backend.
    Read,
    /// A change that may be made without Redis, by default a creation, waits for a connection that
    /// is being made. While Redis is known to be away, it fails at once and goes on without Redis.
    Creation,
    /// A change that is refused without Redis, by default a removal, waits for a connection.
    Removal,
}

impl Deadline {
    pub(crate) fn new(timeout: Duration, patience: Patience) -> Self {
        Self::ending(Instant::now() + timeout, patience)
    }

    pub(crate) const fn ending(at: Instant, patience: Patience) -> Self {
        Self { at, patience }
    }

    pub(crate) const fn at(self) -> Instant {
        self.at
    }

    pub(crate) const fn patience(self) -> Patience {
        self.patience
    }

    pub(crate) fn is_over(self) -> bool {
        self.at <= Instant::now()
    }
}
