//! [`Client`]: the state of one connection.

use crate::reply::{Reply, Resp};
use std::collections::BTreeSet;

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) resp: Resp,
    pub(crate) name: Vec<u8>,
    pub(crate) is_known: bool,
    pub(crate) db: usize,
    /// `ASKING` was sent: the next command may be for a slot that moves to this server.
    pub(crate) is_asking: bool,
    /// `READONLY` was sent: a replica answers reads.
    pub(crate) reads_replica: bool,
    /// The server closes the connection after the output.
    pub(crate) is_closing: bool,
    pub(crate) input: Vec<u8>,
    pub(crate) output: Vec<u8>,
    /// Pushes that Redis sends after the reply to the current command.
    pub(crate) later: Vec<u8>,
    pub(crate) channels: BTreeSet<Vec<u8>>,
    pub(crate) patterns: BTreeSet<Vec<u8>>,
}

impl Client {
    pub(crate) const fn new(is_known: bool) -> Self {
        Self {
            resp: Resp::Two,
            name: Vec::new(),
            is_known,
            db: 0,
            is_asking: false,
            reads_replica: false,
            is_closing: false,
            input: Vec::new(),
            output: Vec::new(),
            later: Vec::new(),
            channels: BTreeSet::new(),
            patterns: BTreeSet::new(),
        }
    }

    pub(crate) fn send(&mut self, reply: &Reply) {
        reply.write(self.resp, &mut self.output);
    }

    pub(crate) fn subscriptions(&self) -> usize {
        self.channels.len() + self.patterns.len()
    }
}
