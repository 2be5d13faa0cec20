//! Models the steps of a change and of a purge.

use super::Model;
use super::faults::Fault;
use super::state::change::{ChangeAt, Changing, Kind, Notifying, Signing};
use super::state::{KEY, LateCommand, State, Violation};
use super::ticks::at;
use crate::coherence::change::{ChangeStep, Conclusion, Outcome};
use crate::coherence::lease::{EndReply, Token};
use crate::coherence::rules::Rule;
use crate::coherence::slot::Slot;
use crate::coherence::used_connections::UsedConnections;

impl Model {
    /// Takes the next step of a change, except for the steps that go on beside it.
    pub(super) fn change(&self, state: &mut State, i: usize) -> Option<()> {
        match state.changes[i].at {
            ChangeAt::Idle => self.start(state, i),
            ChangeAt::Next(ChangeStep::Begin) => {
                if self.bends(Rule::PublishAfterBegin)
                    && matches!(state.changes[i].notifying, Notifying::Not)
                {
                    state.changes[i].notifying = Notifying::Awaiting(self.publish(state, i)?);
                    return Some(());
                }
                if self.bends(Rule::BeginBeforeTheBackend) && state.changes[i].called.is_none() {
                    return self.call(state, i);
                }
                let session = self.session_of(state, i);
                if session.is_some() {
                    self.begin(state, i);
                }
                let used = session.map(UsedConnections::one);
                let change = &mut state.changes[i];
                change.used = session;
                // The model needs no wait for a connection: a change that waits is the same as one
                // that begins later.
                change.at = ChangeAt::Next(change.change.begun(used, false));
                change.since = state.now;
                self.apply_step(state, i);
            }
            // The step `notify` publishes the message. Then the call may be made.
            ChangeAt::Next(ChangeStep::Publish) => {
                let change = &mut state.changes[i];
                let is_published =
                    matches!(change.notifying, Notifying::Awaiting(_) | Notifying::Over);
                if !is_published && !self.bends(Rule::PublishBeforeTheCall) {
                    return None;
                }
                change.at = ChangeAt::Next(change.change.published(true));
            }
            ChangeAt::Next(ChangeStep::Call { fenced }) => {
                let change = &mut state.changes[i];
                let outcome = change.called?;
                if fenced && !matches!(change.notifying, Notifying::Over) {
                    return None;
                }
                let outcome = match outcome {
                    Outcome::Unknown if self.bends(Rule::NoEndWhileTheCallMayHappen) => {
                        Outcome::Over
                    }
                    outcome => outcome,
                };
                change.at = ChangeAt::Next(change.change.called(outcome));
                self.apply_step(state, i);
            }
            ChangeAt::Next(ChangeStep::Renew) => {
                let stood = self.session_of(state, i).map(|_| {
                    let Changing { node, token, .. } = state.changes[i];
                    state.data_of(node).slot.renew(token)
                });
                let is_bent = self.bends(Rule::AnOpenChangeIsConfirmed);
                let change = &mut state.changes[i];
                change.at = ChangeAt::Next(match is_bent {
                    true => ChangeStep::Over(Conclusion::Open),
                    false => change.change.renewed(stood, false),
                });
                self.apply_step(state, i);
            }
            ChangeAt::Next(ChangeStep::End) => {
                let Some(session) = self.session_of(state, i) else {
                    let change = &mut state.changes[i];
                    change.at = ChangeAt::Next(change.change.ended(None, false));
                    self.apply_step(state, i);
                    return Some(());
                };
                let ended = self.end(state, i);
                state.changes[i].at = ChangeAt::EndReply(ended, session);
            }
            ChangeAt::EndReply(ended, session) => self.ended(state, i, ended, session),
            ChangeAt::Next(ChangeStep::Confirm) => self.confirm(state, i),
            ChangeAt::Next(ChangeStep::PublishAgain) => {
                let Notifying::Over = state.changes[i].notifying else {
                    return None;
                };
                let change = &mut state.changes[i];
                change.at = ChangeAt::Next(change.change.published_again(true));
                self.apply_step(state, i);
            }
            ChangeAt::Signing(at) => self.sign(state, i, at)?,
            ChangeAt::Purging { leases, entries } => self.purge(state, i, leases, entries)?,
            ChangeAt::Unqueued => state.changes[i].at = ChangeAt::Queued { session: None },
            ChangeAt::Queued { session } => self.run_queue(state, i, session)?,
            ChangeAt::Next(ChangeStep::Over(_))
            | ChangeAt::Acknowledged
            | ChangeAt::Unpromised
            | ChangeAt::Dead => return None,
        }
        Some(())
    }

