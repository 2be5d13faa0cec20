//! When an operation on the shared tier has to be over.

use std::time::Duration;
use tokio::time::Instant;

/// When an operation on the shared tier has to be over, and whether it waits for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline {
    at: Instant,
    patience: Patience,
}

/// Whether an operation waits while there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// A read fails at once: its caller asks the backend.
    Read,
    /// A creation waits for a connection that is being made. It fails at once while Redis is known to
    /// be away: its caller goes on without Redis.
    Creation,
    /// A removal waits for a connection: without one it is refused.
    Removal,
}

impl Deadline {
    pub(crate) fn new(timeout: Duration, patience: Patience) -> Self {
        Self {
            at: Instant::now() + timeout,
            patience,
        }
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
