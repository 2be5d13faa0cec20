//! [`FenceKeeper`]: how are the fences of signed URLs put up in Redis, and ended?

use super::Shared;
use super::retry_queue::RetryQueue;
use crate::cache::deadline::Deadline;
use crate::cache::shared::{SharedSettings, SharedTier};
use crate::coherence::lease::Token;
use crate::coherence::rules::{Rule, kept};
use crate::coherence::used_connections::UsedConnections;
use crate::types::link::Key;
use crate::types::{BoxError, Error};
use futures::future::{BoxFuture, try_join, try_join_all};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The pause before fences are put up again, because another server is the primary now.
const PAUSE: Duration = Duration::from_millis(20);

/// How many fences the node renews or ends at the same time.
pub(super) const PARALLEL: usize = 64;

/// The fence of a signed URL in Redis.
#[derive(Debug, Clone)]
pub(super) struct SignedFence {
    pub(super) token: Token,
    /// The connections that its `BEGIN` used.
    pub(super) through: UsedConnections,
    /// Until when the fence stands without a renewal.
    pub(super) stands_until: Instant,
    pub(super) checked: Instant,
}

/// Puts up the fences of signed URLs in Redis, and ends them.
#[derive(Debug, Clone)]
pub(super) struct FenceKeeper {
    pub(super) tier: Arc<dyn SharedTier>,
    pub(super) queue: Arc<RetryQueue>,
    pub(super) settings: SharedSettings,
}

impl FenceKeeper {
    pub(super) fn of(shared: &Shared) -> Self {
        Self {
            tier: Arc::clone(&shared.tier),
            queue: Arc::clone(&shared.queue),
            settings: shared.settings,
        }
    }

    /// Puts up fences that stand for `time`, and tells all nodes. The returned future is ready when
    /// no other node can answer with an older value.
    pub(super) async fn begin(
        &self,
        keys: &[Key],
        time: Duration,
        deadline: Deadline,
    ) -> Result<(SignedFence, BoxFuture<'static, ()>), Error> {
        loop {
            let (begun, others) = self.put_up(keys, time, deadline).await?;
            // If another server is the primary now, it does not know of the fences.
            match self.confirm(&begun.through, deadline).await {
                Ok(true) => return Ok((begun, others)),
                Ok(false) if !deadline.is_over() => {
                    self.lift(keys, begun.token);
                    sleep(PAUSE).await;
                }
                failed => {
                    self.lift(keys, begun.token);
                    return Err(failed.err().unwrap_or_else(lost));
                }
            }
        }
    }

    /// Returns whether the servers behind these connections are still the primaries.
    pub(super) async fn confirm(
        &self,
        through: &UsedConnections,
        deadline: Deadline,
    ) -> Result<bool, Error> {
        match kept(Rule::ASignedFenceIsConfirmed) {
            true => self.tier.stands(through, deadline).await,
            false => Ok(true),
        }
    }

    async fn put_up(
        &self,
        keys: &[Key],
        time: Duration,
        deadline: Deadline,
    ) -> Result<(SignedFence, BoxFuture<'static, ()>), Error> {
        let token = Token::random();
        let begun = async {
            // For a short time at first: if the message fails, the fence must not stand for long.
            let through = self.tier.begin(keys, token, false, deadline).await?;
            let told = self.tier.publish(keys, deadline);
            let renewed = self.tier.renew(keys, token, time, deadline);
            let (others, stood) = try_join(told, renewed).await?;
            match stood {
                true => Ok((through, others)),
                false => Err(lost()),
            }
        };
        match begun.await {
            Ok((through, others)) => {
                let now = Instant::now();
                let begun = SignedFence {
                    token,
                    through,
                    stands_until: now + time,
                    checked: now,
                };
                Ok((begun, others))
            }
            Err(error) => {
                // `BEGIN` may have been executed.
                self.lift(keys, token);
                Err(error)
            }
        }
    }

    /// Removes fences that no URL needs.
    fn lift(&self, keys: &[Key], token: Token) {
        let (kept, keys) = (self.clone(), keys.to_vec());
        tokio::spawn(async move {
            let deadline = kept.settings.removal_deadline();
            let ttl = kept.settings.ttl;
            let _ = kept.tier.end(&keys, token, None, ttl, deadline).await;
        });
    }

    /// Ends the changes of these keys: removes their fences, and tells all nodes. Fails if a fence
    /// or a connection was lost.
    pub(super) async fn end(
        &self,
        expired: &[(Key, Option<SignedFence>, Instant)],
        keys: &[Key],
    ) -> Result<(), Error> {
        let deadline = self.settings.removal_deadline();
        let mut through = UsedConnections::default();
        for expired in expired.chunks(PARALLEL) {
            let end = |(key, begun, _): &(Key, Option<SignedFence>, Instant)| {
                let (key, token) = ([key.clone()], begun.as_ref().map(|begun| begun.token));
                async move {
                    let token = token.ok_or_else(lost)?;
                    let ttl = self.settings.ttl;
                    self.tier.end(&key, token, None, ttl, deadline).await
                }
            };
            for (_, ended) in try_join_all(expired.iter().map(end)).await? {
                through.and_all(ended);
            }
        }
        if kept(Rule::SignedEndNotifies) {
            self.tier.publish(keys, deadline).await?.await;
        }
        let deadline = self.settings.removal_deadline();
        match self.tier.stands(&through, deadline).await? {
            true => Ok(()),
            false => Err(lost()),
        }
    }
}

fn lost() -> Error {
    let source: BoxError = "the fence of a signed URL is lost".into();
    Error::Cache {
        tier: "redis",
        operation: "sign",
        source,
    }
}