    fn start(&self, state: &mut State, i: usize) {
        let before = state.returned();
        let change = &mut state.changes[i];
        change.before = before;
        let coherence = &state.nodes[change.node].coherence;
        if change.kind == Kind::Purge {
            // A garbage collection has deleted the object before the purge begins.
            state.backend = false;
            coherence.generations.flush();
            change.at = ChangeAt::Purging {
                leases: false,
                entries: false,
            };
            return;
        }
        change.fence = Some(coherence.generations.begin(&KEY));
        change.at = match change.kind {
            Kind::Signed => ChangeAt::Signing(Signing::Begin),
            _ => ChangeAt::Next(change.change.first()),
        };
    }

    /// Returns the connection of a change's node if it leads to the primary, or to an old primary
    /// that the node still takes for the primary.
    pub(super) fn session_of(&self, state: &State, i: usize) -> Option<u64> {
        let n = state.changes[i].node;
        let node = &state.nodes[n];
        let is_deceived =
            self.asks(n) && state.lags(n) && node.coherence.trusted(at(state.now)).is_some();
        node.session.filter(|_| state.reaches(n) || is_deceived)
    }

    /// Makes the node ask whether the server that executed the last step is still the primary.
    fn confirm(&self, state: &mut State, i: usize) {
        let change = &state.changes[i];
        let (n, used) = (change.node, change.used);
        let has_moved = state.lags(n);
        let stayed = !has_moved && self.session_of(state, i) == used;
        let stayed = stayed || self.bends(Rule::EndIsConfirmed);
        if has_moved && !stayed {
            self.disconnect(state, n);
        }
        let change = &mut state.changes[i];
        change.at = ChangeAt::Next(change.change.confirmed(Some(stayed)));
        self.apply_step(state, i);
    }

    /// Executes `BEGIN`.
    fn begin(&self, state: &mut State, i: usize) {
        let change = &mut state.changes[i];
        change.tries += 1;
        change.begins += 1;
        if !self.bends(Rule::AFreshTokenForEachTry) || change.tries == 1 {
            change.token = Token::of(10 * (1 + i as u64) + change.tries);
        }
        let (n, token, take_lease) = (change.node, change.token, change.kind == Kind::Put);
        self.execute_begin(&mut state.data_of(n).slot, token, take_lease);
    }

    pub(super) fn execute_begin(&self, slot: &mut Slot<()>, token: Token, take_lease: bool) {
        let before = slot.clone();
        slot.begin(token, take_lease);
        if self.bends(Rule::BeginRemovesTheLease) {
            slot.lease = before.lease;
        }
        if self.bends(Rule::BeginRemovesTheEntry) {
            slot.entry = before.entry;
        }
        if self.bends(Rule::TheFence) {
            slot.fence.clear();
        }
        if self.bends(Rule::TheFenceIsASet) {
            slot.fence.retain(|other| *other == token);
        }
    }

    /// Loses the reply to `BEGIN`. Redis may execute the command late. `again` says whether there
    /// is time for another try.
    pub(super) fn lose_begin(&self, state: &mut State, i: usize, again: bool) -> Option<()> {
        let change = &mut state.changes[i];
        if change.at != ChangeAt::Next(ChangeStep::Begin) {
            return None;
        }
        change.tries += 1;
        if !self.bends(Rule::AFreshTokenForEachTry) || change.tries == 1 {
            change.token = Token::of(10 * (1 + i as u64) + change.tries);
        }
        let server = state.redis.server;
        let late = LateCommand::Begin(server, change.token, change.kind == Kind::Put);
        change.at = ChangeAt::Next(change.change.begun(None, again));
        state.late.push(late);
        self.apply_step(state, i);
        state.spend(match again {
            true => Fault::LateBegin(i),
            false => Fault::LastBegin(i),
        })
    }

