//! [`Joined`]: a node that has joined the other nodes, until nothing uses it any more.

use crate::cache::redis::net::connection::Connection;
use crate::cache::redis::node::this_node::Node;
use crate::types::runtime;
use std::sync::Arc;

/// This process as a node, and the connection of its channel. All name spaces of a cache share it.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) node: Arc<Node>,
    pub(crate) home: Connection,
}

/// Shuts the node down if there is a runtime for it, so that other nodes do not wait for a node
/// that is gone.
impl Drop for Joined {
    fn drop(&mut self) {
        if let Ok(runtime) = runtime::current() {
            let (node, home) = (Arc::clone(&self.node), self.home.clone());
            runtime.spawn(async move { node.shutdown(&home).await });
        }
    }
}
