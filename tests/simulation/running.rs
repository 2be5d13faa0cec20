//! [`Running`]: which requests have not ended, and which ended in doubt?

use super::clock::Clock;
use super::request::Request;
use super::truth::Doubt;
use histories::record::Change;
use std::sync::{Arc, Mutex};

/// The requests that no node has answered yet, and the changes that clients are in doubt about. A
/// clone only increments a reference count.
#[derive(Debug, Clone, Default)]
pub(crate) struct Running {
    /// The changes that have not ended. When a machine dies, its clients do not learn how they ended.
    pub(crate) changes: Arc<Mutex<Vec<Change>>>,
    pub(crate) callers: Arc<Mutex<Vec<Caller>>>,
    /// The changes that have ended, and their clients do not know how.
    doubtful: Arc<Mutex<Vec<(Change, Doubt)>>>,
}

/// A client that waits for an answer: the time at which it began, the node, and the request.
type Caller = (u64, usize, Request);

impl Running {
    /// A machine has died. Its clients are in doubt about their changes.
    pub(crate) fn died(&self, node: usize, clock: &Clock) {
        let mut callers = self.callers.lock().unwrap();
        callers.retain(|(_, at, _)| *at != node);
        let end = clock.next();
        let mut changes = self.changes.lock().unwrap();
        for mut change in changes.extract_if(.., |change| change.node == node) {
            change.span.end = end;
            self.doubt(change, Doubt::Gone);
        }
    }

    pub(crate) fn doubt(&self, change: Change, doubt: Doubt) {
        self.doubtful.lock().unwrap().push((change, doubt));
    }

    /// Takes the changes that their clients are in doubt about.
    pub(crate) fn take_doubtful(&self) -> Vec<(Change, Doubt)> {
        std::mem::take(&mut self.doubtful.lock().unwrap())
    }

    /// Returns the clients that still wait.
    pub(crate) fn callers(&self) -> Vec<(usize, Request)> {
        let callers = self.callers.lock().unwrap();
        callers
            .iter()
            .map(|(_, node, what)| (*node, *what))
            .collect()
    }
}