    /// Applies the consequences of a step that was just decided.
    fn apply_step(&self, state: &mut State, i: usize) {
        let change = &mut state.changes[i];
        if self.bends(Rule::TheFenceIsASet) && change.at == ChangeAt::Next(ChangeStep::PublishAgain)
        {
            // The node repeats the whole change after a lost fence.
            change.at = ChangeAt::Next(ChangeStep::Begin);
            change.notifying = Notifying::Not;
            if change.begins > 2 {
                state.violation = Some(Violation::Livelock);
            }
        }
        let change = &mut state.changes[i];
        match change.at {
            ChangeAt::Next(ChangeStep::PublishAgain) => change.notifying = Notifying::Not,
            ChangeAt::Next(ChangeStep::Over(conclusion)) => {
                change.at = match conclusion {
                    Conclusion::Done => ChangeAt::Acknowledged,
                    Conclusion::Refused | Conclusion::Open => ChangeAt::Unpromised,
                    Conclusion::Queued if self.bends(Rule::RemovalsAreStrict) => {
                        ChangeAt::Acknowledged
                    }
                    Conclusion::Queued if self.bends(Rule::QueuedBeforeTheFencesEnd) => {
                        ChangeAt::Unqueued
                    }
                    Conclusion::Queued => ChangeAt::Queued { session: None },
                };
                let generations = &state.nodes[change.node].coherence.generations;
                // If the caller was promised nothing, the fence in memory stays.
                if change.at != ChangeAt::Unpromised
                    && change.called != Some(Outcome::Unknown)
                    && let Some(fence) = change.fence.take()
                {
                    generations.end(fence);
                }
            }
            _ => {}
        }
    }

    /// Makes the backend's call.
    pub(super) fn call(&self, state: &mut State, i: usize) -> Option<()> {
        if state.changes[i].kind == Kind::Signed {
            return self.call_signed(state, i);
        }
        let change = &mut state.changes[i];
        let is_early = self.bends(Rule::BeginBeforeTheBackend)
            && change.at == ChangeAt::Next(ChangeStep::Begin);
        if change.called.is_some()
            || !(is_early || matches!(change.at, ChangeAt::Next(ChangeStep::Call { .. })))
        {
            return None;
        }
        state.backend = change.kind == Kind::Put;
        change.called = Some(match change.kind {
            Kind::Put => Outcome::Written,
            Kind::Delete | Kind::Purge | Kind::Replace | Kind::Signed => Outcome::Over,
        });
        Some(())
    }

    /// Makes a change give up its call. The call may still happen.
    pub(super) fn give_call_up(&self, state: &mut State, i: usize) -> Option<()> {
        let change = &mut state.changes[i];
        if change.called.is_some() || !matches!(change.at, ChangeAt::Next(ChangeStep::Call { .. }))
        {
            return None;
        }
        change.called = Some(Outcome::Unknown);
        let kind = change.kind;
        state.late.push(LateCommand::Call(kind));
        state.spend(Fault::LateCall(i))
    }

    /// Executes `END`.
    fn end(&self, state: &mut State, i: usize) -> EndReply {
        let change = &state.changes[i];
        let (n, token, kind) = (change.node, change.token, change.kind);
        let written = (kind == Kind::Put && change.called == Some(Outcome::Written)).then_some(());
        let slot = &mut state.data_of(n).slot;
        let lease = slot.lease;
        let mut ended = slot.end(token, written);
        if self.bends(Rule::EndRemovesTheLease) {
            slot.lease = lease;
        }
        if self.bends(Rule::EndChecksItsToken) || self.bends(Rule::TheFence) {
            ended.stood = true;
        }
        ended
    }

    fn ended(&self, state: &mut State, i: usize, ended: EndReply, session: u64) {
        let change = &mut state.changes[i];
        change.used = Some(session);
        let used = change.change.used().cloned();
        let used = used.filter(|_| self.bends(Rule::AnotherConnectionIsALostFence));
        let used = used.unwrap_or_else(|| UsedConnections::one(session));
        let fence = change.fence.take();
        let read_stamp = fence.and_then(|fence| {
            let generations = &state.nodes[change.node].coherence.generations;
            generations.end(fence)
        });
        if let (true, Some(read_stamp)) = (ended.filled, read_stamp) {
            state.nodes[change.node].memory = Some(read_stamp.stamp());
        }
        change.at = ChangeAt::Next(change.change.ended(Some((ended, &used)), false));
        self.apply_step(state, i);
    }

