//! A signed URL that deletes: its call happens at any time until it expires, and its fence may be lost
//! and put up again meanwhile.

use super::Model;
use super::rules::Rule;
use super::state::{ChangeAt, State, Telling};
use crate::coherence::change::Outcome;
use crate::coherence::lease::Token;

/// How often a fence is put up, at most.
const MOST: u64 = 2;

/// Where a signed URL is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Signing {
    /// Its fence is to be put up.
    Begin,
    /// All nodes are told, and waited for.
    Tell,
    /// It is given out.
    Open,
    /// It has expired; all nodes are told, and waited for.
    Expired,
}

impl Model {
    /// The next step of a signed URL. A client calls it before it expires.
    pub(super) fn sign(&self, state: &mut State, i: usize, at: Signing) -> Option<()> {
        let change = &state.changes[i];
        let next = match at {
            Signing::Begin => {
                self.put_up(state, i)?;
                Signing::Tell
            }
            Signing::Tell => {
                let Telling::Over = change.telling else {
                    return None;
                };
                if self.bends(Rule::SignedFenceStands) {
                    self.take_down(state, i)?;
                }
                Signing::Open
            }
            Signing::Open => {
                change.called?;
                self.take_down(state, i)?;
                state.changes[i].telling = Telling::Not;
                Signing::Expired
            }
            Signing::Expired => {
                let is_told = matches!(change.telling, Telling::Over);
                if !is_told && !self.bends(Rule::SignedEndTells) {
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

    /// The node puts a fence up again that is lost, and tells the others; it waits for nobody.
    pub(super) fn sign_again(&self, state: &mut State, i: usize) -> Option<()> {
        let (n, token) = (state.changes[i].node, state.changes[i].token);
        if state.changes[i].tries == MOST || state.data_of(n).slot.fence.contains(&token) {
            return None;
        }
        self.put_up(state, i)?;
        self.publish(state, i)?;
        Some(())
    }

    fn put_up(&self, state: &mut State, i: usize) -> Option<()> {
        self.session_of(state, i)?;
        let change = &mut state.changes[i];
        change.tries += 1;
        change.token = Token::of(10 * (1 + i as u64) + change.tries);
        let (n, token) = (change.node, change.token);
        self.execute_begin(&mut state.data_of(n).slot, token, false);
        Some(())
    }

    fn take_down(&self, state: &mut State, i: usize) -> Option<()> {
        self.session_of(state, i)?;
        let (n, token) = (state.changes[i].node, state.changes[i].token);
        state.data_of(n).slot.end(token, None);
        Some(())
    }

    /// A client that has the URL makes its call.
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
