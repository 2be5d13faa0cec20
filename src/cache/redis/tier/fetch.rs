//! How a look-up asks Redis: all questions in one round trip.

use crate::cache::deadline::Deadline;
use crate::cache::redis::RedisCache;
use crate::cache::redis::net::servers::{KeyedCommand, Reply};
use crate::cache::redis::tier::fields;
use crate::cache::shared::{Found, Member};
use crate::types::link::MetaRef;
use crate::types::question::Question;
use crate::types::{Error, LayerMeta, Link, LinkKind, RepositoryName};
use ::redis::{Cmd, RedisWrite};
use std::collections::BTreeMap;

/// The positions of the questions about the members of each set.
type Sets<'a> = BTreeMap<(LinkKind, &'a RepositoryName), Vec<usize>>;

impl RedisCache {
    /// Answers questions in one round trip, with one command for the members of each set and one
    /// for each hash.
    pub(crate) async fn ask(
        &self,
        questions: &[Question],
        deadline: Deadline,
    ) -> Result<Vec<Found>, Error> {
        let sets = sets(questions);
        let mut commands = Vec::with_capacity(sets.len() + questions.len());
        for places in sets.values() {
            let links = places.iter().filter_map(|at| questions[*at].link());
            commands.extend(self.membership_of(&links.collect::<Vec<_>>()));
        }
        let hashes = questions.iter().filter_map(Question::meta);
        commands.extend(hashes.map(|meta| self.fields_of(meta)));
        let replies = self.servers.run("look-up", commands, deadline);
        let mut replies = replies.await?.each.into_iter();

        let mut answers = vec![Found::default(); questions.len()];
        for places in sets.values() {
            match fields::read_members(places.len(), replies.next()) {
                Ok(members) => {
                    for (at, is_member) in places.iter().zip(members) {
                        answers[*at].member = is_member.then(Member::default);
                    }
                }
                Err(fields::Broken) => self.broken.membership.increment(places.len() as u64),
            }
        }
        for (question, found) in questions.iter().zip(&mut answers) {
            if let Some(meta) = question.meta() {
                found.meta = self.read_meta(meta, replies.next());
            }
        }
        Ok(answers)
    }

    /// Returns a command that asks whether these links, all of one set, are its members. For one
    /// link it is `SISMEMBER`, as in docker/distribution.
    fn membership_of(&self, links: &[&Link]) -> Option<KeyedCommand> {
        let (first, name) = match links {
            [] => return None,
            [one] => (one, "SISMEMBER"),
            [first, ..] => (first, "SMISMEMBER"),
        };
        let set = self.keys.set(first);
        let texts = links.iter().map(|link| link.digest.text_len());
        let size = name.len() + set.len() + texts.sum::<usize>();
        let mut command = Cmd::with_capacity(links.len() + 2, size);
        command.arg(name).arg(set);
        for link in links {
            command.write_arg_fmt(link.digest);
        }
        Some(KeyedCommand::on_first(command))
    }

    fn fields_of(&self, meta: MetaRef<'_>) -> KeyedCommand {
        let mut command = Cmd::with_capacity(fields::READ.len() + 2, 192);
        command.arg("HMGET");
        self.keys.write_hash(meta, &mut command);
        command.arg(&fields::READ);
        KeyedCommand::on_first(command)
    }

    fn read_meta(&self, meta: MetaRef<'_>, reply: Option<Reply>) -> Option<LayerMeta> {
        let path = self.path_of(meta, fields::stored_path(reply.as_ref()));
        fields::read_hash(meta.digest(), path, reply).unwrap_or_else(|fields::Broken| {
            self.broken.meta.increment(1);
            None
        })
    }
}

fn sets(questions: &[Question]) -> Sets<'_> {
    let mut sets = Sets::new();
    for (at, question) in questions.iter().enumerate() {
        if let Some(link) = question.link() {
            let set = sets.entry((link.kind, &link.repository)).or_default();
            set.push(at);
        }
    }
    sets
}
