//! Checks the protocol with a model: nodes share a Redis and a backend, and faults happen in any
//! order.
//!
//! The model runs the node's own decisions: [`Coherence`](super::Coherence),
//! [`PeerTracker`](super::peers::PeerTracker), [`Load`](super::load::Load),
//! [`Change`](super::change::Change), [`Arrival`](super::flight::Arrival), and
//! [`Slot`](super::slot::Slot) in place of the scripts. Between any two of its steps, any other
//! step may happen. The model has one key, because keys do not depend on each other.
//!
//! A test can bend a rule. Then the model must find what breaks. Each such test also proves that
//! the model is able to find that fault. [`rules`](super::rules) lists the rules. The simulation of
//! whole nodes bends the same rules in the code.

mod changes;
mod channel;
mod faults;
mod initial;
mod notify;
mod reads;

mod signed;
mod state;
mod tests;
mod ticks;

use crate::coherence::change::{Change, ChangePolicy};
use crate::coherence::rules::Rule;
use faults::Fault;
use initial::Has;
use state::State;
use state::change::{ChangeAt, Changing, Kind};
use state::read::{LoadAt, Loading, ReadAt, Reader};
use stateright::Property;

/// Describes one world to explore.
#[derive(Debug, Clone)]
struct Model {
    bent: Option<Rule>,
    has: Vec<Has>,
    /// The node of each read.
    reads: Vec<usize>,
    /// The node and kind of each change.
    changes: Vec<(usize, Kind)>,
    faults: Vec<Fault>,
    /// How many heartbeats each node sends.
    beats: Vec<u8>,
    /// How often each node asks whether the primary has moved. Default: never.
    checks: Vec<u8>,
    /// For how many ticks each node trusts its memory. Default: 1.
    trusts: Vec<u8>,
    /// The last tick.
    ticks: u8,
    /// A node that joins the others only later.
    absent: Option<usize>,
}

/// P1 and P3: a read that begins after a change was acknowledged is never answered with the state
/// before that change.
const ANSWERS: &str = "no answer from before";

/// P2: after any crash, no tier is left with something that the backend does not have.
const REST: &str = "nothing stale at rest";

/// A step of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Action {
    Tick,
    Read(usize),
    StopWaiting(usize),
    Load(usize),
    Change(usize),
    Call(usize),
    Notify(usize),
    Beat(usize),
    Note(usize),
    Apply(usize, usize),
    Connect(usize),
    Check(usize),
    ExecuteLate(usize),
    Fault(Fault),
}

impl Model {
    fn bends(&self, rule: Rule) -> bool {
        self.bent == Some(rule)
    }

    /// Returns whether a node has to know that the primary has not moved.
    fn asks(&self, n: usize) -> bool {
        let asks = self.checks.get(n).is_some_and(|checks| *checks > 0);
        asks && !self.bends(Rule::StandingNeedsThePlace)
    }

    fn fault(&self, state: &mut State, fault: Fault) -> Option<()> {
        match fault {
            Fault::LateBegin(i) => return self.lose_begin(state, i, true),
            Fault::LastBegin(i) => return self.lose_begin(state, i, false),
            Fault::LateCall(i) => return self.give_call_up(state, i),
            Fault::Renewal(i) => return self.renew(state, i),
            Fault::LateGrant => return self.lose_grant(state),
            Fault::LateFill => {
                let filling = |load: &Loading| load.at == LoadAt::Fill;
                let load = state.loads.iter().position(filling)?;
                return self.give_fill_up(state, load);
            }
            _ => {}
        }
        state.spend(fault)?;
        let data = &mut state.redis.data;
        match fault {
            Fault::EvictEntry => data.slot.entry.take()?,
            Fault::EvictLease => drop(data.slot.lease.take()?),
            Fault::EvictFence if data.slot.fence.is_empty() => return None,
            Fault::EvictFence => data.slot.fence.clear(),
            Fault::EvictPeerSet => drop(data.nodes.take()?),
            Fault::Disconnect(n) => self.disconnect(state, n)?,
            Fault::SetClock(ahead) => state.redis.ahead += ahead,
            Fault::Lag => state.redis.replica = Some(data.clone()),
            Fault::Restart => {
                state.redis.server += 1;
                (data.slot, data.nodes) = Default::default();
                // The server is empty, so there is nothing to purge.
                data.recorded = state.redis.server;
            }
            Fault::Failover => self.fail_over(state)?,
            Fault::HandOver => {
                state.redis.before = Some((state.redis.server, data.clone()));
                state.redis.server += 1;
            }
            Fault::Crash(i) => {
                let change = &mut state.changes[i];
                // A change in the retry queue of a node that dies is not modelled: the time to live
                // bounds its effect.
                if matches!(change.at, ChangeAt::Idle | ChangeAt::Queued { .. })
                    || change.at.is_over()
                {
                    return None;
                }
                change.at = ChangeAt::Dead;
                // The fence of a dead change expires.
                state.faults.push(Fault::EvictFence);
            }
            Fault::LateBegin(_)
            | Fault::LastBegin(_)
            | Fault::LateCall(_)
            | Fault::LateGrant
            | Fault::LateFill
            | Fault::Renewal(_) => {}
        }
        Some(())
    }
}

