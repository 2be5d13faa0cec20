//! How clients ask nodes, and what clients do after a change.

use super::faults::Trigger;
use super::machine::Time;
use super::request::Request;
use super::run::send;
use super::world::{Event, World};
use histories::record::Fact;
use std::time::Duration;

/// How long a removed object stays away, in milliseconds.
const AWAY: std::ops::Range<u64> = 50..600;

impl World {
    /// A client asks a node. After the busy time it changes nothing.
    pub(crate) fn ask(&mut self, node: usize, request: Request, patience: Option<Time>) {
        if request.is_change() && !self.is_busy {
            return;
        }
        if request.removes() {
            self.pull(Trigger::Asked, node);
        }
        send(self, node, request, patience);
    }

    /// A client asks all nodes at nearly the same time.
    pub(crate) fn ask_all(&mut self, at: Time, request: Request) {
        for node in 0..self.machines.len() {
            let time = at.max(self.soon(4));
            self.at(time, Event::Ask(node, request));
        }
    }

    /// A client has learned that its change is made. It asks all nodes about it, because an error may
    /// last for some milliseconds only. Another client soon creates a removed object again, because
    /// the removal of an absent object shows no error.
    pub(crate) fn changed(&mut self, at: Time, fact: Fact, present: bool) {
        self.ask_all(at, Request::about(fact));
        if !present && self.random.u32(..8) > 0 {
            let away = Duration::from_millis(self.random.u64(AWAY));
            let node = self.random.usize(..self.machines.len());
            let create = match fact {
                Fact::Link(repository, blob) => Request::Link(repository, blob),
                Fact::Blob(blob) => Request::PutBlob(blob),
            };
            self.at(at + away, Event::Ask(node, create));
        }
    }
}
