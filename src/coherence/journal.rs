//! The journal: what this node has changed, and could not take away yet from the shared tier and
//! the other nodes.
//!
//! While anything is owed the shared tier is not asked: it may hold what was before.

use std::collections::HashSet;
use std::hash::Hash;

/// What is owed. Bounded: where it is too much, everything is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Journal<K: Eq + Hash> {
    owed: HashSet<K>,
    everything: bool,
    /// How many are being paid at the moment.
    paying: usize,
}

/// What is paid at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Payment<K> {
    /// These keys are taken away.
    Keys(Vec<K>),
    /// All keys are.
    Everything,
}

/// The most keys that are remembered: some megabytes.
const MOST: usize = 10_000;

/// The most keys that heals may fill: what the backend has denied anybody can ask for, and must not
/// make everything owed.
const MOST_HEALS: usize = MOST / 2;

/// The most keys of a payment: what one message names.
const BATCH: usize = 1000;

impl<K: Eq + Hash + Clone> Journal<K> {
    pub(crate) fn new() -> Self {
        Self {
            owed: HashSet::new(),
            everything: false,
            paying: 0,
        }
    }

    /// Whether nothing is owed.
    pub(crate) fn is_clear(&self) -> bool {
        self.owed.is_empty() && !self.everything && self.paying == 0
    }

    /// How many keys are owed, those that are being paid too; all of them count as one more than fit.
    pub(crate) fn len(&self) -> usize {
        match self.everything {
            true => MOST + 1,
            false => self.owed.len() + self.paying,
        }
    }

    /// Remembers keys. Says whether somebody has to begin to pay.
    pub(crate) fn owe(&mut self, keys: impl IntoIterator<Item = K>) -> bool {
        let nobody_pays = self.is_clear();
        if !self.everything {
            self.owed.extend(keys);
        }
        if self.owed.len() > MOST {
            self.owed.clear();
            self.everything = true;
        }
        nobody_pays && !self.is_clear()
    }

    /// The same for keys that the backend has denied, if there is room for them: nobody was promised
    /// that they are gone.
    pub(crate) fn owe_if_room(&mut self, keys: Vec<K>) -> Option<bool> {
        let has_room = self.everything || self.owed.len() + keys.len() <= MOST_HEALS;
        has_room.then(|| self.owe(keys))
    }

    /// Whether there were too many, so that everything is owed.
    pub(crate) const fn is_everything(&self) -> bool {
        self.everything
    }

    /// What to pay next; `None` when nothing is owed any more. What is taken here is still owed
    /// until it is [`paid`](Self::paid) or given [`back`](Self::back).
    pub(crate) fn next(&mut self) -> Option<Payment<K>> {
        if self.everything {
            self.everything = false;
            self.owed.clear();
            self.paying = MOST + 1;
            return Some(Payment::Everything);
        }
        let keys: Vec<_> = self.owed.iter().take(BATCH).cloned().collect();
        for key in &keys {
            self.owed.remove(key);
        }
        self.paying = keys.len();
        (!keys.is_empty()).then_some(Payment::Keys(keys))
    }

    /// A payment was made.
    pub(crate) const fn paid(&mut self) {
        self.paying = 0;
    }

    /// A payment was not made. The payer is still the same.
    pub(crate) fn back(&mut self, payment: Payment<K>) {
        match payment {
            Payment::Keys(keys) => self.owed.extend(keys),
            Payment::Everything => self.everything = true,
        }
        self.paying = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_owed_is_owed_until_it_is_paid() {
        let mut journal = Journal::new();
        assert!(journal.owe([1, 2]), "somebody has to begin to pay");
        assert!(!journal.owe([2, 3]), "somebody pays already");
        let payment = journal.next().unwrap();
        assert!(!journal.is_clear());
        assert!(!journal.owe([4]));
        journal.back(payment);
        assert_eq!(journal.len(), 4);
        let Some(Payment::Keys(keys)) = journal.next() else {
            panic!("keys are owed");
        };
        assert_eq!(keys.len(), 4);
        journal.paid();
        assert_eq!(journal.next(), None);
        assert!(journal.is_clear());
        assert!(journal.owe([5]), "the last payer is gone");
    }

    #[test]
    fn too_much_is_everything() {
        let mut journal = Journal::new();
        journal.owe(0..=MOST);
        assert_eq!(journal.next(), Some(Payment::Everything));
        journal.owe([1]);
        journal.paid();
        assert_eq!(journal.next(), Some(Payment::Keys(vec![1])));
        journal.paid();
        assert_eq!(journal.next(), None);
    }

    #[test]
    fn what_was_denied_never_makes_everything_owed() {
        let mut journal = Journal::new();
        assert_eq!(journal.owe_if_room(vec![0, 1]), Some(true));
        for i in 0..2 * MOST {
            journal.owe_if_room(vec![i]);
        }
        assert_eq!(journal.owe_if_room(vec![MOST]), None);
        assert_eq!(
            (journal.len(), journal.is_everything()),
            (MOST_HEALS, false)
        );
        assert!(!journal.owe([MOST]), "there is room for changes");
        assert_eq!(journal.len(), MOST_HEALS + 1);
    }

    #[test]
    fn a_payment_is_no_more_than_a_message_names() {
        let mut journal = Journal::new();
        journal.owe(0..BATCH + 1);
        let sizes = std::iter::from_fn(|| match journal.next()? {
            Payment::Keys(keys) => {
                journal.paid();
                Some(keys.len())
            }
            Payment::Everything => None,
        });
        assert_eq!(sizes.collect::<Vec<_>>(), [BATCH, 1]);
    }
}
