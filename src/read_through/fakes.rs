//! A backend and a shared tier that tests can stop, fail and count.

use super::{Backend, LinkState, WritableBackend};
use crate::cache::Forgotten;
use crate::cache::deadline::Deadline;
use crate::cache::shared::{Facts, Found, Leases, Member, Question, SharedTier, Which};
use crate::coherence::lease::{Ended, Grant, Token};
use crate::coherence::slot::Slot;
use crate::error::BoxError;
use crate::link::Key;
use crate::{Digest, Error, LayerMeta, Link};
use async_trait::async_trait;
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Semaphore;

/// A place where calls can be held. It is open at first.
#[derive(Debug)]
pub(super) struct Barrier {
    held: AtomicBool,
    waiting: AtomicUsize,
    leave: Semaphore,
}

impl Default for Barrier {
    fn default() -> Self {
        Self {
            held: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            leave: Semaphore::new(0),
        }
    }
}

impl Barrier {
    pub(super) fn hold(&self) {
        self.held.store(true, Ordering::SeqCst);
    }

    /// Lets those go who are held, and holds no more.
    pub(super) fn release(&self) {
        self.held.store(false, Ordering::SeqCst);
        self.leave
            .add_permits(self.waiting.swap(0, Ordering::SeqCst));
    }

    /// Returns when somebody is held.
    pub(super) async fn arrival(&self) {
        while self.waiting.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    }

