//! Models a signed URL that deletes. A client may call it at any time until it expires. Its fence
//! may be lost meanwhile, and the node sets it again.

use super::Model;
use super::state::State;
use super::state::change::{ChangeAt, Notifying, Signing};
use crate::coherence::change::Outcome;
use crate::coherence::lease::Token;
use crate::coherence::rules::Rule;

/// The most times that a signed URL's fence is set.
const MOST: u64 = 2;

impl Model {
    /// Takes the next step of a signed URL. In the model a client always calls the URL before it
    /// expires.
    pub(super) fn sign(&self, state: &mut State, i: usize, at: Signing) -> Option<()> {
        let change = &state.changes[i];
        let next = match at {
            Signing::Begin => {
                self.set_fence(state, i)?;
                Signing::Notify
            }
            Signing::Notify => {
                let Notifying::Over = change.notifying else {
                    return None;
                };
                if self.bends(Rule::SignedFenceStands) {
                    self.remove_fence(state, i)?;
                }
                Signing::Open
            }
            Signing::Open => {
                change.called?;
                self.remove_fence(state, i)?;
                state.changes[i].notifying = Notifying::Not;
                Signing::Expired
            }
            Signing::Expired => {
                let is_told = matches!(change.notifying, Notifying::Over);
                if !is_told && !self.bends(Rule::SignedEndNotifies) {
                    return None;
                }
                let change = &mut state.changes[i];
                change.at = ChangeAt::Acknowledged;
                let generations = &state.nodes[change.node].coherence.generations;
                if let Some(fence) = change.fence.take() {
                    generations.end(fence);
                }
                return Some(());
            }
        };
        state.changes[i].at = ChangeAt::Signing(next);
        Some(())
    }

    /// Sets a lost fence again, and notifies the other nodes without awaiting them.
    pub(super) fn sign_again(&self, state: &mut State, i: usize) -> Option<()> {
        let (n, token) = (state.changes[i].node, state.changes[i].token);
        if state.changes[i].tries == MOST || state.data_of(n).slot.fence.contains(&token) {
            return None;
        }
        self.set_fence(state, i)?;
        self.publish(state, i)?;
        Some(())
    }

    fn set_fence(&self, state: &mut State, i: usize) -> Option<()> {
        self.session_of(state, i)?;
        let change = &mut state.changes[i];
        change.tries += 1;
        change.token = Token::of(10 * (1 + i as u64) + change.tries);
        let (n, token) = (change.node, change.token);
        self.execute_begin(&mut state.data_of(n).slot, token, false);
        Some(())
    }

    fn remove_fence(&self, state: &mut State, i: usize) -> Option<()> {
        self.session_of(state, i)?;
        let (n, token) = (state.changes[i].node, state.changes[i].token);
        state.data_of(n).slot.end(token, None);
        Some(())
    }

    /// A client that has the URL makes its call to the backend.
    pub(super) fn call_signed(&self, state: &mut State, i: usize) -> Option<()> {
        let (n, token) = (state.changes[i].node, state.changes[i].token);
        let stands = state.data_of(n).slot.fence.contains(&token);
        let change = &mut state.changes[i];
        if change.called.is_some() || change.at != ChangeAt::Signing(Signing::Open) {
            return None;
        }
        change.called = Some(Outcome::Over);
        let stands = stands || self.bends(Rule::SignedFenceStands);
        change.is_promised = stands && change.tries == 1;
        state.backend = false;
        Some(())
    }
}
