//! Models reads, and the loads that they join.

use super::Model;
use super::faults::Fault;
use super::state::change::{ChangeAt, Kind};
use super::state::read::{LoadAt, Loading, ReadAt, Reader};
use super::state::{KEY, LateCommand, State, Violation};
use super::ticks::at;
use crate::coherence::flight::{Arrival, LatestLoad};
use crate::coherence::lease::{Grant, Token};
use crate::coherence::load::{FinishStep, Load, LoadStep, Verdict};
use crate::coherence::rules::Rule;

impl Model {
    /// Takes the next step of a read.
    pub(super) fn read(&self, state: &mut State, i: usize) -> Option<()> {
        let reader = state.readers[i].clone();
        let node = &state.nodes[reader.node];
        let trusted = node.coherence.trusted(at(state.now));
        match reader.at {
            ReadAt::Idle => {
                state.readers[i].acknowledged = state.acknowledged(reader.node);
                if self.bends(Rule::TrustBeforeTheStamp) {
                    let stamp = state.nodes[reader.node].coherence.generations.now(&KEY);
                    state.readers[i].at = ReadAt::Stamped { stamp };
                    return Some(());
                }
                self.look(state, i);
            }
            ReadAt::Stamped { stamp } => match node.memory {
                Some(entry) if trusted.is_some() && entry == stamp => finish(state, i, true),
                _ => self.choose_load(state, i),
            },
            ReadAt::Looking { entry } => {
                let stamp = node.coherence.generations.now(&KEY);
                let lives =
                    entry.is_some_and(|entry| entry == stamp || self.bends(Rule::StampOnValues));
                match lives {
                    true => finish(state, i, true),
                    false => self.choose_load(state, i),
                }
            }
            ReadAt::Waiting(number) => {
                let runs = |load: &Loading| (load.node, load.number) == (reader.node, number);
                if state.loads.iter().any(runs) {
                    return None;
                }
                self.look(state, i);
            }
            ReadAt::Joined { .. } | ReadAt::Done => return None,
        }
        Some(())
    }

    /// Ends a read's wait for the load that runs.
    pub(super) fn stop_waiting(&self, state: &mut State, i: usize) -> Option<()> {
        let ReadAt::Waiting(_) = state.readers[i].at else {
            return None;
        };
        self.look(state, i);
        Some(())
    }

    /// Looks in memory: first checks trust, then finds the entry.
    fn look(&self, state: &mut State, i: usize) {
        let node = &state.nodes[state.readers[i].node];
        let trusts = node.coherence.trusted(at(state.now)).is_some() || self.bends(Rule::Trust);
        match node.memory {
            entry @ Some(_) if trusts => state.readers[i].at = ReadAt::Looking { entry },
            _ => self.choose_load(state, i),
        }
    }

    /// Decides which load a read joins, starts or waits for.
    fn choose_load(&self, state: &mut State, i: usize) {
        let reader = &state.readers[i];
        let n = reader.node;
        let latest = state.nodes[n].latest;
        let is_late = reader.arrival.is_none() && latest.is_some();
        let mut arrival = reader.arrival.unwrap_or(Arrival::new(latest));
        if is_late && let Some(number) = latest {
            let joins = self.joins_too_early(state, n, number);
            if let Some(negative_only) = joins {
                state.readers[i].at = ReadAt::Joined {
                    number,
                    negative_only,
                };
                return;
            }
        }
        let latest_load = arrival.latest_load(latest);
        let node = &mut state.nodes[n];
        let at = match (latest_load, latest) {
            (LatestLoad::StartedBefore, Some(number)) => ReadAt::Waiting(number),
            (LatestLoad::StartedAfter, Some(number)) => ReadAt::Joined {
                number,
                negative_only: false,
            },
            _ => {
                let number = node.loads_started;
                node.loads_started += 1;
                node.latest = Some(number);
                state.loads.push(Loading {
                    node: n,
                    number,
                    load: Load::new(false),
                    read_stamp: None,
                    token: Token::of(100 + 10 * n as u64 + number),
                    lease: None,
                    waited: false,
                    at: LoadAt::Start,
                });
                ReadAt::Joined {
                    number,
                    negative_only: false,
                }
            }
        };
        let reader = &mut state.readers[i];
        (reader.arrival, reader.at) = (Some(arrival), at);
    }

