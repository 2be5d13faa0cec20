//! A garbage collection that deletes objects without the cache's knowledge, and the purge after it.

use super::traffic::Client;
use super::world::World;
use histories::record::{Change, Fact, Outcome, Span};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::sleep;

/// The objects that were deleted without the cache's knowledge since the last purge, and when. A
/// clone only increments a reference count.
#[derive(Debug, Clone, Default)]
pub(crate) struct Collected(Arc<Mutex<Vec<(Fact, u64)>>>);

/// How often a purge is tried, and how long after the last try.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(250);

impl Collected {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }
}

impl Client {
    /// Purges the cache. A read that begins after the purge must not find an object that the
    /// collection deleted before the purge.
    pub(crate) async fn purge_after_collection(self) {
        let gone = self.collected.0.lock().unwrap().clone();
        let mut tries = 0..TRIES;
        while self.stores[0].purge().await.is_err() {
            if tries.next().is_none() {
                return;
            }
            sleep(PAUSE).await;
        }
        let end = self.clock.next();
        let mut collected = self.collected.0.lock().unwrap();
        for (fact, begin) in gone {
            let still = collected.iter().position(|it| *it == (fact, begin));
            // Another purge may have been faster.
            let Some(place) = still else { continue };
            collected.remove(place);
            self.history.change(Change {
                fact,
                present: false,
                span: Span { begin, end },
                outcome: Outcome::Done,
                node: self.node,
                what: "garbage collection",
            });
        }
    }
}

impl World {
    /// Deletes some objects of the first store, and lets a machine purge the cache.
    pub(crate) fn collect(&mut self, machine: usize) {
        let stores = if self.configs[machine].is_shared {
            2
        } else {
            1
        };
        for fact in self.facts() {
            let (Fact::Blob(blob) | Fact::Link(_, blob)) = fact;
            if blob % stores == 0 && self.random.u32(..3) == 0 {
                let begin = self.clock.next();
                self.delete_now(fact);
                self.collected.0.lock().unwrap().push((fact, begin));
            }
        }
        self.purge_after_collection(machine);
    }

    pub(crate) fn purge_after_collection(&mut self, machine: usize) {
        if let Some(client) = self.client(machine)
            && let Some(machine) = &mut self.machines[machine]
        {
            machine.spawn(client.purge_after_collection());
        }
    }
}
