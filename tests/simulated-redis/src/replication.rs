//! What a primary tells its replicas, and what servers say about their roles.

use crate::keyspace::Entry;
use crate::reply::Reply;
use crate::setup::Random;
use std::time::Duration;

/// What one command of a client has changed. A replica changes all of it at once.
#[derive(Debug, Clone, PartialEq)]
pub struct Effect {
    /// The time of the primary at the command. The replica repeats the command at this time.
    pub(crate) now: Duration,
    pub(crate) changes: Vec<Change>,
}

/// A change of the data of one database.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    /// A command is repeated.
    Command(usize, Vec<Vec<u8>>),
    /// A key has come from another server.
    Put(usize, Vec<u8>, Entry),
}

#[derive(Debug)]
pub(crate) struct Replication {
    /// The identity of this run of the server.
    pub(crate) run_id: String,
    /// The identity of the data's history. Replicas have that of their primary.
    pub(crate) id: String,
    /// The identity of the history before the last promotion.
    pub(crate) old_id: String,
    /// How much of the history there is. The unit is one command.
    pub(crate) offset: u64,
    /// The primary that this server follows.
    pub(crate) primary: Option<(String, u16)>,
    pub(crate) is_linked: bool,
    /// How many replicas follow this server, and how many of them have answered in time.
    pub(crate) replicas: usize,
    pub(crate) least_replicas: usize,
    /// Whether effects are kept until the caller takes them.
    pub(crate) keeps: bool,
    pub(crate) effects: Vec<Effect>,
    current: Vec<Change>,
}

impl Replication {
    pub(crate) fn new(random: &mut Random) -> Self {
        Self {
            run_id: random.identity(),
            id: random.identity(),
            old_id: "0".repeat(40),
            offset: 0,
            primary: None,
            is_linked: false,
            replicas: 0,
            least_replicas: 0,
            keeps: false,
            effects: Vec::new(),
            current: Vec::new(),
        }
    }

    pub(crate) const fn is_primary(&self) -> bool {
        self.primary.is_none()
    }

    pub(crate) const fn has_enough_replicas(&self) -> bool {
        self.replicas >= self.least_replicas
    }

    /// Notes a command that has changed something.
    pub(crate) fn note(&mut self, change: impl FnOnce() -> Change) {
        self.offset += 1;
        if self.keeps {
            self.current.push(change());
        }
    }

    /// Ends the effect of the current command.
    pub(crate) fn seal(&mut self, now: Duration) {
        if !self.current.is_empty() {
            let changes = std::mem::take(&mut self.current);
            self.effects.push(Effect { now, changes });
        }
    }

    pub(crate) fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = Vec::new();
        match &self.primary {
            None => fields.push(("role", "master".to_owned())),
            Some((host, port)) => fields.extend([
                ("role", "slave".to_owned()),
                ("master_host", host.clone()),
                ("master_port", port.to_string()),
                ("master_link_status", self.link().to_owned()),
                ("slave_read_only", "1".to_owned()),
            ]),
        }
        fields.push(("connected_slaves", self.replicas.to_string()));
        if self.least_replicas > 0 {
            fields.push(("min_slaves_good_slaves", self.replicas.to_string()));
        }
        fields.extend([
            ("master_replid", self.id.clone()),
            ("master_replid2", self.old_id.clone()),
            ("master_repl_offset", self.offset.to_string()),
        ]);
        fields
    }

    const fn link(&self) -> &'static str {
        if self.is_linked { "up" } else { "down" }
    }

    pub(crate) fn role(&self) -> Reply {
        let offset = Reply::Int(i64::try_from(self.offset).unwrap_or(i64::MAX));
        match &self.primary {
            None => Reply::Array(vec![
                Reply::bulk("master"),
                offset,
                Reply::Array(Vec::new()),
            ]),
            Some((host, port)) => {
                let state = if self.is_linked {
                    "connected"
                } else {
                    "connect"
                };
                Reply::Array(vec![
                    Reply::bulk("slave"),
                    Reply::bulk(host.as_str()),
                    Reply::Int((*port).into()),
                    Reply::bulk(state),
                    offset,
                ])
            }
        }
    }
}
