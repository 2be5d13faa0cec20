//! The journal: what this node has changed, and could not take away yet from the shared tier and
//! the other nodes.
//!
//! While anything is in it the shared tier is not asked: it may hold what was before.

use std::collections::HashSet;
use std::hash::Hash;

/// What is owed. Bounded: where it is too much, everything is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Journal<K: Eq + Hash> {
    owed: HashSet<K>,
    everything: bool,
    /// What is being taken away at the moment, by a task that may end before it has.
    begun: Option<Batch<K>>,
}

/// What is taken away at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Batch<K> {
    Keys(Vec<K>),
    /// All keys that there are.
    Everything,
}

/// The most keys that are remembered: some megabytes.
pub(crate) const MOST: usize = 10_000;

/// The most keys that heals may fill: what the backend has denied anybody can ask for, and must not
/// make everything owed.
const MOST_HEALS: usize = MOST / 2;

/// The most keys of a batch: what one message names.
const BATCH: usize = 1000;

impl<K: Eq + Hash + Clone> Journal<K> {
    pub(crate) fn new() -> Self {
        Self {
            owed: HashSet::new(),
            everything: false,
            begun: None,
        }
    }

    /// Whether nothing is owed.
    pub(crate) fn is_clear(&self) -> bool {
        self.owed.is_empty() && !self.everything && self.begun.is_none()
    }

    /// How many keys are owed, those that are being taken away too; all of them count as one more
    /// than fit.
    pub(crate) fn len(&self) -> usize {
        match &self.begun {
            _ if self.everything => MOST + 1,
            Some(Batch::Everything) => MOST + 1,
            Some(Batch::Keys(keys)) => self.owed.len() + keys.len(),
            None => self.owed.len(),
        }
    }

    /// Remembers keys.
    pub(crate) fn enqueue(&mut self, keys: impl IntoIterator<Item = K>) {
        if !self.everything {
            self.owed.extend(keys);
        }
        if self.owed.len() > MOST {
            self.owed.clear();
            self.everything = true;
        }
    }

    /// The same for keys that the backend has denied, if there is room for them: nobody was promised
    /// that they are gone. Says whether there was.
    pub(crate) fn enqueue_if_room(&mut self, keys: Vec<K>) -> bool {
        let has_room = self.everything || self.owed.len() + keys.len() <= MOST_HEALS;
        if has_room {
            self.enqueue(keys);
        }
        has_room
    }

    /// Whether there were too many, so that everything is owed.
    pub(crate) const fn is_everything(&self) -> bool {
        self.everything
    }

    /// What to take away next; `None` when nothing is owed any more. It is owed until it is
    /// [`done`](Self::done): what was begun before, and was not done, is begun again.
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

    /// What was begun is taken away.
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
        // Whoever had begun has failed, or ended with its runtime.
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
            (MOST_HEALS, false)
        );
        journal.enqueue([MOST]);
        assert_eq!(journal.len(), MOST_HEALS + 1, "there is room for changes");
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
