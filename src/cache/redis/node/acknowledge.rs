//! How a node sends the acknowledgements that other nodes wait for.

use super::session::Node;
use crate::cache::redis::net::connection::WeakConnection;
use crate::coherence::message::Message;
use ::redis::Pipeline;
use std::sync::{PoisonError, Weak};
use tokio::sync::mpsc;

/// The acknowledgements that a node has to send. A task that ends with its runtime gives them back
/// to the node, for the next task.
pub(super) struct AckQueue {
    pub(super) node: Weak<Node>,
    pub(super) owed: Option<mpsc::Receiver<(u64, u64)>>,
}

impl AckQueue {
    async fn next(&mut self, batch: &mut Vec<(u64, u64)>) -> usize {
        match &mut self.owed {
            Some(owed) => owed.recv_many(batch, 64).await,
            None => 0,
        }
    }
}

impl Drop for AckQueue {
    fn drop(&mut self) {
        if let Some(node) = self.node.upgrade() {
            let mut owed = node.owed.lock().unwrap_or_else(PoisonError::into_inner);
            *owed = self.owed.take();
        }
    }
}

/// Sends the acknowledgements for as long as there is a node.
pub(super) async fn acknowledge(mut owed: AckQueue, connection: WeakConnection) {
    let mut batch = Vec::new();
    while owed.next(&mut batch).await > 0 {
        let (Some(node), Some(connection)) = (owed.node.upgrade(), connection.upgrade()) else {
            return;
        };
        let mut pipeline = Pipeline::new();
        for (to, id) in batch.drain(..) {
            let from = node.channel.node;
            let message = Message::Acknowledge { from, id }.write();
            let name = node.channel.private_name(to);
            pipeline.cmd("PUBLISH").arg(name).arg(message);
        }
        // If one is lost, the change waits until this node's trust would have lapsed.
        if let Some(session) = connection.session() {
            let sent = connection.run_on(session, "acknowledge", &mut pipeline);
            let _ = sent.await;
        }
    }
}