    /// Returns `Some` if a bent rule lets a read join a load that started before the read. It holds
    /// whether the read takes only a negative answer.
    fn joins_too_early(&self, state: &State, n: usize, number: u64) -> Option<bool> {
        let runs = |load: &&Loading| (load.node, load.number) == (n, number);
        let load = state.loads.iter().find(runs)?;
        let node = &state.nodes[n];
        let same_stamp = load
            .read_stamp
            .is_some_and(|read_stamp| node.coherence.generations.holds(&KEY, read_stamp));
        let trusts = node.coherence.trusted(at(state.now)).is_some();
        let in_redis = matches!(
            load.at,
            LoadAt::Start
                | LoadAt::LookedUp(_)
                | LoadAt::Next(LoadStep::LookUp | LoadStep::Grant { .. })
        );
        if self.bends(Rule::NoReadJoinsAnEarlierLoad)
            || self.bends(Rule::JoiningByStampNeedsTheLease) && same_stamp && trusts
            || self.bends(Rule::JoiningByLeaseNeedsTrust)
                && same_stamp
                && (in_redis || load.lease.is_some())
        {
            return Some(false);
        }
        self.bends(Rule::NoNegativeFromAnEarlierLoad)
            .then_some(true)
    }

    /// Takes the next step of a load.
    pub(super) fn load(&self, state: &mut State, i: usize) -> Option<()> {
        let load = state.loads[i].clone();
        let node = &state.nodes[load.node];
        let is_connected = state.reaches(load.node);
        // Redis may still hold the old values of the keys in the node's retry queue.
        let asks = is_connected
            && (!state.has_queued(load.node)
                || self.bends(Rule::NoReadFromRedisWhileKeysAreQueued));
        let next = match load.at {
            LoadAt::Start => {
                let trusted = node.coherence.trusted(at(state.now));
                state.loads[i].read_stamp = trusted.and_then(|trusted| trusted.read_stamp(&KEY));
                LoadAt::Next(load.load.begin())
            }
            LoadAt::Next(LoadStep::LookUp) => {
                LoadAt::LookedUp(asks && state.redis.data.slot.entry.is_some())
            }
            LoadAt::LookedUp(found) => {
                if found {
                    self.fill_memory(state, i);
                }
                LoadAt::Next(load.load.looked_up(found))
            }
            LoadAt::Next(LoadStep::Grant { steal }) => {
                let slot = &mut state.redis.data.slot;
                let grants = match asks {
                    true => vec![slot.grant(load.token, steal)],
                    false => Vec::new(),
                };
                if grants == [Grant::Granted] {
                    state.loads[i].lease = Some(load.token);
                }
                LoadAt::Next(state.loads[i].load.granted(&grants))
            }
            // The load pauses once. Anything may happen meanwhile. At a second pause it asks the
            // backend.
            LoadAt::Next(LoadStep::Pause(_)) if !load.waited => {
                state.loads[i].waited = true;
                LoadAt::Next(LoadStep::LookUp)
            }
            LoadAt::Next(LoadStep::Pause(_)) => LoadAt::Next(LoadStep::Ask),
            LoadAt::Next(LoadStep::Answer) => {
                self.answer(state, i, true);
                return self.end_load(state, i);
            }
            LoadAt::Next(LoadStep::Ask) => LoadAt::Read(state.backend),
            LoadAt::Read(found) => {
                self.answer(state, i, found);
                let verdict = if found { Verdict::Yes } else { Verdict::No };
                match (load.load.finish(verdict), load.lease) {
                    (FinishStep::Fill, Some(_)) => LoadAt::Fill,
                    (FinishStep::Fill, None) => LoadAt::Filled(false),
                    (FinishStep::Release | FinishStep::Repair, Some(_)) => LoadAt::Release,
                    (FinishStep::Release | FinishStep::Repair, None) => {
                        return self.end_load(state, i);
                    }
                }
            }
            LoadAt::Fill => LoadAt::Filled(is_connected && self.fill(state, load.token)),
            LoadAt::Filled(accepted) => {
                if accepted || self.bends(Rule::MemoryIsFilledAfterRedis) {
                    self.fill_memory(state, i);
                }
                return self.end_load(state, i);
            }
            LoadAt::Release => {
                if is_connected {
                    state.redis.data.slot.release(load.token);
                }
                return self.end_load(state, i);
            }
        };
        state.loads[i].at = next;
        Some(())
    }

