//! How each command reaches the primary that has its key.

use super::Cluster;
use crate::cache::deadline::Deadline;
use crate::cache::redis::net::address::HostPort;
use crate::cache::redis::net::connect_error::{ConnectError, Failure};
use crate::cache::redis::net::connection::Connection;
use crate::cache::redis::net::servers::{KeyedCommand, Replies, Reply};
use crate::cache::redis::net::slots::{read_place, slot_of};
use crate::coherence::used_connections::UsedConnections;
use ::redis::Pipeline;
use futures::future::join_all;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// How long a command waits for a slot that is moving before it is sent again.
const SLOT_PAUSE: Duration = Duration::from_millis(2);

/// The server that a command goes to next.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Hop {
    place: HostPort,
    /// Whether the slot is still moving there. The command then needs `ASKING`.
    asking: bool,
}

impl Cluster {
    /// Sends the commands to the primaries that have their keys, to all at the same time. Follows
    /// redirections. A command whose slot is moving waits for it.
    pub(crate) async fn run(&self, commands: &[KeyedCommand], deadline: Deadline) -> Replies {
        let map = match self.map(deadline).await {
            Ok(map) => map,
            Err(failure) => {
                let each = commands.iter().map(|_| Err(failure.clone()));
                return Replies {
                    each: each.collect(),
                    connections: UsedConnections::default(),
                };
            }
        };
        let mut used = UsedConnections::default();
        let mut replies: Vec<Option<Reply>> = commands.iter().map(|_| None).collect();
        let mut open: BTreeMap<Hop, Vec<usize>> = BTreeMap::new();
        for (i, command) in commands.iter().enumerate() {
            let slot = slot_of(command.key());
            match map.primary_of(slot) {
                Some(place) => open.entry(Hop::to(place.clone())).or_default().push(i),
                None => {
                    self.look_again();
                    let error = Some(Arc::new(ConnectError::NoSlot(slot)));
                    replies[i] = Some(Err(Failure::NotAsked(error)));
                }
            }
        }
        while !open.is_empty() {
            let hops = std::mem::take(&mut open);
            let sent = join_all(hops.iter().map(|(hop, which)| async move {
                let commands = which.iter().map(|i| &commands[*i]);
                let connection = self.connection_to(&hop.place);
                let (answers, number) = send(&connection, commands, hop.asking, deadline).await;
                (answers, number, connection)
            }));
            let mut is_moving = false;
            for ((hop, which), (answers, number, connection)) in hops.iter().zip(sent.await) {
                let is_final = |reply: &Reply| self.next_hop(hop, reply).is_none();
                if number.is_some() && answers.iter().any(is_final) {
                    used.and(number);
                    self.note_recent(&mut used, &connection);
                }
                for (i, reply) in which.iter().zip(answers) {
                    let next = self.next_hop(hop, &reply);
                    let next = next.or_else(|| match &reply {
                        // The command has waited for a primary that another one has replaced.
                        Err(Failure::NotAsked(_)) => self.moved_from(hop, &commands[*i]),
                        _ => None,
                    });
                    is_moving |= next.as_ref() == Some(hop);
                    if let Some(next) = next.filter(|_| !deadline.is_over()) {
                        open.entry(next).or_default().push(*i);
                    }
                    replies[*i] = Some(reply);
                }
            }
            if is_moving {
                sleep(SLOT_PAUSE).await;
            }
        }
        let none = || Err(Failure::NotAsked(None));
        self.add_home(&mut used);
        let each = replies.into_iter();
        Replies {
            each: each.map(|reply| reply.unwrap_or_else(none)).collect(),
            connections: used,
        }
    }

    /// Returns the primary that serves the slot of a command now, if it is another one than before.
    fn moved_from(&self, hop: &Hop, command: &KeyedCommand) -> Option<Hop> {
        let known = self.known()?;
        let place = known.primary_of(slot_of(command.key()))?;
        (*place != hop.place).then(|| Hop::to(place.clone()))
    }

    /// Returns where a command goes after this reply, if it has to be sent again.
    fn next_hop(&self, hop: &Hop, reply: &Reply) -> Option<Hop> {
        let Err(Failure::Redis(error)) = reply else {
            return None;
        };
        match error.code()? {
            // Some keys of the command have moved and some have not: it waits for the rest.
            "TRYAGAIN" => Some(hop.clone()),
            code @ ("MOVED" | "ASK") => {
                let (place, _) = error.redirect_node()?;
                let place = read_place(&hop.place.0, place)?;
                let asking = code == "ASK";
                if !asking {
                    self.look_again();
                }
                Some(Hop { place, asking })
            }
            _ => None,
        }
    }
}

impl Hop {
    const fn to(place: HostPort) -> Self {
        Self {
            place,
            asking: false,
        }
    }
}

async fn send<'a>(
    connection: &Connection,
    commands: impl Iterator<Item = &'a KeyedCommand>,
    asking: bool,
    deadline: Deadline,
) -> (Vec<Reply>, Option<u64>) {
    let (mut pipeline, mut count) = (Pipeline::new(), 0);
    for command in commands {
        if asking {
            pipeline.cmd("ASKING");
        }
        pipeline.add_command(command.cmd().clone());
        count += 1;
    }
    match connection.run_until(deadline, &mut pipeline).await {
        Ok((replies, number)) => {
            let step = if asking { 2 } else { 1 };
            let replies = replies.into_iter().skip(step - 1).step_by(step);
            let each = replies.map(|reply| reply.map_err(Failure::Redis));
            (each.collect(), Some(number))
        }
        Err(failure) => (vec![Err(failure); count], None),
    }
}
