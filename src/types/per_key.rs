//! [`PerKey`]: the values that belong to the keys of one question.

use std::iter::Chain;
use std::option::IntoIter;

/// At most one value for each key of a question, in the order of its
/// [`keys`](super::question::Question::keys). A question has one key or two. No value is on the heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PerKey<T>([Option<T>; 2]);

impl<T> Default for PerKey<T> {
    fn default() -> Self {
        Self([None, None])
    }
}

impl<T> PerKey<T> {
    pub(crate) const fn one(value: T) -> Self {
        Self([Some(value), None])
    }

    pub(crate) const fn two(first: T, second: T) -> Self {
        Self([Some(first), Some(second)])
    }

    pub(crate) const fn as_ref(&self) -> PerKey<&T> {
        let [first, second] = &self.0;
        PerKey([first.as_ref(), second.as_ref()])
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        let [first, second] = &self.0;
        first.iter().chain(second)
    }

    /// Returns whether `f` holds for a value.
    #[inline]
    pub(crate) fn any(&self, mut f: impl FnMut(&T) -> bool) -> bool {
        let [first, second] = &self.0;
        first.as_ref().is_some_and(&mut f) || second.as_ref().is_some_and(f)
    }

    pub(crate) fn count(&self) -> usize {
        let [first, second] = &self.0;
        usize::from(first.is_some()) + usize::from(second.is_some())
    }

    /// Calls `f` with each value. An iterator over the values costs several times as much.
    #[inline]
    pub(crate) fn for_each(self, mut f: impl FnMut(T)) {
        let [first, second] = self.0;
        if let Some(first) = first {
            f(first);
        }
        if let Some(second) = second {
            f(second);
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        matches!(self.0, [None, None])
    }

    pub(crate) fn map<U>(self, mut f: impl FnMut(T) -> U) -> PerKey<U> {
        self.filter_map(|value| Some(f(value)))
    }

    pub(crate) fn filter(self, mut f: impl FnMut(&T) -> bool) -> Self {
        self.filter_map(|value| f(&value).then_some(value))
    }

    #[inline]
    pub(crate) fn filter_map<U>(self, mut f: impl FnMut(T) -> Option<U>) -> PerKey<U> {
        let [first, second] = self.0;
        PerKey([first.and_then(&mut f), second.and_then(f)])
    }

    /// Returns the first value that `f` maps to a result.
    #[inline]
    pub(crate) fn find_map<U>(self, mut f: impl FnMut(T) -> Option<U>) -> Option<U> {
        let [first, second] = self.0;
        first.and_then(&mut f).or_else(|| second.and_then(f))
    }

    /// Adds to each value that of the same key in `other`, if there is one.
    pub(crate) fn with<U>(self, other: PerKey<U>) -> PerKey<(T, Option<U>)> {
        let ([first, second], [other_first, other_second]) = (self.0, other.0);
        PerKey([
            first.map(|first| (first, other_first)),
            second.map(|second| (second, other_second)),
        ])
    }

    /// Returns pairs, for the keys that have a value in both.
    pub(crate) fn zip<U>(self, other: PerKey<U>) -> PerKey<(T, U)> {
        self.with(other)
            .filter_map(|(one, other)| Some((one, other?)))
    }

    /// Returns these values, and those of `other` for the keys that have none here.
    pub(crate) fn or(self, other: Self) -> Self {
        let ([first, second], [other_first, other_second]) = (self.0, other.0);
        Self([first.or(other_first), second.or(other_second)])
    }
}

impl<T> IntoIterator for PerKey<T> {
    type Item = T;
    type IntoIter = Chain<IntoIter<T>, IntoIter<T>>;

    fn into_iter(self) -> Self::IntoIter {
        let [first, second] = self.0;
        first.into_iter().chain(second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stays_with_its_key() {
        let both = PerKey::two(1, 2);
        let second = both.filter(|value| *value == 2);
        assert_eq!(second.count(), 1);
        assert_eq!(second.or(PerKey::one(7)), PerKey::two(7, 2));
        assert_eq!(both.with(second), PerKey::two((1, None), (2, Some(2))));
        assert!(PerKey::one(1).zip(second).is_empty());
        assert!(both.zip(second).into_iter().eq([(2, 2)]));
        assert_eq!(second.find_map(Some), Some(2));
        assert!(second.any(|value| *value == 2) && !second.any(|value| *value == 1));
    }
}
