//! [`FakeShared`]: a shared tier in memory.

use super::Barrier;
use crate::cache::Forgotten;
use crate::cache::deadline::{Deadline, Patience};
use crate::cache::shared::{Fact, Facts, Found, Leases, SharedTier, Value, Which};
use crate::cache::storage::Storage;
use crate::coherence::lease::{EndReply, Grant, Token};
use crate::coherence::slot::Slot;
use crate::coherence::used_connections::UsedConnections;
use crate::types::link::Key;
use crate::types::namespace::Namespace;
use crate::types::question::Question;
use crate::types::{Error, Link};
use async_trait::async_trait;
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// The deadline of a read.
fn short() -> Deadline {
    Deadline::new(Duration::from_millis(50), Patience::Read)
}

/// A shared tier in memory.
#[derive(Debug, Default)]
pub(crate) struct FakeShared {
    slots: Mutex<HashMap<Key, Slot<Value>>>,
    pub(crate) fill: Barrier,
    pub(crate) granted: Barrier,
    pub(crate) looked_up: Barrier,
    pub(crate) look_ups: AtomicUsize,
    pub(crate) publishes: AtomicUsize,
    /// Messages that the node sends without waiting for acknowledgements.
    pub(crate) notified: AtomicUsize,
    /// Script calls, one for each key.
    pub(crate) scripts: AtomicUsize,
    pub(crate) fails: AtomicBool,
    /// Whether calls get no answer before their deadline. A lease is granted all the same, too
    /// late.
    pub(crate) hangs: AtomicBool,
    /// Milliseconds until an answer.
    pub(crate) slowness: AtomicU64,
    /// Calls that got no answer in time.
    pub(crate) unanswered: AtomicUsize,
    pub(crate) invalidated: Barrier,
    /// Number of the next begins and ends that are executed but whose answers are lost.
    pub(crate) lost_replies: AtomicUsize,
    pub(crate) session: AtomicU64,
    /// Whether one of the servers is not up. A call reaches only the others.
    pub(crate) is_partly_down: AtomicBool,
    /// Whether a replica has replaced the server, which the node does not know yet.
    pub(crate) replaced: AtomicBool,
    /// Time of the last renewal of a fence.
    pub(crate) renewed: Mutex<Option<Instant>>,
}

fn failure(operation: &'static str, why: &'static str) -> Error {
    Error::Cache {
        tier: "fake",
        operation,
        source: why.into(),
    }
}

impl FakeShared {
    /// Lets a call reach the tier, with scripts for this number of keys.
    async fn reach(
        &self,
        operation: &'static str,
        scripts: usize,
        deadline: Deadline,
    ) -> Result<(), Error> {
        self.fail(operation)?;
        self.scripts.fetch_add(scripts, Ordering::SeqCst);
        let slowness = Duration::from_millis(self.slowness.load(Ordering::SeqCst));
        let answer = Instant::now() + slowness;
        if !self.hangs.load(Ordering::SeqCst) && answer <= deadline.at() {
            if !slowness.is_zero() {
                sleep_until(answer).await;
            }
        } else {
            self.unanswered.fetch_add(1, Ordering::SeqCst);
            sleep_until(deadline.at()).await;
            return Err(failure(operation, "it hangs"));
        }
        Ok(())
    }

    /// Returns the connection of a call that was executed, unless its answer is lost.
    fn reply(&self, operation: &'static str) -> Result<UsedConnections, Error> {
        let less = |lost: usize| lost.checked_sub(1);
        let (set, fetch) = (Ordering::SeqCst, Ordering::SeqCst);
        if self.lost_replies.fetch_update(set, fetch, less).is_ok() {
            return Err(failure(operation, "no answer"));
        }
        let mut through = UsedConnections::one(self.session.load(Ordering::SeqCst));
        if self.is_partly_down.load(Ordering::SeqCst) {
            through.and(None);
        }
        Ok(through)
    }

