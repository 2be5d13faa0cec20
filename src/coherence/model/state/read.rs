//! The state of a read, and of a load that reads join.

use crate::coherence::flight::Arrival;
use crate::coherence::generation::{ReadStamp, Stamp};
use crate::coherence::lease::Token;
use crate::coherence::load::{Load, LoadStep};

/// One read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Reader {
    pub(crate) node: usize,
    /// The changes that were acknowledged before the read began, as bits.
    pub(crate) acknowledged: u8,
    pub(crate) arrival: Option<Arrival>,
    pub(crate) at: ReadAt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ReadAt {
    Idle,
    /// The read has seen trust, and then this entry in memory.
    Looking {
        entry: Option<Stamp>,
    },
    /// Bent: the read has read the stamp before it checked trust.
    Stamped {
        stamp: Stamp,
    },
    /// The read waits for the end of this load, which started before the read.
    Waiting(u64),
    Joined {
        number: u64,
        /// Bent: the read takes only the answer that the object was not found.
        negative_only: bool,
    },
    Done,
}

/// One load.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Loading {
    pub(crate) node: usize,
    pub(crate) number: u64,
    pub(crate) load: Load,
    pub(crate) read_stamp: Option<ReadStamp>,
    pub(crate) token: Token,
    pub(crate) lease: Option<Token>,
    pub(crate) waited: bool,
    pub(crate) at: LoadAt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum LoadAt {
    /// The load has not taken its read stamp yet.
    Start,
    Next(LoadStep),
    /// Redis has answered.
    LookedUp(bool),
    /// The backend has answered.
    Read(bool),
    Fill,
    Filled(bool),
    Release,
}

impl Reader {
    pub(crate) const fn new(node: usize) -> Self {
        Self {
            node,
            acknowledged: 0,
            arrival: None,
            at: ReadAt::Idle,
        }
    }
}
