//! The state of a change.

use crate::coherence::change::{Change, ChangeKind, ChangeStep, Outcome};
use crate::coherence::generation::MemoryFence;
use crate::coherence::lease::{EndReply, Token};
use crate::coherence::peers::awaited::Awaited;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Changing {
    pub(crate) node: usize,
    pub(crate) kind: Kind,
    pub(crate) change: Change,
    pub(crate) token: Token,
    pub(crate) tries: u64,
    pub(crate) fence: Option<MemoryFence>,
    /// The changes that had returned before this change began, as bits.
    pub(crate) before: u8,
    pub(crate) id: u64,
    pub(crate) notices: u8,
    pub(crate) begins: u8,
    /// The connection that the last `BEGIN` or `END` went through.
    pub(crate) used: Option<u64>,
    /// The tick at which `BEGIN` was over.
    pub(crate) since: u8,
    pub(crate) called: Option<Outcome>,
    /// Whether a client called the signed URL while its first fence stood. Every later read must
    /// see that call, although the URL has not expired.
    pub(crate) is_promised: bool,
    pub(crate) notifying: Notifying,
    pub(crate) at: ChangeAt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Delete,
    Put,
    /// A garbage collection deletes the object without a node's help, and then a node purges.
    Purge,
    /// A put of another version. It counts as a delete of the old version.
    Replace,
    /// A signed URL that deletes the object.
    Signed,
}

impl Kind {
    pub(crate) const fn of_change(self) -> ChangeKind {
        match self {
            Self::Put | Self::Replace => ChangeKind::Creation,
            Self::Delete | Self::Purge | Self::Signed => ChangeKind::Removal,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Notifying {
    Not,
    /// Bent: the message was published, or the peer set was read, too early.
    Early(Awaited),
    Awaiting(Awaited),
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ChangeAt {
    Idle,
    Next(ChangeStep),
    EndReply(EndReply, u64),
    Signing(Signing),
    /// A purge, and whether it has removed the leases and the entries.
    Purging {
        leases: bool,
        entries: bool,
    },
    Acknowledged,
    /// The change was refused, or its call may still happen. Its caller was promised nothing.
    Unpromised,
    /// The change is in the retry queue. With a `session`, its keys were removed through that
    /// connection, and the other nodes are being notified.
    Queued {
        session: Option<u64>,
    },
    /// Bent: the change has returned, and is not in the retry queue yet.
    Unqueued,
    Dead,
}

/// Says how far a signed URL has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Signing {
    /// The node is about to set the fence.
    Begin,
    /// The node notifies the other nodes, and awaits them.
    Notify,
    /// The caller has the URL.
    Open,
    /// The URL has expired. The node notifies the other nodes, and awaits them.
    Expired,
}

impl ChangeAt {
    pub(crate) const fn is_over(self) -> bool {
        matches!(self, Self::Acknowledged | Self::Unpromised | Self::Dead)
    }
}

impl Changing {
    /// Returns whether the change has returned, is known to have happened, and is in the retry
    /// queue.
    pub(crate) fn is_queued(&self) -> bool {
        matches!(self.at, ChangeAt::Queued { .. }) && self.called != Some(Outcome::Unknown)
    }

    pub(crate) fn new(node: usize, kind: Kind, change: Change) -> Self {
        Self {
            node,
            kind,
            change,
            token: Token::of(0),
            tries: 0,
            fence: None,
            before: 0,
            id: 0,
            notices: 0,
            begins: 0,
            used: None,
            since: 0,
            called: None,
            is_promised: false,
            notifying: Notifying::Not,
            at: ChangeAt::Idle,
        }
    }
}