impl stateright::Model for Model {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let state = |has: &Has| State {
            readers: self.reads.iter().map(|node| Reader::new(*node)).collect(),
            changes: self
                .changes
                .iter()
                .map(|(node, kind)| {
                    let policy = match self.bends(Rule::RemovalsAreStrict) {
                        true => ChangePolicy::BestEffort,
                        false => ChangePolicy::StrictRemovals,
                    };
                    Changing::new(*node, *kind, Change::new(policy, kind.of_change()))
                })
                .collect(),
            faults: self.faults.clone(),
            ..self.initial(*has)
        };
        let absent = |state: State| match self.absent {
            Some(n) => state.absent(n),
            None => state,
        };
        self.has.iter().map(state).map(absent).collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        // No later step undoes a violation.
        if state.violation.is_some() {
            return;
        }
        // For speed, the plainly impossible steps are left out here. The other impossible steps
        // return `None`.
        for (i, reader) in state.readers.iter().enumerate() {
            match reader.at {
                ReadAt::Waiting(_) => {
                    actions.extend([Action::Read(i), Action::StopWaiting(i)]);
                }
                ReadAt::Joined { .. } | ReadAt::Done => {}
                _ => actions.push(Action::Read(i)),
            }
            // All reads are alike, so the second one begins only after the first one.
            if reader.at == ReadAt::Idle {
                break;
            }
        }
        actions.extend((0..state.loads.len()).map(Action::Load));
        for (i, change) in state.changes.iter().enumerate() {
            match change.at {
                at if at.is_over() => continue,
                _ => actions.push(Action::Change(i)),
            }
            if change.at != ChangeAt::Idle {
                if change.called.is_none() {
                    actions.push(Action::Call(i));
                }
                actions.push(Action::Notify(i));
            }
        }
        for (n, node) in state.nodes.iter().enumerate() {
            match node.beat {
                None if node.beats > 0 => actions.push(Action::Beat(n)),
                Some(_) => actions.push(Action::Note(n)),
                None => {}
            }
            if node.session.is_some() && (node.checks > 0 || node.check.is_some()) {
                actions.push(Action::Check(n));
            }
            if !state.reaches(n) || !node.has_shared_channel {
                actions.push(Action::Connect(n));
            }
            let reach = match self.bends(Rule::HeartbeatInOrder) {
                true => node.inbox.len(),
                false => node.inbox.len().min(1),
            };
            actions.extend((0..reach).map(|i| Action::Apply(n, i)));
        }
        actions.extend((0..state.late.len()).map(Action::ExecuteLate));
        let mut faults = state.faults.clone();
        faults.sort_unstable();
        faults.dedup();
        actions.extend(faults.into_iter().map(Action::Fault));
        if state.now < self.ticks {
            actions.push(Action::Tick);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        match action {
            Action::Tick => {
                next.now += 1;
                Some(())
            }
            Action::Read(i) => self.read(&mut next, i),
            Action::StopWaiting(i) => self.stop_waiting(&mut next, i),
            Action::Load(i) => self.load(&mut next, i),
            Action::Change(i) => self.change(&mut next, i),
            Action::Call(i) => self.call(&mut next, i),
            Action::Notify(i) => self.notify(&mut next, i),
            Action::Beat(n) => self.beat(&mut next, n),
            Action::Note(n) => self.note(&mut next, n),
            Action::Apply(n, i) => self.on_message(&mut next, n, i),
            Action::Connect(n) => self.connect(&mut next, n),
            Action::Check(n) => self.check(&mut next, n),
            Action::ExecuteLate(i) => self.execute_late(&mut next, i),
            Action::Fault(fault) => self.fault(&mut next, fault),
        }?;
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ANSWERS, |_, state: &State| state.violation.is_none()),
            Property::always(REST, |_, state: &State| {
                !(state.is_at_rest() && state.is_stale())
            }),
        ]
    }
}