    /// Returns how many changes have a fence on this key.
    pub(crate) fn fences(&self, key: &Key) -> usize {
        self.slot(key, |slot| slot.fence.len())
    }

    fn fail(&self, operation: &'static str) -> Result<(), Error> {
        match self.fails.load(Ordering::SeqCst) {
            true => Err(failure(operation, "it is down")),
            false => Ok(()),
        }
    }

    fn slot<T>(&self, key: &Key, act: impl FnOnce(&mut Slot<Value>) -> T) -> T {
        act(self.slots.lock().unwrap().entry(key.clone()).or_default())
    }

    fn entry(&self, key: &Key) -> Option<Value> {
        self.slot(key, |slot| slot.entry.clone())
    }

    pub(crate) fn has(&self, link: &Link) -> (bool, bool) {
        let has = |key| self.entry(&key).is_some();
        (has(Key::Link(link.clone())), has(Key::Meta(link.digest)))
    }

    pub(crate) fn add(&self, facts: Facts) {
        for Fact { key, value } in facts {
            self.slot(&key, |slot| slot.entry = Some(value));
        }
    }
}

#[async_trait]
impl SharedTier for FakeShared {
    fn is_up(&self, through: &UsedConnections) -> bool {
        let up = self.session.load(Ordering::SeqCst);
        through.is_up(|number| number == up, Instant::now())
    }

    async fn stands(&self, through: &UsedConnections, deadline: Deadline) -> Result<bool, Error> {
        self.fail("stands")?;
        // A confirmation that is answered takes no time.
        if self.hangs.load(Ordering::SeqCst) {
            self.reach("stands", 0, deadline).await?;
        }
        if self.replaced.swap(false, Ordering::SeqCst) {
            // The new server has no data.
            self.session.fetch_add(1, Ordering::SeqCst);
            self.slots.lock().unwrap().clear();
        }
        Ok(self.is_up(through))
    }

    /// A tier that is down receives nothing.
    fn may_be_executed(&self, error: &Error) -> bool {
        !error.to_string().contains("it is down")
    }

    fn has_broken(&self, _: &Error) -> bool {
        false
    }

    async fn fetch(&self, questions: &[Question], deadline: Deadline) -> Result<Vec<Found>, Error> {
        self.look_ups.fetch_add(1, Ordering::SeqCst);
        self.reach("look-up", 0, deadline).await?;
        let find = |question: &Question| question.keys().filter_map(|key| self.entry(&key));
        let found = questions.iter().map(find).collect();
        self.looked_up.pass().await;
        Ok(found)
    }

    async fn grant(
        &self,
        keys: &[Key],
        token: Token,
        steal: bool,
        deadline: Deadline,
    ) -> Result<Vec<Grant>, Error> {
        let reached = self.reach("grant", keys.len(), deadline).await;
        if reached.is_err() && self.fails.load(Ordering::SeqCst) {
            return reached.map(|()| Vec::new());
        }
        let grant = |key: &Key| self.slot(key, |slot| slot.grant(token, steal));
        let grants = keys.iter().map(grant).collect();
        reached?;
        self.granted.pass().await;
        Ok(grants)
    }

    async fn fill(&self, facts: Facts, held: Leases, _ttl: Duration) -> Result<Facts, Error> {
        self.fill.pass().await;
        self.reach("fill", facts.count(), short()).await?;
        let filled = facts.zip(held).filter(|(fact, token)| {
            let value = Value::clone(&fact.value);
            self.slot(&fact.key, |slot| slot.fill(*token, value))
        });
        Ok(filled.map(|(fact, _)| fact))
    }

    async fn fill_all(
        &self,
        facts: Vec<Facts>,
        token: Token,
        ttl: Duration,
    ) -> Result<Vec<Facts>, Error> {
        let fill = |facts| self.fill(facts, Leases::two(token, token), ttl);
        futures::future::try_join_all(facts.into_iter().map(fill)).await
    }

