//! Tests deletes that a failover loses.

use layercache::Digest;
use object_store::ObjectStoreExt;
use std::time::Duration;
use test_support::nodes::{
    Node, SET, blob_path, digest, eventually_changes, hash, layers, stat, until_in_memory,
};
use test_support::redis::Redis;
use tokio::time::sleep;

/// A link and a blob that are deleted and come back with a server that has not received the delete.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lost {
    pub(crate) link: Digest,
    pub(crate) blob: Digest,
}

impl Lost {
    pub(crate) async fn delete(&self, node: &Node) {
        layers(node).unlink(&self.link).await.unwrap();
        node.delete(&blob_path(&self.blob)).await.unwrap();
    }

    pub(crate) fn has_link(&self, server: &Redis) -> bool {
        let member = self.link.to_string();
        request_as_replica(server, &["SISMEMBER", SET, &member])
    }

    pub(crate) fn has_blob(&self, server: &Redis) -> bool {
        request_as_replica(server, &["EXISTS", &hash(&self.blob)])
    }

    pub(crate) fn is_in(&self, server: &Redis) -> bool {
        self.has_link(server) && self.has_blob(server)
    }

    pub(crate) async fn is_gone(&self, node: &Node) {
        for digest in [&self.link, &self.blob] {
            let (found, status) = stat(node, digest).await;
            assert_eq!(found, None, "{digest} is back, answered from {status:?}");
        }
    }

    /// Checks that both stay gone on nodes that make changes and fill their memory again.
    pub(crate) async fn stays_gone(&self, nodes: [&Node; 2]) {
        for node in nodes {
            eventually_changes(node).await;
            self.is_gone(node).await;
            until_in_memory(node, &digest(3)).await;
            self.is_gone(node).await;
        }
    }

    /// Asks for both all the time. It ends only by a panic, when a node answers with one of them.
    pub(crate) async fn is_asked_for(&self, nodes: [&Node; 2]) {
        loop {
            for node in nodes {
                self.is_gone(node).await;
            }
            sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Returns whether a server answers 1. A replica in a cluster answers only after `READONLY` on the
/// same connection.
fn request_as_replica(server: &Redis, command: &[&str]) -> bool {
    let answers = server.cli_lines(&["READONLY", &command.join(" ")]);
    answers.lines().last() == Some("1")
}
