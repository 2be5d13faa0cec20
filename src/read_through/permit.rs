//! A permit: the right of one who reads from the backend by itself to fill what it has read.

use super::{Backend, ReadThrough};
use crate::cache::memory::Rights;
use crate::cache::shared::{Facts, Leases, Question};
use crate::coherence::lease::Token;
use futures::FutureExt;
use tokio::runtime::Handle;

/// The right to fill both tiers with what is read from here on. Its leases are given back when it is
/// dropped, in a task of its own: who fails or goes away blocks nobody.
#[derive(Debug)]
pub(crate) struct Permit<B: Backend> {
    core: ReadThrough<B>,
    question: Question,
    rights: Rights,
    leases: Leases,
}

impl<B: Backend> ReadThrough<B> {
    /// The right to fill what the caller is about to read from the backend by itself: one round trip
    /// to Redis.
    pub(crate) async fn permit(&self, question: &Question) -> Permit<B> {
        self.permit_to(question, false).await
    }

    /// The same, where what is there is to be replaced.
    pub(crate) async fn permit_anew(&self, question: &Question) -> Permit<B> {
        self.permit_to(question, true).await
    }

    async fn permit_to(&self, question: &Question, anew: bool) -> Permit<B> {
        let token = Token::random();
        let mut permit = Permit {
            core: self.clone(),
            question: question.clone(),
            rights: self.cache().rights(question),
            // Who goes away before there is an answer may have been granted all of them.
            leases: Leases::of_all(question, token),
        };
        // Of a link Redis knows the membership alone, so what it has is no reason not to remember the
        // object.
        let steal = anew || matches!(question, Question::Link(_));
        permit.leases = self.cache().try_lease(question, token, steal).await;
        permit
    }
}

impl<B: Backend> Permit<B> {
    /// Fills what was read from the backend: memory alone at once, with Redis in a task of its own.
    pub(crate) fn fill(mut self, facts: Facts) {
        let core = self.core.clone();
        let (rights, leases) = (self.rights, std::mem::take(&mut self.leases));
        let has_shared = core.cache().has_shared();
        let fill = async move { core.cache().fill(facts, rights, leases).await };
        match has_shared {
            true => drop(tokio::spawn(fill)),
            false => fill.now_or_never().unwrap_or_default(),
        }
    }
}

impl<B: Backend> Drop for Permit<B> {
    fn drop(&mut self) {
        let leases = std::mem::take(&mut self.leases);
        if leases == Leases::default() || !self.core.cache().has_shared() {
            return;
        }
        // Without a runtime they lapse by themselves.
        if let Ok(runtime) = Handle::try_current() {
            let (core, keys) = (self.core.clone(), self.question.keys());
            runtime.spawn(async move { core.cache().release(&keys, leases).await });
        }
    }
}
