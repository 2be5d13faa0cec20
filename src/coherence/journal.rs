//! Remembers which changed keys still have to be removed from the shared tier and from other nodes.
//!
//! While the journal holds any key, the node does not read from the shared tier, because the shared
//! tier may hold the old value.

use std::collections::BTreeSet;

/// Holds the keys that are still to be removed. It is bounded: when there are too many keys, it
/// stands for all keys that exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Journal<K: Ord> {
    waiting: BTreeSet<K>,
    everything: bool,
    /// The keys that a task is removing now. The task may end before it has finished.
    begun: Option<PendingKeys<K>>,
}

/// The keys that are removed together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PendingKeys<K> {
    Keys(Vec<K>),
    /// All keys that exist.
    Everything,
}

/// The most keys that the journal remembers. They take some megabytes.
pub(crate) const MOST: usize = 10_000;

/// The largest number of keys up to which repairs are added. Any client can ask for keys that the
/// backend denies, and such requests must not make the journal stand for all keys.
const MOST_REPAIRS: usize = MOST / 2;

/// The most keys that are removed together: as many as one message can name.
const MOST_AT_ONCE: usize = 1000;

impl<K: Ord + Clone> Journal<K> {
    pub(crate) fn new() -> Self {
        Self {
            waiting: BTreeSet::new(),
            everything: false,
            begun: None,
        }
    }

    /// Returns whether no key is left to remove.
    pub(crate) fn is_clear(&self) -> bool {
        self.waiting.is_empty() && !self.everything && self.begun.is_none()
    }

    /// Returns how many keys are left to remove, including those that a task is removing. Returns
    /// `MOST + 1` while all keys are to be removed.
    pub(crate) fn len(&self) -> usize {
        match &self.begun {
            _ if self.everything => MOST + 1,
            Some(PendingKeys::Everything) => MOST + 1,
            Some(PendingKeys::Keys(keys)) => self.waiting.len() + keys.len(),
            None => self.waiting.len(),
        }
    }

    /// Adds keys.
    pub(crate) fn enqueue(&mut self, keys: impl IntoIterator<Item = K>) {
        if !self.everything {
            self.waiting.extend(keys);
        }
        if self.waiting.len() > MOST {
            self.waiting.clear();
            self.everything = true;
        }
    }

    /// Adds keys that the backend has denied, if there is room for them. They may be left out,
    /// because no caller was promised that they are gone. Returns whether there was room.
    pub(crate) fn enqueue_if_room(&mut self, keys: Vec<K>) -> bool {
        let has_room = self.everything || self.waiting.len() + keys.len() <= MOST_REPAIRS;
        if has_room {
            self.enqueue(keys);
        }
        has_room
    }

    /// Returns whether there were too many keys, so that all keys are to be removed.
    pub(crate) const fn is_everything(&self) -> bool {
        self.everything
    }

    /// Returns the keys to remove next, or `None` when no key is left. The journal keeps them until
    /// [`done`](Self::done) is called. Keys whose removal has begun and is not done are returned
    /// again.
    pub(crate) fn next(&mut self) -> Option<PendingKeys<K>> {
        match self.begun.take() {
            Some(PendingKeys::Keys(keys)) => self.enqueue(keys),
            Some(PendingKeys::Everything) => self.everything = true,
            None => {}
        }
        self.begun = if self.everything {
            self.everything = false;
            self.waiting.clear();
            Some(PendingKeys::Everything)
        } else {
            let keys: Vec<_> = self.waiting.iter().take(MOST_AT_ONCE).cloned().collect();
            for key in &keys {
                self.waiting.remove(key);
            }
            (!keys.is_empty()).then_some(PendingKeys::Keys(keys))
        };
        self.begun.clone()
    }

    /// Drops the keys that [`next`](Self::next) has returned, because they are removed.
    pub(crate) fn done(&mut self) {
        self.begun = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stays_in_the_journal_until_it_is_removed() {
        let mut journal = Journal::new();
        journal.enqueue([1, 2]);
        journal.enqueue([2, 3]);
        assert!(matches!(journal.next(), Some(PendingKeys::Keys(keys)) if keys.len() == 3));
        assert!(!journal.is_clear());
        journal.enqueue([3, 4]);
        // The task that began to remove the keys has failed, or has ended with its runtime.
        assert!(matches!(journal.next(), Some(PendingKeys::Keys(keys)) if keys.len() == 4));
        assert_eq!(journal.len(), 4);
        journal.enqueue([4]);
        journal.done();
        assert_eq!(
            journal.next(),
            Some(PendingKeys::Keys(vec![4])),
            "the key was changed again while it was removed"
        );
        journal.done();
        assert_eq!(journal.next(), None);
        assert!(journal.is_clear());
    }

    #[test]
    fn too_many_keys_stand_for_all_keys() {
        let mut journal = Journal::new();
        journal.enqueue(0..=MOST);
        assert_eq!(journal.next(), Some(PendingKeys::Everything));
        journal.enqueue([1]);
        assert_eq!(journal.len(), MOST + 1);
        assert_eq!(
            journal.next(),
            Some(PendingKeys::Everything),
            "the removal is not done"
        );
        journal.enqueue([1]);
        journal.done();
        assert_eq!(journal.next(), Some(PendingKeys::Keys(vec![1])));
        journal.done();
        assert_eq!(journal.next(), None);
    }

    #[test]
    fn repairs_never_make_the_journal_stand_for_all_keys() {
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
    fn no_more_keys_are_removed_together_than_a_message_names() {
        let mut journal = Journal::new();
        journal.enqueue(0..MOST_AT_ONCE + 1);
        let sizes = std::iter::from_fn(|| match journal.next()? {
            PendingKeys::Keys(keys) => {
                journal.done();
                Some(keys.len())
            }
            PendingKeys::Everything => None,
        });
        assert_eq!(sizes.collect::<Vec<_>>(), [MOST_AT_ONCE, 1]);
    }
}
