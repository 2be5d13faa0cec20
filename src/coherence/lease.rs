//! Decides who may fill a key of the shared tier: leases and fences.
//!
//! A lease permits its holder to fill one cold key. Every change of the key removes the lease, and
//! the shared tier refuses a fill without its lease. A lost lease therefore costs one fill and
//! never lets an outdated value in. A fence stands while a key is being changed. It is a set of
//! tokens, one for each change. While the set has a token, no lease is granted.

/// Names one try of a load to get a lease, or of a change to set a fence. It is random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Token(u64);

impl Token {
    /// Returns a new token. Two tokens are equal with a probability of 2⁻⁶⁴.
    pub(crate) fn random() -> Self {
        Self(fastrand::u64(..))
    }

    #[cfg(any(test, all(feature = "redis", feature = "testing")))]
    pub(crate) const fn of(number: u64) -> Self {
        Self(number)
    }

    pub(crate) const fn number(self) -> u64 {
        self.0
    }
}

/// Says whether a load may fill a key, after it asked for a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Grant {
    /// The key has an entry by now.
    Hit,
    /// The load has the lease, and may fill the key.
    Granted,
    /// Another load has the lease, and is about to fill the key.
    Wait,
    /// The key is being changed, or another load has had the lease for longer than a load takes.
    /// There is nothing to wait for.
    Blocked,
    /// No answer came in time. The lease may be granted all the same, now or later, so the load
    /// gives it back.
    Unknown,
}

/// Says what `END` found in the shared tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct EndReply {
    /// Whether all fences of the change still stood. If not, a load may have got a lease meanwhile
    /// and have read the old value.
    pub(crate) stood: bool,
    /// Whether `END` filled the shared tier with what the change wrote.
    pub(crate) filled: bool,
}
