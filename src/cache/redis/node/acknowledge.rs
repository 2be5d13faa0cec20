//! How a node sends the acknowledgements that other nodes wait for.

use super::this_node::Node;
use crate::cache::redis::net::connection::WeakConnection;
use crate::coherence::action::AckRequest;
use crate::coherence::message::Message;
use ::redis::Pipeline;
use std::sync::{Arc, Weak};
use tokio::sync::mpsc;

/// The most acknowledgements that are sent in one pipeline.
const MOST_AT_ONCE: usize = 64;

/// The acknowledgements that a node has to send. A task that ends with its runtime gives them back
/// to the node, for the next task.
pub(super) struct AckQueue {
    node: Weak<Node>,
    pending: Option<mpsc::Receiver<AckRequest>>,
}

impl AckQueue {
    /// Takes the queue from the node, if no task has it.
    pub(super) fn take(node: &Arc<Node>) -> Option<Self> {
        let pending = node.acks().take()?;
        Some(Self {
            node: Arc::downgrade(node),
            pending: Some(pending),
        })
    }

    async fn next(&mut self, requests: &mut Vec<AckRequest>) -> usize {
        match &mut self.pending {
            Some(pending) => pending.recv_many(requests, MOST_AT_ONCE).await,
            None => 0,
        }
    }
}

impl Drop for AckQueue {
    fn drop(&mut self) {
        if let Some(node) = self.node.upgrade() {
            *node.acks() = self.pending.take();
        }
    }
}

/// Sends the acknowledgements for as long as there is a node.
pub(super) async fn acknowledge(mut queue: AckQueue, connection: WeakConnection) {
    let mut requests = Vec::new();
    while queue.next(&mut requests).await > 0 {
        let (Some(node), Some(connection)) = (queue.node.upgrade(), connection.upgrade()) else {
            return;
        };
        let mut pipeline = Pipeline::new();
        for AckRequest { to, id } in requests.drain(..) {
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
