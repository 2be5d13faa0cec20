//! Commands, each to the primary that has its key.

use super::Cluster;
use crate::cache::deadline::Deadline;
use crate::cache::redis::address::Place;
use crate::cache::redis::connection::Connection;
use crate::cache::redis::servers::{Command, Replies, Reply};
use crate::cache::redis::slots::{read_place, slot_of};
use crate::cache::redis::trouble::{Failure, Trouble};
use crate::coherence::through::Through;
use ::redis::Pipeline;
use futures::future::join_all;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// How long a command waits until a slot that is on its way has arrived.
const ON_ITS_WAY: Duration = Duration::from_millis(2);

/// Where a command goes next.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    place: Place,
    /// Whether the slot is still on its way there.
    asking: bool,
}

impl Cluster {
    /// Runs commands where their keys are, all at the same time. Those that are sent elsewhere go
    /// there; those whose slot is on its way wait for it.
    pub(in crate::cache::redis) async fn run(
        &self,
        commands: &[Command],
        deadline: Deadline,
    ) -> Replies {
        let map = match self.map(deadline).await {
            Ok(map) => map,
            Err(failure) => {
                let each = commands.iter().map(|_| Err(failure.clone()));
                return Replies {
                    each: each.collect(),
                    through: Through::default(),
                };
            }
        };
        let mut through = Through::default();
        let mut replies: Vec<Option<Reply>> = commands.iter().map(|_| None).collect();
        let mut open: BTreeMap<Turn, Vec<usize>> = BTreeMap::new();
        for (i, command) in commands.iter().enumerate() {
            let slot = slot_of(command.key());
            match map.primary_of(slot) {
                Some(place) => open.entry(Turn::to(place.clone())).or_default().push(i),
                None => {
                    self.look_again();
                    let trouble = Some(Arc::new(Trouble::NoSlot(slot)));
                    replies[i] = Some(Err(Failure::NotAsked(trouble)));
                }
            }
        }
        while !open.is_empty() {
            let turns = std::mem::take(&mut open);
            let asked = join_all(turns.iter().map(|(turn, which)| async move {
                let commands = which.iter().map(|i| &commands[*i]);
                let line = self.line(&turn.place);
                let (answers, number) = send(&line, commands, turn.asking, deadline).await;
                (answers, number, line)
            }));
            let mut is_on_its_way = false;
            for ((turn, which), (answers, number, line)) in turns.iter().zip(asked.await) {
                let is_final = |reply: &Reply| self.next_turn(turn, reply).is_none();
                if number.is_some() && answers.iter().any(is_final) {
                    through.and(number);
                    self.note_recent(&mut through, &line);
                }
                for (i, reply) in which.iter().zip(answers) {
                    let next = self.next_turn(turn, &reply);
                    let next = next.or_else(|| match &reply {
                        // It waited for a primary, and another one is it now.
                        Err(Failure::NotAsked(_)) => self.moved_from(turn, &commands[*i]),
                        _ => None,
                    });
                    is_on_its_way |= next.as_ref() == Some(turn);
                    if let Some(next) = next.filter(|_| !deadline.is_over()) {
                        open.entry(next).or_default().push(*i);
                    }
                    replies[*i] = Some(reply);
                }
            }
            if is_on_its_way {
                sleep(ON_ITS_WAY).await;
            }
        }
        let none = || Err(Failure::NotAsked(None));
        self.through_home(&mut through);
        let each = replies.into_iter();
        Replies {
            each: each.map(|reply| reply.unwrap_or_else(none)).collect(),
            through,
        }
    }

    /// Who serves the slot of a command now, if that is another one than before.
    fn moved_from(&self, turn: &Turn, command: &Command) -> Option<Turn> {
        let known = self.known()?;
        let place = known.primary_of(slot_of(command.key()))?;
        (*place != turn.place).then(|| Turn::to(place.clone()))
    }

    /// Where a command goes after this reply, if it does.
    fn next_turn(&self, turn: &Turn, reply: &Reply) -> Option<Turn> {
        let Err(Failure::Redis(error)) = reply else {
            return None;
        };
        match error.code()? {
            // Its keys are here and there: it waits until all have arrived.
            "TRYAGAIN" => Some(turn.clone()),
            code @ ("MOVED" | "ASK") => {
                let (place, _) = error.redirect_node()?;
                let place = read_place(&turn.place.0, place)?;
                let asking = code == "ASK";
                if !asking {
                    self.look_again();
                }
                Some(Turn { place, asking })
            }
            _ => None,
        }
    }
}

impl Turn {
    const fn to(place: Place) -> Self {
        Self {
            place,
            asking: false,
        }
    }
}

async fn send<'a>(
    line: &Connection,
    commands: impl Iterator<Item = &'a Command>,
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
    match line.run_until(deadline, &mut pipeline).await {
        Ok((replies, number)) => {
            let step = if asking { 2 } else { 1 };
            let replies = replies.into_iter().skip(step - 1).step_by(step);
            let each = replies.map(|reply| reply.map_err(Failure::Redis));
            (each.collect(), Some(number))
        }
        Err(failure) => (vec![Err(failure); count], None),
    }
}