    async fn release(&self, keys: &[Key], token: Token) -> Result<(), Error> {
        self.reach("release", keys.len(), short()).await?;
        for key in keys {
            self.slot(key, |slot| slot.release(token));
        }
        Ok(())
    }

    async fn begin(
        &self,
        keys: &[Key],
        token: Token,
        take_lease: bool,
        deadline: Deadline,
    ) -> Result<UsedConnections, Error> {
        self.reach("begin", keys.len(), deadline).await?;
        for key in keys {
            self.slot(key, |slot| slot.begin(token, take_lease));
        }
        self.reply("begin")
    }

    async fn renew(
        &self,
        keys: &[Key],
        token: Token,
        _: Duration,
        deadline: Deadline,
    ) -> Result<bool, Error> {
        self.fail("renew")?;
        // A renewal that is answered takes no time.
        if self.hangs.load(Ordering::SeqCst) {
            self.reach("renew", 0, deadline).await?;
        }
        *self.renewed.lock().unwrap() = Some(Instant::now());
        let renew = |key| self.slot(key, |slot| slot.renew(token));
        // Renews all of them, also after one that was lost.
        let stood: Vec<_> = keys.iter().map(renew).collect();
        Ok(!stood.contains(&false))
    }

    async fn end(
        &self,
        keys: &[Key],
        token: Token,
        written: Option<&Fact>,
        _ttl: Duration,
        deadline: Deadline,
    ) -> Result<(EndReply, UsedConnections), Error> {
        self.reach("end", keys.len(), deadline).await?;
        let mut ended = EndReply {
            stood: true,
            filled: false,
        };
        for key in keys {
            let written = written.filter(|written| written.key == *key);
            let value = written.map(|written| written.value.clone());
            let one = self.slot(key, |slot| slot.end(token, value));
            ended.stood &= one.stood;
            ended.filled |= one.filled;
        }
        Ok((ended, self.reply("end")?))
    }

    async fn invalidate(&self, keys: &[Key], deadline: Deadline) -> Result<UsedConnections, Error> {
        let token = Token::random();
        self.invalidated.pass().await;
        self.begin(keys, token, false, deadline).await?;
        let ended = self.end(keys, token, None, Duration::ZERO, deadline);
        ended.await.map(|(_, through)| through)
    }

    async fn deny(&self, keys: &[Key], deadline: Deadline) -> Result<Vec<bool>, Error> {
        self.reach("deny", keys.len(), deadline).await?;
        let deny = |key: &Key| self.slot(key, Slot::deny);
        Ok(keys.iter().map(deny).collect())
    }

    async fn notify(&self, _keys: &[Key], deadline: Deadline) -> Result<(), Error> {
        self.reach("notify", 0, deadline).await?;
        self.notified.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn publish(
        &self,
        _keys: &[Key],
        deadline: Deadline,
    ) -> Result<BoxFuture<'static, ()>, Error> {
        self.reach("publish", 0, deadline).await?;
        self.publishes.fetch_add(1, Ordering::SeqCst);
        Ok(ready(()).boxed())
    }

    async fn purge(&self) -> Result<(), Error> {
        self.fail("purge")?;
        self.slots.lock().unwrap().clear();
        Ok(())
    }

    async fn purge_repositories(&self, which: &Which<'_>) -> Result<Forgotten, Error> {
        self.fail("purge")?;
        let is_meant =
            |key: &Key| matches!(key, Key::Link(link) if which(link.repository.as_str()));
        self.slots.lock().unwrap().retain(|key, _| !is_meant(key));
        Ok(Forgotten::default())
    }

    async fn shutdown(&self) {
        self.fails.store(true, Ordering::SeqCst);
    }

    fn in_namespace(&self, _: &Namespace, _: Option<&Storage>) -> Arc<dyn SharedTier> {
        Arc::new(Self::default())
    }
}
