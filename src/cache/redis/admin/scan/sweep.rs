//! How a scan removes what is wrong.

use super::Subject;
use crate::cache::redis::RedisCache;
use crate::cache::redis::net::connect_error::failed;
use crate::cache::redis::net::servers::KeyedCommand;
use crate::cache::redis::node::announce::read_peer_set;
use crate::cache::redis::node::scripts::ANNOUNCE;
use crate::cache::shared::SharedTier;
use crate::coherence::message::{MOST_NAMES, Message};
use crate::coherence::peers::term::MOST_TRUST;
use crate::types::link::{Key, WireName};
use crate::types::{Error, Link, LinkKind};
use ::redis::cmd;
use std::time::Duration;

/// Removes a key, or a member of a set, if it still is as the scan has seen it. As this is a
/// script, no change comes in between.
const SWEEP: &str = "
local what = ARGV[1]
if what == 'member' then return redis.pcall('SREM', KEYS[1], ARGV[2]) end
if what == 'type' and redis.call('TYPE', KEYS[1]).ok == ARGV[2] then return 0 end
if what == 'forever' and redis.call('PTTL', KEYS[1]) ~= -1 then return 0 end
return redis.call('DEL', KEYS[1])
";

impl RedisCache {
    /// Removes these subjects, and tells all nodes to forget them. Returns how long a node that has
    /// missed the message may still answer from its memory.
    ///
    /// Facts are removed with the delete protocol, so that no node fills them with what it read
    /// before. The media type that a Go registry notes beside a layer's membership is removed with
    /// it.
    pub(crate) async fn sweep_away(&self, subjects: &[Subject]) -> Result<Duration, Error> {
        let facts: Vec<Key> = subjects.iter().filter_map(Subject::fact).collect();
        if !facts.is_empty() {
            self.invalidate(&facts, self.removal_deadline()).await?;
        }
        let mut sweeps = Vec::new();
        for subject in subjects {
            sweeps.extend(self.sweep(subject));
        }
        for reply in self.run_many("sweep", sweeps).await? {
            reply.map_err(|failure| failed("sweep", failure))?;
        }
        let names: Vec<_> = facts.iter().map(WireName::wire_name).collect();
        self.tell_all(&names).await
    }

    fn sweep(&self, subject: &Subject) -> Option<KeyedCommand> {
        let key = subject.key(&self.keys);
        let (key, what, with): (Vec<u8>, _, &[u8]) = match subject {
            Subject::Member(link) => (self.beside(link)?.into(), "key", b""),
            Subject::Meta(..) => return None,
            Subject::MediaType(..) => (key.into(), "key", b""),
            Subject::OddMember(_, _, member) => (key.into(), "member", member),
            Subject::OddType(key, expected) => (key.clone(), "type", expected.as_bytes()),
            Subject::Forever(key) => (key.clone(), "forever", b""),
            Subject::Junk(key) => (key.clone(), "key", b""),
        };
        let mut command = cmd("EVAL");
        command.arg(SWEEP).arg(1).arg(key).arg(what).arg(with);
        Some(KeyedCommand::call(command))
    }

    /// Returns the key that a Go registry writes beside a membership.
    fn beside(&self, link: &Link) -> Option<String> {
        let is_layer = link.kind == LinkKind::Layer;
        is_layer.then(|| self.keys.media_type(&link.repository, &link.digest))
    }

    /// Tells all nodes to forget these keys, without waiting for acknowledgements. Returns how long
    /// a node that has missed the message may still trust its memory.
    async fn tell_all(&self, names: &[u64]) -> Result<Duration, Error> {
        let nodes = format!("{}layercache::{{nodes}}", self.keys.prefix());
        let mut longest = self.settings.trust_timeout;
        let from = fastrand::u64(..);
        let message = |names: &[u64]| Message::Invalidate {
            from,
            id: 0,
            names: names.to_vec(),
        };
        for names in names.chunks(MOST_NAMES) {
            let mut command = cmd("EVAL");
            command.arg(ANNOUNCE).arg(2).arg(&nodes);
            command.arg(format!("{nodes}::all"));
            command.arg(message(names).write());
            let commands = vec![KeyedCommand::call(command)];
            let replies = self.servers.run("announce", commands, self.read_deadline());
            for reply in replies.await?.each {
                let reply = reply.map_err(|failure| failed("announce", failure))?;
                let nodes = read_peer_set(&reply)
                    .map(|set| set.nodes)
                    .unwrap_or_default();
                let trusts = nodes.iter().map(|seen| seen.trust);
                let trust = trusts.filter(|trust| *trust <= MOST_TRUST).max();
                longest = longest.max(trust.unwrap_or_default());
            }
        }
        // Clocks differ in speed, so there is a margin.
        Ok(longest + longest / 20)
    }
}
