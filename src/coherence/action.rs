//! What a node does about a message of the channel.

use tokio::time::Instant;

/// Says what the node does about a message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// Drop these keys from memory, as node `from` asks. Then send the acknowledgement.
    Forget {
        from: u64,
        names: Vec<u64>,
        ack: Option<AckRequest>,
    },
    /// Drop all keys from memory. Then send the acknowledgement. `from` is the sender, if it is
    /// known.
    Flush {
        from: Option<u64>,
        ack: Option<AckRequest>,
    },
    /// Node `from` has done what this node's message `id` asked for.
    Acknowledged { from: u64, id: u64 },
    /// The channel works: the heartbeat that this node sent at `sent` came back.
    Beat { sent: Instant },
    /// Do nothing.
    Ignore,
}

/// An acknowledgement that a node has to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct AckRequest {
    /// The node that waits for the acknowledgement.
    pub(crate) to: u64,
    /// The id of that node's message.
    pub(crate) id: u64,
}
