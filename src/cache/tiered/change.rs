//! Changes of the tiers: what is cached is taken away before the backend is touched, and kept away
//! until it is known to be over.

use super::TieredCache;
use crate::cache::memory::{Rights, jittered};
use crate::cache::shared::{Facts, Member, Token};
use crate::coherence::generation::Fence;
use crate::link::Key;
use crate::{Error, Link};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// A change that is under way.
#[derive(Debug)]
pub(crate) struct Change {
    keys: Vec<Key>,
    fences: Vec<Fence>,
    token: Token,
}

/// How often the fences of a change are renewed: a third of the time that they stand.
const RENEWAL: Duration = Duration::from_secs(10);

impl TieredCache {
    /// Begins a change: nothing of these keys is answered from memory or filled until it ends, and
    /// when this returns Redis has nothing of them either. Where that fails the change is over. A
    /// change that is to fill the one link it writes takes the lease for it.
    pub(crate) async fn begin(&self, keys: Vec<Key>, take_lease: bool) -> Result<Change, Error> {
        let generations = self.memory.generations();
        let change = Change {
            fences: keys.iter().map(|key| generations.begin(key)).collect(),
            keys,
            token: Token::random(),
        };
        let Some(shared) = &self.shared else {
            return Ok(change);
        };
        match shared
            .tier
            .begin(&change.keys, change.token, take_lease)
            .await
        {
            Ok(()) => Ok(change),
            Err(source) => {
                for fence in change.fences {
                    generations.end(fence);
                }
                self.work.changes_refused.increment(1);
                let source = Arc::new(source);
                Err(Error::ChangeRefused { source })
            }
        }
    }

    /// Returns when no other node can answer what was before the change began.
    ///
    /// # Errors
    /// If the others could not be told.
    pub(crate) async fn announce(&self, change: &Change) -> Result<(), Error> {
        match &self.shared {
            Some(shared) => shared.tier.announce(&change.keys).await,
            None => Ok(()),
        }
    }

    /// Keeps a change's fences standing, for as long as this is polled.
    pub(crate) async fn keep(&self, change: &Change) -> Infallible {
        let Some(shared) = &self.shared else {
            return std::future::pending().await;
        };
        loop {
            sleep(RENEWAL).await;
            if let Err(error) = shared.tier.renew(&change.keys, change.token).await {
                tracing::debug!(%error, "a fence was not renewed");
            }
        }
    }

    /// Ends a change whose backend call is over, and fills the link that it `written`, unless
    /// somebody else has changed it meanwhile.
    ///
    /// # Errors
    /// If Redis could not be told: the change is done and nothing is filled until its fence lapses,
    /// but whether that stood all the while is not known.
    pub(crate) async fn end(&self, change: Change, written: Option<&Link>) -> Result<(), Error> {
        let ended = self.end_shared(&change, written).await;
        let generations = self.memory.generations();
        let ends = change
            .fences
            .into_iter()
            .map(|fence| generations.end(fence));
        let rights: Vec<_> = ends.collect();
        if let (Ok(true), Some(link), [right]) = (&ended, written, &rights[..]) {
            let member = Some((link.clone(), Member::default()));
            let rights = Rights {
                member: *right,
                meta: None,
            };
            self.memory.fill(&Facts { member, meta: None }, rights);
        }
        ended.map(drop)
    }

    /// Whether memory may be filled with what was written.
    async fn end_shared(&self, change: &Change, written: Option<&Link>) -> Result<bool, Error> {
        let Some(shared) = &self.shared else {
            return Ok(true);
        };
        let (keys, token) = (&change.keys, change.token);
        let ttl = jittered(shared.ttl);
        let ended = shared.tier.end(keys, token, written, ttl).await?;
        if !ended.stood {
            // While the fence was gone somebody may have read and filled what was before.
            shared.tier.announce(keys).await?;
        }
        Ok(ended.filled)
    }

    /// Takes keys away everywhere, because the backend denied what they say.
    pub(crate) async fn heal(&self, keys: &[Key]) {
        self.work.heals.increment(1);
        for key in keys {
            self.memory.generations().bump(key);
        }
        let Some(shared) = &self.shared else { return };
        if let Err(error) = shared.tier.withdraw(keys).await {
            tracing::debug!(%error, "what the backend denied may still be cached");
        }
    }
}