    /// Loses the reply to a load's `GRANT`. Redis may execute the command late.
    pub(super) fn lose_grant(&self, state: &mut State) -> Option<()> {
        let asks = |load: &Loading| matches!(load.at, LoadAt::Next(LoadStep::Grant { .. }));
        let i = state.loads.iter().position(asks)?;
        let server = state.redis.server;
        let load = &mut state.loads[i];
        let LoadAt::Next(LoadStep::Grant { steal }) = load.at else {
            return None;
        };
        load.at = LoadAt::Next(load.load.granted(&[Grant::Unknown]));
        load.lease = Some(load.token).filter(|_| self.bends(Rule::AnUnknownGrantIsNoLease));
        state
            .late
            .push(LateCommand::Grant(server, load.token, steal));
        state.spend(Fault::LateGrant)
    }

    /// Makes a load give up its `FILL`. Redis may still execute the command.
    pub(super) fn give_fill_up(&self, state: &mut State, i: usize) -> Option<()> {
        let load = &state.loads[i];
        if load.at != LoadAt::Fill {
            return None;
        }
        state
            .late
            .push(LateCommand::Fill(state.redis.server, load.token));
        state.spend(Fault::LateFill)?;
        self.end_load(state, i)
    }

    pub(super) fn fill(&self, state: &mut State, token: Token) -> bool {
        let slot = &mut state.redis.data.slot;
        if self.bends(Rule::FillChecksItsLease) {
            slot.entry = Some(());
            return true;
        }
        slot.fill(token, ())
    }

    /// Fills memory under the load's read stamp.
    fn fill_memory(&self, state: &mut State, i: usize) {
        let load = &state.loads[i];
        if let Some(read_stamp) = load.read_stamp {
            state.nodes[load.node].memory = Some(read_stamp.stamp());
        }
    }

    /// Answers the reads that have joined.
    fn answer(&self, state: &mut State, i: usize, found: bool) {
        let (n, number) = (state.loads[i].node, state.loads[i].number);
        for reader in 0..state.readers.len() {
            let Reader { node, at, .. } = state.readers[reader];
            let ReadAt::Joined {
                number: joined,
                negative_only,
            } = at
            else {
                continue;
            };
            match (node, joined) == (n, number) {
                true if negative_only && found => {
                    state.readers[reader].at = ReadAt::Waiting(number);
                }
                true => finish(state, reader, found),
                false => {}
            }
        }
    }

    /// Ends a load.
    fn end_load(&self, state: &mut State, i: usize) -> Option<()> {
        let load = state.loads.remove(i);
        let latest = &mut state.nodes[load.node].latest;
        if *latest == Some(load.number) {
            *latest = None;
        }
        Some(())
    }
}

/// Ends a read, and records a violation if its answer was not allowed.
fn finish(state: &mut State, i: usize, found: bool) {
    let reader = &mut state.readers[i];
    reader.at = ReadAt::Done;
    let mask = reader.acknowledged;
    // An acknowledged change forbids the answer, unless an opposite change may have come after it.
    let forbids = |forbidding: usize, explains: fn(Kind) -> bool| {
        let change = &state.changes[forbidding];
        mask & (1 << forbidding) != 0
            && !explains(change.kind)
            && !state.changes.iter().enumerate().any(|(other, explaining)| {
                explains(explaining.kind)
                    && explaining.at != ChangeAt::Idle
                    && change.before & (1 << other) == 0
            })
    };
    let is_put = |kind| kind == Kind::Put;
    let is_delete = |kind| kind != Kind::Put;
    let mut changes = 0..state.changes.len();
    let is_violated = match found {
        true => changes.any(|change| forbids(change, is_put)),
        false => changes.any(|change| forbids(change, is_delete)),
    };
    if is_violated {
        state.violation = Some(match found {
            true => Violation::StalePositive,
            false => Violation::StaleNegative,
        });
    }
}
