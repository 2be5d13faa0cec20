//! How a look-up asks Redis: all questions in one round trip.

use crate::cache::deadline::Deadline;
use crate::cache::redis::RedisCache;
use crate::cache::redis::tier::fields;
use crate::cache::shared::{Found, Value};
use crate::types::link::KeyKind;
use crate::types::question::{Question, QuestionRef};
use crate::types::{Error, LinkKind, RepositoryName};
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
        let keys_of = |question| QuestionRef::from(question).keys();
        let keys = || questions.iter().map(keys_of);
        let hashes = keys().flatten().filter(|key| key.kind() == KeyKind::Meta);
        commands.extend(hashes.map(|key| self.fields_of(key)));
        let replies = self.run("look-up", commands, deadline);
        let mut replies = replies.await?.each.into_iter();
        self.still_claimed("look-up")?;

        let mut answers = vec![Found::default(); questions.len()];
        for places in sets.values() {
            match fields::read_members(places.len(), replies.next()) {
                Ok(members) => {
                    for (at, is_member) in places.iter().zip(members) {
                        if is_member {
                            answers[*at] = Found::one(Value::MEMBER);
                        }
                    }
                }
                Err(fields::Broken) => self.count_broken(KeyKind::Membership, places.len()),
            }
        }
        for (keys, found) in keys().zip(&mut answers) {
            *found = keys
                .with(std::mem::take(found))
                .filter_map(|(key, found)| match key.kind() {
                    KeyKind::Membership => found,
                    KeyKind::Meta => self.read_meta(key, replies.next()).map(Value::Meta),
                });
        }
        Ok(answers)
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
