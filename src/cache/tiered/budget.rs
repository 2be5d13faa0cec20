//! [`Budget`]: how long may one read still wait for the shared tier?

use crate::cache::deadline::{Deadline, Patience};
use crate::coherence::rules::{Rule, kept};
use crate::types::{Error, runtime};
use std::time::Duration;
use tokio::time::Instant;

/// The time that one read may still wait for the shared tier, in all its steps together. The time
/// in which the read pauses, or waits for the backend, does not count.
///
/// After a failed step, the read asks the tier no more. There is one exception: if an answer broke
/// the connection, the read may still replace the value that it could not read.
///
/// The check of the runtime is here too, because each read needs it once: before its first step
/// outside memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    whole: Duration,
    left: Duration,
    has_failed: bool,
    has_broken: bool,
    /// Whether the caller's runtime was checked, and has timers.
    has_runtime: bool,
}

/// The reason why a read does not ask the shared tier.
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
            has_runtime: false,
        }
    }

    /// Checks that the caller runs in a tokio runtime with timers. Later calls check no more.
    pub(crate) fn check_runtime(&mut self) -> Result<(), Error> {
        if !self.has_runtime {
            runtime::check()?;
            self.has_runtime = true;
        }
        Ok(())
    }

    /// Notes that the connection broke before an answer came: a value may be too large to be read.
    /// The first time, the read may go on in the time that is left.
    pub(super) const fn broke(&mut self) {
        if !self.has_broken {
            (self.has_failed, self.has_broken) = (false, true);
        }
    }

    /// Returns whether the connection broke before an answer came.
    pub(crate) const fn has_broken(self) -> bool {
        self.has_broken
    }

    /// Notes a failure: the read may ask the tier no more.
    pub(crate) const fn fail(&mut self) {
        self.has_failed = true;
    }

    /// Returns whether a step has failed. Then the read should not wait for the tier.
    pub(crate) const fn has_failed(self) -> bool {
        self.has_failed
    }

    pub(crate) const fn is_spent(self) -> bool {
        self.has_failed || self.left.is_zero()
    }

    /// Returns the smaller of two budgets. It has failed if one of them has.
    pub(crate) fn min(self, other: Self) -> Self {
        Self {
            left: self.left.min(other.left),
            has_failed: self.has_failed || other.has_failed,
            has_broken: self.has_broken || other.has_broken,
            has_runtime: self.has_runtime || other.has_runtime,
            ..self
        }
    }

    /// Returns the budget for the work after the caller has its answer: the whole time again,
    /// unless a step has failed.
    pub(crate) const fn after_the_answer(self) -> Self {
        Self {
            left: self.whole,
            ..self
        }
    }

    /// Runs one step, if there is time left.
    pub(super) async fn ask<T, F>(
        &mut self,
        operation: &'static str,
        ask: impl FnOnce(Deadline) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.ask_timed(operation, ask).await.0
    }

    /// As [`ask`](Self::ask). Also returns how long the step took.
    pub(super) async fn ask_timed<T, F>(
        &mut self,
        operation: &'static str,
        ask: impl FnOnce(Deadline) -> F,
    ) -> (Result<T, Error>, Duration)
    where
        F: Future<Output = Result<T, Error>>,
    {
        if operation == "fill" && !kept(Rule::AnUnknownGrantIsNoLease) {
            *self = Self::new(self.whole);
        }
        if self.is_spent() {
            let spent = Error::Cache {
                tier: "redis",
                operation,
                source: Box::new(Spent),
            };
            return (Err(spent), Duration::ZERO);
        }
        if let Err(error) = self.check_runtime() {
            self.has_failed = true;
            return (Err(error), Duration::ZERO);
        }
        let began = Instant::now();
        let asked = ask(Deadline::ending(began + self.left, Patience::Read)).await;
        let took = began.elapsed();
        self.left = self.left.saturating_sub(took);
        self.has_failed |= asked.is_err();
        (asked, took)
    }
}
