//! The servers' end of the network: a server accepts connections, and receives and sends bytes.

use super::network::Link;
use super::stream::{End, SimStream};
use super::world::{Event, World};
use std::io;
use tokio::sync::oneshot;

impl World {
    pub(crate) fn connect(
        &mut self,
        machine: usize,
        host: &str,
        reply: oneshot::Sender<io::Result<SimStream>>,
    ) {
        let server = host.strip_prefix("redis-").and_then(|it| it.parse().ok());
        let server: usize = server.expect("a host of the simulation");
        let is_frozen = self.servers[server].frozen_until(self.now).is_some();
        if is_frozen || self.network.is_cut(machine, server, self.now) {
            // The client waits until its own deadline.
            self.network.keep_waiting(reply);
            return;
        }
        if self.servers[server].is_down || self.network.refuses(machine, self.now) {
            let _ = reply.send(Err(io::ErrorKind::ConnectionRefused.into()));
            return self.wake(machine);
        }
        let connection = self.servers[server].connect();
        if let Some(node) = &self.machines[machine] {
            let stream = self.network.open(machine, server, connection, &node.outbox);
            let _ = reply.send(Ok(stream));
        }
        self.wake(machine);
    }

    pub(crate) fn receive(&mut self, link: Link, bytes: Vec<u8>) {
        let Some((server, connection)) = self.network.server_end(link) else {
            return;
        };
        if let Some(until) = self.servers[server].frozen_until(self.now) {
            return self.at(until, Event::Receive(link, bytes));
        }
        if self.servers[server].is_down {
            return;
        }
        self.note(1, &bytes);
        self.servers[server].receive(connection, &bytes, self.now);
        self.spread(server);
        self.send_outputs(server);
    }

    /// Sends the replies and the messages of a server to its clients.
    pub(crate) fn send_outputs(&mut self, server: usize) {
        for (connection, bytes, is_closing) in self.servers[server].take_outputs() {
            let Some(link) = self.network.link_of(server, connection) else {
                continue;
            };
            if let Some(time) = self
                .network
                .arrival_at_machine(link, self.now, &mut self.random)
            {
                self.at(time, Event::Deliver(link, bytes));
                if is_closing {
                    self.at(time, Event::End(link, End::Closed));
                }
            }
        }
    }
}
