//! Remembers which changed keys still have to be removed from the shared tier and from other nodes.
//!
//! While the journal holds any key, the node does not read from the shared tier, because the shared
//! tier may hold the old value.

use std::collections::HashSet;
use std::hash::Hash;

/// Holds the keys that are still to be removed. It is bounded: when there are too many keys, it
/// stands for all keys that exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Journal<K: Eq + Hash> {
    owed: HashSet<K>,
    everything: bool,
    /// The batch that a task is removing now. The task may end before it has finished.
    begun: Option<Batch<K>>,
}

/// The keys that are removed together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Batch<K> {
    Keys(Vec<K>),
    /// All keys that exist.
    Everything,
}

/// The most keys that the journal remembers. They take some megabytes.
pub(crate) const MOST: usize = 10_000;

/// The largest number of keys up to which repairs are added. Any client can ask for keys that the
/// backend denies, and such requests must not make the journal stand for all keys.
const MOST_REPAIRS: usize = MOST / 2;

/// The most keys of a batch: as many as one message can name.
const BATCH: usize = 1000;

impl<K: Eq + Hash + Clone> Journal<K> {
    pub(crate) fn new() -> Self {
        Self {
            owed: HashSet::new(),
            everything: false,
            begun: None,
        }
    }

    /// Returns whether no key is left to remove.
    pub(crate) fn is_clear(&self) -> bool {
        self.owed.is_empty() && !self.everything && self.begun.is_none()
    }

    /// Returns how many keys are left to remove, including those of the current batch. Returns
    /// `MOST + 1` while all keys are to be removed.
    pub(crate) fn len(&self) -> usize {
        match &self.begun {
            _ if self.everything => MOST + 1,
            Some(Batch::Everything) => MOST + 1,
            Some(Batch::Keys(keys)) => self.owed.len() + keys.len(),
            None => self.owed.len(),
        }
    }

    /// Adds keys.
    pub(crate) fn enqueue(&mut self, keys: impl IntoIterator<Item = K>) {
        if !self.everything {
            self.owed.extend(keys);
        }
        if self.owed.len() > MOST {
            self.owed.clear();
            self.everything = true;
        }
    }

    /// Adds keys that the backend has denied, if there is room for them. They may be left out,
    /// because no caller was promised that they are gone. Returns whether there was room.
    pub(crate) fn enqueue_if_room(&mut self, keys: Vec<K>) -> bool {
        let has_room = self.everything || self.owed.len() + keys.len() <= MOST_REPAIRS;
        if has_room {
            self.enqueue(keys);
        }
        has_room
    }

    /// Returns whether there were too many keys, so that all keys are to be removed.
    pub(crate) const fn is_everything(&self) -> bool {
        self.everything
    }

    /// Returns the batch to remove next, or `None` when no key is left. The journal keeps the batch
    /// until [`done`](Self::done) is called. A batch that was begun and is not done is begun again.
    pub(crate) fn next(&mut self) -> Option<Batch<K>> {
        match self.begun.take() {
            Some(Batch::Keys(keys)) => self.enqueue(keys),
            Some(Batch::Everything) => self.everything = true,
            None => {}
        }
        self.begun = if self.everything {
            self.everything = false;
            self.owed.clear();
            Some(Batch::Everything)
        } else {
            let keys: Vec<_> = self.owed.iter().take(BATCH).cloned().collect();
            for key in &keys {
                self.owed.remove(key);
            }
            (!keys.is_empty()).then_some(Batch::Keys(keys))
        };
        self.begun.clone()
    }

    /// Drops the current batch from the journal, because its keys are removed.
    pub(crate) fn done(&mut self) {
        self.begun = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_owed_is_owed_until_it_is_taken_away() {
        let mut journal = Journal::new();
        journal.enqueue([1, 2]);
        journal.enqueue([2, 3]);
        assert!(matches!(journal.next(), Some(Batch::Keys(keys)) if keys.len() == 3));
        assert!(!journal.is_clear());
        journal.enqueue([3, 4]);
        // The task that began the batch has failed, or has ended with its runtime.
        assert!(matches!(journal.next(), Some(Batch::Keys(keys)) if keys.len() == 4));
        assert_eq!(journal.len(), 4);
        journal.enqueue([4]);
        journal.done();
        assert_eq!(
            journal.next(),
            Some(Batch::Keys(vec![4])),
            "changed once more while it was taken away"
        );
        journal.done();
        assert_eq!(journal.next(), None);
        assert!(journal.is_clear());
    }

    #[test]
    fn too_much_is_everything() {
        let mut journal = Journal::new();
        journal.enqueue(0..=MOST);
        assert_eq!(journal.next(), Some(Batch::Everything));
        journal.enqueue([1]);
        assert_eq!(journal.len(), MOST + 1);
        assert_eq!(journal.next(), Some(Batch::Everything), "it was not done");
        journal.enqueue([1]);
        journal.done();
        assert_eq!(journal.next(), Some(Batch::Keys(vec![1])));
        journal.done();
        assert_eq!(journal.next(), None);
    }

    #[test]
    fn what_was_denied_never_makes_everything_owed() {
        let mut journal = Journal::new();
        assert!(journal.enqueue_if_room(vec![0, 1]));
        for i in 0..2 * MOST {
            journal.enqueue_if_room(vec![i]);
        }
        assert!(!journal.enqueue_if_room(vec![MOST]));
        assert_eq!(
            (journal.len(), journal.is_everything()),
            (MOST_REPAIRS, false)
        );
        journal.enqueue([MOST]);
        assert_eq!(journal.len(), MOST_REPAIRS + 1, "there is room for changes");
    }

    #[test]
    fn a_batch_is_no_more_than_a_message_names() {
        let mut journal = Journal::new();
        journal.enqueue(0..BATCH + 1);
        let sizes = std::iter::from_fn(|| match journal.next()? {
            Batch::Keys(keys) => {
                journal.done();
                Some(keys.len())
            }
            Batch::Everything => None,
        });
        assert_eq!(sizes.collect::<Vec<_>>(), [BATCH, 1]);
    }
}
