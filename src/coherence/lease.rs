//! Leases and fences: who may fill a key of the shared tier, and who is changing it.
//!
//! A lease is the permission to fill one cold key. Any change takes it away, and a fill without it
//! is refused: what is lost fails closed. A fence stands while a key is being changed: a set of
//! tokens, one for each change; while there is one no lease is granted.

/// A random name of one try: the one who holds a lease, or has put up a fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Token(u64);

impl Token {
    /// A fresh one. Two are the same once in 2⁶⁴.
    pub(crate) fn random() -> Self {
        Self(fastrand::u64(..))
    }

    #[cfg(test)]
    pub(crate) const fn of(number: u64) -> Self {
        Self(number)
    }

    pub(crate) const fn number(self) -> u64 {
        self.0
    }
}

/// What one who asked for a lease is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Grant {
    /// Somebody has filled it meanwhile.
    Hit,
    /// It may be filled.
    Granted,
    /// Somebody else is about to fill it.
    Wait,
    /// It is being changed, or somebody has been about to fill it for longer than a load takes: there
    /// is nothing to wait for.
    Blocked,
    /// There was no answer. It may be granted all the same, now or later, and is given back.
    Unknown,
}

/// How a change has ended in the shared tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ended {
    /// Whether all its fences still stood. If not, somebody may have been granted a lease, and have
    /// read what was before.
    pub(crate) stood: bool,
    /// Whether what it wrote was filled.
    pub(crate) filled: bool,
}
