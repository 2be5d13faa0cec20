//! Which connections an operation went through.

use tokio::time::Instant;

/// The connections that an operation went through. When one of them is lost, the operation may be lost
/// with it: the next connection may lead to a server that has not heard of the operation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Through {
    /// The numbers of the connections, each once, in order. No two connections have one number.
    numbers: Vec<u64>,
    /// Whether a connection that is needed was not up.
    is_incomplete: bool,
    /// Until when other nodes may have believed the server before, where a connection was just made.
    recent_until: Option<Instant>,
}

impl Through {
    pub(crate) fn one(number: u64) -> Self {
        Self {
            numbers: vec![number],
            ..Self::default()
        }
    }

    /// Through this one as well, if there is one.
    pub(crate) fn and(&mut self, number: Option<u64>) {
        match number.map(|number| (number, self.numbers.binary_search(&number))) {
            Some((number, Err(at))) => self.numbers.insert(at, number),
            Some((_, Ok(_))) => {}
            None => self.is_incomplete = true,
        }
    }

    /// Until then other nodes may have believed the server before one of these.
    pub(crate) fn recent_until(&mut self, until: Instant) {
        self.recent_until = self.recent_until.max(Some(until));
    }

    /// Through these as well.
    pub(crate) fn and_all(&mut self, other: Self) {
        for number in other.numbers {
            self.and(Some(number));
        }
        self.is_incomplete |= other.is_incomplete;
        self.recent_until = self.recent_until.max(other.recent_until);
    }

    /// Whether what came after went through the same connections, and no node can have believed another
    /// server meanwhile.
    pub(crate) fn is_same(&self, after: &Self) -> bool {
        let is_certain = |through: &Self| !through.is_incomplete && !through.numbers.is_empty();
        is_certain(self)
            && is_certain(after)
            && self.recent_until.is_none()
            && self.numbers == after.numbers
    }

    /// Whether all of them are up still, where these are up.
    pub(crate) fn is_up(&self, is_up: impl Fn(u64) -> bool, now: Instant) -> bool {
        !self.is_incomplete
            && !self.numbers.is_empty()
            && self.recent_until.is_none_or(|until| now < until)
            && self.numbers.iter().all(|number| is_up(*number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn of(numbers: &[u64]) -> Through {
        let mut through = Through::default();
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
        let none = Through::default();
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
