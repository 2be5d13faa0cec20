//! Decides whether an operation may be lost because one of its connections was replaced.

use std::collections::BTreeSet;
use tokio::time::Instant;

/// Holds the connections that an operation went through. When one of them is lost, the operation's
/// effect may be lost with it: the next connection may lead to a server that never received the
/// operation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct UsedConnections {
    /// The smallest of the connections' numbers. Every connection has a number of its own. Most
    /// operations use one connection, which takes no memory on the heap.
    first: Option<u64>,
    /// The other numbers.
    more: BTreeSet<u64>,
    /// Whether a needed connection was not up.
    is_incomplete: bool,
    /// Until when other nodes may still act on answers of the previous server, if a connection is
    /// recent.
    recent_until: Option<Instant>,
}

impl UsedConnections {
    pub(crate) fn one(number: u64) -> Self {
        Self {
            first: Some(number),
            ..Self::default()
        }
    }

    /// Adds a connection. `None` says that a needed connection was not up.
    pub(crate) fn and(&mut self, number: Option<u64>) {
        let Some(number) = number else {
            self.is_incomplete = true;
            return;
        };
        let first = *self.first.get_or_insert(number);
        self.first = Some(first.min(number));
        if first != number {
            self.more.insert(first.max(number));
        }
    }

    /// Returns the numbers of the connections, in order, each once.
    fn numbers(&self) -> impl Iterator<Item = u64> {
        self.first.iter().chain(&self.more).copied()
    }

    /// Records that one of the connections is recent: until `until`, other nodes may still act on
    /// answers of the previous server.
    pub(crate) fn recent_until(&mut self, until: Instant) {
        self.recent_until = self.recent_until.max(Some(until));
    }

    /// Adds the connections of another operation.
    pub(crate) fn and_all(&mut self, other: Self) {
        for number in other.numbers() {
            self.and(Some(number));
        }
        self.is_incomplete |= other.is_incomplete;
        self.recent_until = self.recent_until.max(other.recent_until);
    }

    /// Returns whether a later operation went through the same connections, and no node can have
    /// acted on another server's answers in between.
    pub(crate) fn is_same(&self, after: &Self) -> bool {
        let is_certain = |through: &Self| !through.is_incomplete && through.first.is_some();
        is_certain(self)
            && is_certain(after)
            && self.recent_until.is_none()
            && self.numbers().eq(after.numbers())
    }

    /// Returns whether all connections are still up, which `is_up` says of each. A connection that
    /// was recent counts as replaced when that time is over.
    pub(crate) fn is_up(&self, is_up: impl Fn(u64) -> bool, now: Instant) -> bool {
        !self.is_incomplete
            && self.first.is_some()
            && self.recent_until.is_none_or(|until| now < until)
            && self.numbers().all(is_up)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn of(numbers: &[u64]) -> UsedConnections {
        let mut through = UsedConnections::default();
        numbers.iter().for_each(|number| through.and(Some(*number)));
        through
    }

    #[test]
    fn the_order_of_the_connections_says_nothing_and_another_one_does() {
        assert!(of(&[1, 2]).is_same(&of(&[2, 1, 2])));
        assert!(!of(&[1]).is_same(&of(&[2])));
        assert!(!of(&[1, 2]).is_same(&of(&[1])));
        let mut both = of(&[2]);
        both.and_all(of(&[1]));
        assert_eq!(both, of(&[1, 2]));
    }

    #[test]
    fn what_went_through_none_is_like_nothing_else() {
        let none = UsedConnections::default();
        assert!(!none.is_same(&none));
        assert!(!none.is_up(|_| true, Instant::now()));
        let mut one = of(&[1]);
        one.and(None);
        assert!(!one.is_same(&one) && !of(&[1]).is_same(&one));
        assert!(!one.is_up(|_| true, Instant::now()));
    }

    #[test]
    fn a_connection_that_was_just_made_counts_as_another_one_later() {
        let now = Instant::now();
        let mut recent = of(&[1]);
        recent.recent_until(now + Duration::from_secs(1));
        assert!(!recent.is_same(&of(&[1])));
        assert!(recent.is_up(|number| number == 1, now));
        assert!(!recent.is_up(|_| true, now + Duration::from_secs(1)));
        assert!(!recent.is_up(|number| number == 2, now));
    }
}