    async fn pass(&self) {
        if self.held.load(Ordering::SeqCst) {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            self.leave.acquire().await.unwrap().forget();
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Truth {
    links: HashSet<Link>,
    blobs: HashMap<Digest, LayerMeta>,
}

/// A backend that reads, and only then is held: what it answers may be old by then.
#[derive(Debug, Default)]
pub(super) struct FakeBackend {
    truth: Mutex<Truth>,
    pub(super) read: Barrier,
    pub(super) written: Barrier,
    pub(super) link_calls: AtomicUsize,
    pub(super) describe_calls: AtomicUsize,
    pub(super) fails: AtomicBool,
}

impl FakeBackend {
    pub(super) fn put(&self, link: &Link, length: u64) {
        let meta = LayerMeta::new("a/data", length).unwrap();
        let mut truth = self.truth.lock().unwrap();
        truth.links.insert(link.clone());
        truth.blobs.insert(link.digest, meta);
    }

    pub(super) fn forget(&self, link: &Link) {
        let mut truth = self.truth.lock().unwrap();
        truth.links.remove(link);
        truth.blobs.remove(&link.digest);
    }

    pub(super) fn calls(&self) -> (usize, usize) {
        let read = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
        (read(&self.link_calls), read(&self.describe_calls))
    }

    fn fail(&self) -> Result<(), BoxError> {
        match self.fails.load(Ordering::SeqCst) {
            true => Err("the backend is down".into()),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Backend for Arc<FakeBackend> {
    async fn link(&self, link: &Link) -> Result<LinkState, BoxError> {
        self.link_calls.fetch_add(1, Ordering::SeqCst);
        let linked = self.truth.lock().unwrap().links.contains(link);
        self.read.pass().await;
        self.fail()?;
        Ok(match linked {
            true => LinkState::Linked(None),
            false => LinkState::Absent,
        })
    }

    async fn describe(&self, digest: &Digest) -> Result<Option<LayerMeta>, BoxError> {
        self.describe_calls.fetch_add(1, Ordering::SeqCst);
        let meta = self.truth.lock().unwrap().blobs.get(digest).cloned();
        self.read.pass().await;
        self.fail()?;
        Ok(meta)
    }
}

#[async_trait]
impl WritableBackend for Arc<FakeBackend> {
    async fn create_link(&self, link: &Link) -> Result<(), BoxError> {
        self.fail()?;
        self.truth.lock().unwrap().links.insert(link.clone());
        self.written.pass().await;
        Ok(())
    }

    async fn remove_link(&self, link: &Link) -> Result<(), BoxError> {
        self.fail()?;
        self.truth.lock().unwrap().links.remove(link);
        self.written.pass().await;
        Ok(())
    }

    async fn delete_blob(&self, digest: &Digest) -> Result<(), BoxError> {
        self.fail()?;
        self.truth.lock().unwrap().blobs.remove(digest);
        self.written.pass().await;
        Ok(())
    }
}

/// A shared tier in memory.
#[derive(Debug, Default)]
pub(super) struct FakeShared {
    slots: Mutex<HashMap<Key, Slot<Option<LayerMeta>>>>,
    pub(super) fill: Barrier,
    pub(super) granted: Barrier,
    pub(super) looked_up: Barrier,
    pub(super) look_ups: AtomicUsize,
    pub(super) publishes: AtomicUsize,
    pub(super) fails: AtomicBool,
    pub(super) session: AtomicU64,
}

impl FakeShared {
    /// How many changes have a fence there.
    pub(super) fn fences(&self, key: &Key) -> usize {
        self.slot(key, |slot| slot.fence.len())
    }

    fn fail(&self, operation: &'static str) -> Result<(), Error> {
        match self.fails.load(Ordering::SeqCst) {
            true => Err(Error::Cache {
                tier: "fake",
                operation,
                source: "it is down".into(),
            }),
            false => Ok(()),
        }
    }

    fn slot<T>(&self, key: &Key, act: impl FnOnce(&mut Slot<Option<LayerMeta>>) -> T) -> T {
        act(self.slots.lock().unwrap().entry(key.clone()).or_default())
    }

    fn entry(&self, key: &Key) -> Option<Option<LayerMeta>> {
        self.slot(key, |slot| slot.entry.clone())
    }

    pub(super) fn has(&self, link: &Link) -> (bool, bool) {
        let has = |key| self.entry(&key).is_some();
        (has(Key::Link(link.clone())), has(Key::Meta(link.digest)))
    }

    pub(super) fn add(&self, facts: Facts) {
        if let Some((link, _)) = facts.member {
            self.slot(&Key::Link(link), |slot| slot.entry = Some(None));
        }
        if let Some((digest, meta)) = facts.meta {
            self.slot(&Key::Meta(digest), |slot| slot.entry = Some(Some(meta)));
        }
    }
}

#[async_trait]
impl SharedTier for FakeShared {
    fn session(&self) -> u64 {
        self.session.load(Ordering::SeqCst)
    }

    async fn look_up(
        &self,
        questions: &[Question],
        _: u32,
        _: Deadline,
    ) -> Result<Vec<Found>, Error> {
        self.look_ups.fetch_add(1, Ordering::SeqCst);
        self.fail("look-up")?;
        let find = |question: &Question| Found {
            member: question
                .link()
                .and_then(|link| self.entry(&Key::Link(link.clone())))
                .map(|_| Member::default()),
            meta: question
                .meta()
                .and_then(|digest| self.entry(&Key::Meta(*digest)))
                .flatten(),
        };
        let found = questions.iter().map(find).collect();
        self.looked_up.pass().await;
        Ok(found)
    }

    async fn grant(
        &self,
        keys: &[Key],
        token: Token,
        steal: bool,
        _: Deadline,
    ) -> Result<Vec<Grant>, Error> {
        self.fail("grant")?;
        let grant = |key: &Key| self.slot(key, |slot| slot.grant(token, steal));
        let grants = keys.iter().map(grant).collect();
        self.granted.pass().await;
        Ok(grants)
    }

    async fn fill(&self, facts: Facts, held: Leases, _ttl: Duration) -> Result<Facts, Error> {
        self.fill.pass().await;
        self.fail("fill")?;
        let fill = |key: Key, lease: Option<Token>, value: Option<LayerMeta>| {
            lease.is_some_and(|token| self.slot(&key, |slot| slot.fill(token, value)))
        };
        Ok(Facts {
            member: facts
                .member
                .filter(|(link, _)| fill(Key::Link(link.clone()), held.member, None)),
            meta: facts
                .meta
                .filter(|(digest, meta)| fill(Key::Meta(*digest), held.meta, Some(meta.clone()))),
        })
    }

    async fn fill_all(
        &self,
        facts: Vec<Facts>,
        token: Token,
        ttl: Duration,
    ) -> Result<Vec<Facts>, Error> {
        let held = Leases {
            member: Some(token),
            meta: Some(token),
        };
        let fills = facts.into_iter().map(|facts| self.fill(facts, held, ttl));
        futures::future::try_join_all(fills).await
    }

    async fn release(&self, keys: &[Key], token: Token) -> Result<(), Error> {
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
        _: Deadline,
    ) -> Result<(), Error> {
        self.fail("begin")?;
        for key in keys {
            self.slot(key, |slot| slot.begin(token, take_lease));
        }
        Ok(())
    }

    async fn renew(&self, keys: &[Key], token: Token) -> Result<(), Error> {
        for key in keys {
            self.slot(key, |slot| slot.renew(token));
        }
        Ok(())
    }

    async fn renew_for(&self, keys: &[Key], token: Token, _: Duration) -> Result<bool, Error> {
        self.fail("renew")?;
        let renew = |key| self.slot(key, |slot| slot.renew(token));
        Ok(keys.iter().all(renew))
    }

    async fn end(
        &self,
        keys: &[Key],
        token: Token,
        written: Option<&Link>,
        _ttl: Duration,
        _: Deadline,
    ) -> Result<Ended, Error> {
        self.fail("end")?;
        let mut ended = Ended {
            stood: true,
            filled: false,
        };
        for key in keys {
            let is_written = matches!(key, Key::Link(link) if Some(link) == written);
            let one = self.slot(key, |slot| slot.end(token, is_written.then_some(None)));
            ended.stood &= one.stood;
            ended.filled |= one.filled;
        }
        Ok(ended)
    }

    async fn withdraw(&self, keys: &[Key], deadline: Deadline) -> Result<(), Error> {
        let token = Token::random();
        self.begin(keys, token, false, deadline).await?;
        self.end(keys, token, None, Duration::ZERO, deadline)
            .await?;
        Ok(())
    }

    async fn mention(&self, _keys: &[Key], _: Deadline) -> Result<(), Error> {
        self.fail("mention")
    }

    async fn publish(&self, _keys: &[Key], _: Deadline) -> Result<BoxFuture<'static, ()>, Error> {
        self.fail("publish")?;
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

    async fn leave(&self) {
        self.fails.store(true, Ordering::SeqCst);
    }
}
