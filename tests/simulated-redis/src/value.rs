//! Values, and how much memory they are counted for.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// What a member costs beside its text, roughly.
const MEMBER: usize = 48;

/// The fields of a hash, and their values.
pub(crate) type Fields = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    String(Vec<u8>),
    Set(BTreeSet<Vec<u8>>),
    Hash(Fields),
    Sorted(Sorted),
}

impl Value {
    /// Returns the name that `TYPE` has for it.
    pub(crate) const fn type_name(&self) -> &'static str {
        match self {
            Self::String(_) => "string",
            Self::Set(_) => "set",
            Self::Hash(_) => "hash",
            Self::Sorted(_) => "zset",
        }
    }

    /// Checks whether it has no members. Redis then removes its key.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::String(_) => false,
            Self::Set(set) => set.is_empty(),
            Self::Hash(hash) => hash.is_empty(),
            Self::Sorted(sorted) => sorted.scores.is_empty(),
        }
    }

    pub(crate) fn size(&self) -> usize {
        match self {
            Self::String(text) => text.len(),
            Self::Set(set) => set.iter().map(|member| size_of(&[member])).sum(),
            Self::Hash(hash) => hash
                .iter()
                .map(|(field, value)| size_of(&[field, value]))
                .sum(),
            Self::Sorted(sorted) => sorted.scores.keys().map(|member| size_of(&[member])).sum(),
        }
    }
}

/// Returns what a member of these texts is counted for.
pub(crate) fn size_of(texts: &[&[u8]]) -> usize {
    MEMBER + texts.iter().map(|text| text.len()).sum::<usize>()
}

/// A sorted set.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Sorted {
    scores: BTreeMap<Vec<u8>, Score>,
    order: BTreeSet<(Score, Vec<u8>)>,
}

/// A score. It is never NaN.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Score(f64);

impl PartialEq for Score {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Score {}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Score {
    fn cmp(&self, other: &Self) -> Ordering {
        // Zero and minus zero are the same score.
        (self.0 + 0.0).total_cmp(&(other.0 + 0.0))
    }
}

impl Sorted {
    pub(crate) fn len(&self) -> usize {
        self.scores.len()
    }

    pub(crate) fn score(&self, member: &[u8]) -> Option<f64> {
        self.scores.get(member).map(|score| score.0)
    }

    /// Adds a member, or changes its score.
    pub(crate) fn insert(&mut self, member: &[u8], score: f64) {
        self.remove(member);
        self.scores.insert(member.to_vec(), Score(score));
        self.order.insert((Score(score), member.to_vec()));
    }

    pub(crate) fn remove(&mut self, member: &[u8]) -> bool {
        match self.scores.remove(member) {
            Some(score) => self.order.remove(&(score, member.to_vec())),
            None => false,
        }
    }

    /// Returns its members in the order of their scores, and members of one score in the order of
    /// their texts.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (&[u8], f64)> {
        self.order
            .iter()
            .map(|(score, member)| (member.as_slice(), score.0))
    }
}
