//! [`AckWait`]: how a change waits for the acknowledgements of the other nodes.

use super::{Channel, MOST_ACKS};
use crate::coherence::peers::peer_set::PeerSet;
use crate::coherence::rules::{Rule, kept};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};

/// Waits for the acknowledgements of one message.
#[derive(Debug)]
pub(crate) struct AckWait {
    channel: Arc<Channel>,
    id: u64,
    pub(super) acks: mpsc::Receiver<u64>,
}

impl Channel {
    /// Begins to take the acknowledgements of the message `id`, which is not yet sent.
    pub(crate) fn wait_for(self: &Arc<Self>, id: u64) -> AckWait {
        let (sender, acks) = mpsc::channel(MOST_ACKS);
        self.waiting().insert(id, sender);
        AckWait {
            channel: Arc::clone(self),
            id,
            acks,
        }
    }
}

impl AckWait {
    /// Waits until all nodes that may trust their memory have acknowledged, or until no node can
    /// still trust what it knew at `published`. `asked` is when the node began to publish.
    pub(crate) async fn over(mut self, set: PeerSet, asked: Instant, published: Instant) {
        let mut awaited = self.channel.awaited(&set, asked, published);
        while !awaited.is_over(Instant::now()) && kept(Rule::WaitingForAcknowledgements) {
            match timeout_at(awaited.end(), self.acks.recv()).await {
                Ok(Some(node)) => awaited.acknowledged(node),
                // The sender lives as long as this, so `None` does not come.
                Ok(None) | Err(_) => sleep_until(awaited.end()).await,
            }
        }
    }
}

impl Drop for AckWait {
    fn drop(&mut self) {
        self.channel.waiting().remove(&self.id);
    }
}
