//! Claims: the leases of one who is about to read of many keys at once.

use super::{Backend, ReadThrough};
use crate::Error;
use crate::cache::memory::Rights;
use crate::cache::shared::{Facts, Found, Leases, Question};
use crate::coherence::lease::{Grant, Token};
use crate::link::Key;
use foldhash::fast::RandomState;
use std::collections::{HashMap, HashSet};
use tokio::runtime::Handle;

/// The leases to fill both tiers with what is read from here on. Those that are left are given back
/// when this is dropped, in a task of its own: who fails or goes away blocks nobody.
#[derive(Debug)]
pub(crate) struct Claims<B: Backend> {
    core: ReadThrough<B>,
    token: Token,
    grants: HashMap<Key, Grant, RandomState>,
}

impl<B: Backend> ReadThrough<B> {
    /// Claims what these ask of: leases where nothing is there, nobody is about to fill it and it is
    /// not being changed.
    pub(crate) async fn claim(
        &self,
        questions: impl Iterator<Item = &Question>,
    ) -> Result<Claims<B>, Error> {
        let mut seen = HashSet::with_hasher(RandomState::default());
        let mut keys: Vec<_> = questions.flat_map(Question::keys).collect();
        keys.retain(|key| seen.insert(key.clone()));
        let mut claims = Claims {
            core: self.clone(),
            token: Token::random(),
            // Who goes away before there is an answer may have been granted all of them.
            grants: keys
                .iter()
                .cloned()
                .map(|key| (key, Grant::Granted))
                .collect(),
        };
        let grants = self.cache().claim(&keys, claims.token).await?;
        claims.grants = keys.into_iter().zip(grants).collect();
        Ok(claims)
    }

    /// Asks the backend itself; `None` if it denies what is asked. One of those whose number
    /// [`Limits`](crate::Limits) bounds.
    pub(crate) async fn ask_alone(&self, question: &Question) -> Result<Option<Facts>, Error> {
        let _turn = self.inner.flights.turn().await;
        let found = self.ask_backend(question, Found::default()).await?;
        let found = found.found(false);
        let answers = found.is_whole(question);
        Ok(answers.then(|| found.of(question)))
    }
}

impl<B: Backend> Claims<B> {
    pub(crate) fn has(&self, key: &Key, grant: Grant) -> bool {
        self.grants.get(key) == Some(&grant)
    }

    /// What of these there is a lease for.
    pub(crate) fn granted(&self, facts: Facts) -> Facts {
        let granted = |key: Key| self.has(&key, Grant::Granted);
        Facts {
            member: facts
                .member
                .filter(|(link, _)| granted(Key::Link(link.clone()))),
            meta: facts.meta.filter(|(key, _)| granted(key.clone().into())),
        }
    }

    /// Fills the tiers with what was read under these claims. Says of each whether any of it was
    /// accepted.
    pub(crate) async fn fill(
        &mut self,
        facts: Vec<Facts>,
        rights: &[Rights],
    ) -> Result<Vec<bool>, Error> {
        let keys: Vec<_> = facts.iter().flat_map(Facts::keys).collect();
        let accepted = self
            .core
            .cache()
            .fill_all(facts, rights, self.token)
            .await?;
        for key in keys {
            self.grants.remove(&key);
        }
        Ok(accepted)
    }
}

impl<B: Backend> Drop for Claims<B> {
    fn drop(&mut self) {
        let grants = self.grants.drain();
        let unused = grants.filter(|(_, grant)| *grant == Grant::Granted);
        let unused: Vec<_> = unused.map(|(key, _)| key).collect();
        // Without a runtime they lapse by themselves.
        if let (false, Ok(runtime)) = (unused.is_empty(), Handle::try_current()) {
            let (core, token) = (self.core.clone(), self.token);
            let leases = Leases {
                member: Some(token),
                meta: Some(token),
            };
            runtime.spawn(async move { core.cache().release(&unused, leases).await });
        }
    }
}
