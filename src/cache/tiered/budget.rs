//! How long one read may still wait for the shared tier.

use crate::Error;
use crate::cache::deadline::{Deadline, Patience};
use std::time::Duration;
use tokio::time::Instant;

/// How long one read may still wait for the shared tier, in all its steps together. Time that a read
/// pauses, or waits for the backend, is not taken off.
///
/// After one step that failed the read asks no more. If the answer has broken the connection, the read may
/// replace what it could not read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    whole: Duration,
    left: Duration,
    has_failed: bool,
    has_broken: bool,
}

/// Why the shared tier is not asked.
#[derive(Debug, thiserror::Error)]
#[error("this read has waited for it as long as it may")]
struct Spent;

impl Budget {
    pub(super) const fn new(whole: Duration) -> Self {
        Self {
            whole,
            left: whole,
            has_failed: false,
            has_broken: false,
        }
    }

    /// The connection broke before there was an answer: a value may be too large to be read. The first
    /// time the read may go on, in the time that is left.
    pub(super) const fn broke(&mut self) {
        if !self.has_broken {
            (self.has_failed, self.has_broken) = (false, true);
        }
    }

    /// Whether an answer has broken the connection.
    pub(crate) const fn has_broken(self) -> bool {
        self.has_broken
    }

    /// Nothing may be asked any more.
    pub(crate) const fn fail(&mut self) {
        self.has_failed = true;
    }

    /// Whether a step has failed, so that the tier is not worth waiting for.
    pub(crate) const fn has_failed(self) -> bool {
        self.has_failed
    }

    pub(crate) const fn is_spent(self) -> bool {
        self.has_failed || self.left.is_zero()
    }

    /// The smaller one of two.
    pub(crate) fn min(self, other: Self) -> Self {
        Self {
            left: self.left.min(other.left),
            has_failed: self.has_failed || other.has_failed,
            has_broken: self.has_broken || other.has_broken,
            ..self
        }
    }

    /// For what is done when the caller has its answer: a whole one, if nothing has failed yet.
    pub(crate) const fn after_the_answer(self) -> Self {
        Self {
            left: self.whole,
            ..self
        }
    }

    /// Takes one step, if there is time for it.
    pub(super) async fn ask<T, F>(
        &mut self,
        operation: &'static str,
        ask: impl FnOnce(Deadline) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        if self.is_spent() {
            return Err(Error::Cache {
                tier: "redis",
                operation,
                source: Box::new(Spent),
            });
        }
        let began = Instant::now();
        let asked = ask(Deadline::new(self.left, Patience::Read)).await;
        self.left = self.left.saturating_sub(began.elapsed());
        self.has_failed |= asked.is_err();
        asked
    }
}