    /// Takes the next step of the retry queue: it removes the keys of a change, and notifies the
    /// other nodes.
    fn run_queue(&self, state: &mut State, i: usize, session: Option<u64>) -> Option<()> {
        let now = self.session_of(state, i);
        let Some(before) = session else {
            state.changes[i].at = ChangeAt::Queued { session: now };
            now?;
            let change = &mut state.changes[i];
            change.tries += 1;
            change.notifying = Notifying::Not;
            let token = Token::of(10 * (1 + i as u64) + change.tries);
            let is_open = change.called == Some(Outcome::Unknown);
            let n = change.node;
            let slot = &mut state.data_of(n).slot;
            self.execute_begin(slot, token, false);
            if !is_open {
                slot.end(token, None);
            }
            return Some(());
        };
        let change = &mut state.changes[i];
        if !matches!(change.notifying, Notifying::Over)
            && !self.bends(Rule::QueuedUntilTheNodesAreNotified)
        {
            // If the connection was lost before the other nodes were notified, the queue begins
            // again.
            if now == session || !matches!(change.notifying, Notifying::Not) {
                return None;
            }
            change.at = ChangeAt::Queued { session: None };
            return Some(());
        }
        let has_moved = {
            let n = change.node;
            state.lags(n) && self.disconnect(state, n).is_some()
        };
        let change = &mut state.changes[i];
        change.at = match change.called {
            _ if has_moved || now != Some(before) => ChangeAt::Queued { session: None },
            Some(Outcome::Unknown) => ChangeAt::Unpromised,
            _ => ChangeAt::Acknowledged,
        };
        Some(())
    }

    fn purge(&self, state: &mut State, i: usize, leases: bool, entries: bool) -> Option<()> {
        let n = state.changes[i].node;
        let next = |state: &mut State, leases, entries| {
            state.changes[i].at = ChangeAt::Purging { leases, entries };
        };
        if self.bends(Rule::PurgeFlushesLast)
            && matches!(state.changes[i].notifying, Notifying::Not)
        {
            state.changes[i].notifying = Notifying::Awaiting(self.publish(state, i)?);
            return Some(());
        }
        self.session_of(state, i)?;
        let slot = &mut state.redis.data.slot;
        let entries_first = self.bends(Rule::PurgeTakesLeasesFirst);
        match (leases, entries) {
            (false, false) if entries_first => {
                slot.entry = None;
                next(state, false, true);
            }
            (false, _) => {
                slot.lease = None;
                next(state, true, entries);
            }
            (true, false) => {
                slot.entry = None;
                next(state, true, true);
            }
            (true, true) => {
                let Notifying::Over = state.changes[i].notifying else {
                    return None;
                };
                state.nodes[n].coherence.generations.flush();
                state.changes[i].at = ChangeAt::Acknowledged;
            }
        }
        Some(())
    }

    /// Executes a command or a call that was given up.
    pub(super) fn execute_late(&self, state: &mut State, i: usize) -> Option<()> {
        let server = state.redis.server;
        match state.late.remove(i) {
            LateCommand::Begin(of, token, take_lease) if of == server => {
                self.execute_begin(&mut state.redis.data.slot, token, take_lease);
            }
            LateCommand::Grant(of, token, steal) if of == server => {
                state.redis.data.slot.grant(token, steal);
            }
            LateCommand::Fill(of, token) if of == server => drop(self.fill(state, token)),
            LateCommand::Begin(..) | LateCommand::Grant(..) | LateCommand::Fill(..) => {}
            LateCommand::Call(kind) => state.backend = kind == Kind::Put,
        }
        Some(())
    }

    /// Renews the fence of a change.
    pub(super) fn renew(&self, state: &mut State, i: usize) -> Option<()> {
        let Changing { at, token, .. } = state.changes[i].clone();
        if !matches!(at, ChangeAt::Next(ChangeStep::Call { .. })) {
            return None;
        }
        let slot = &mut state.redis.data.slot;
        if !slot.renew(token) && self.bends(Rule::RenewalNeverRecreates) {
            slot.fence.insert(token);
        }
        state.spend(Fault::Renewal(i))
    }
}
