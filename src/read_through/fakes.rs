//! A backend and a shared tier that tests can stop, fail and count.

use super::{Backend, LinkState, WritableBackend};
use crate::cache::shared::{
    Ended, Facts, Found, Grant, Leases, Member, Question, SharedTier, Token,
};
use crate::error::BoxError;
use crate::link::Key;
use crate::{Digest, Error, LayerMeta, Link};
use async_trait::async_trait;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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
    links: Mutex<HashSet<Link>>,
    metas: Mutex<HashMap<Digest, LayerMeta>>,
    leases: Mutex<HashMap<Key, Token>>,
    fences: Mutex<HashSet<(Key, Token)>>,
    pub(super) fill: Barrier,
    pub(super) looked_up: Barrier,
    pub(super) look_ups: AtomicUsize,
    pub(super) fails: AtomicBool,
}

impl FakeShared {
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

    pub(super) fn has(&self, link: &Link) -> (bool, bool) {
        let member = self.links.lock().unwrap().contains(link);
        (
            member,
            self.metas.lock().unwrap().contains_key(&link.digest),
        )
    }

    pub(super) fn add(&self, facts: Facts) {
        if let Some((link, _)) = facts.member {
            self.links.lock().unwrap().insert(link);
        }
        if let Some((digest, meta)) = facts.meta {
            self.metas.lock().unwrap().insert(digest, meta);
        }
    }
}

#[async_trait]
impl SharedTier for FakeShared {
    async fn look_up(&self, questions: &[Question]) -> Result<Vec<Found>, Error> {
        self.look_ups.fetch_add(1, Ordering::SeqCst);
        self.fail("look-up")?;
        let find = |question: &Question| Found {
            member: question
                .link()
                .filter(|link| self.links.lock().unwrap().contains(link))
                .map(|_| Member::default()),
            meta: question
                .meta()
                .and_then(|digest| self.metas.lock().unwrap().get(digest).cloned()),
        };
        let found = questions.iter().map(find).collect();
        self.looked_up.pass().await;
        Ok(found)
    }

    async fn grant(&self, keys: &[Key], token: Token, steal: bool) -> Result<Vec<Grant>, Error> {
        self.fail("grant")?;
        let grant = |key: &Key| {
            if !steal && self.holds(key) {
                return Grant::Hit;
            }
            if self.is_fenced(key) {
                return Grant::Blocked;
            }
            let mut leases = self.leases.lock().unwrap();
            if !steal && leases.contains_key(key) {
                return Grant::Wait;
            }
            leases.insert(key.clone(), token);
            Grant::Granted
        };
        Ok(keys.iter().map(grant).collect())
    }

    async fn fill(&self, facts: Facts, held: Leases, _ttl: Duration) -> Result<Facts, Error> {
        self.fill.pass().await;
        self.fail("fill")?;
        let member = facts
            .member
            .filter(|(link, _)| self.spend(&Key::Link(link.clone()), held.member));
        let meta = facts
            .meta
            .filter(|(digest, _)| self.spend(&Key::Meta(*digest), held.meta));
        let accepted = Facts { member, meta };
        self.add(accepted.clone());
        Ok(accepted)
    }

    async fn release(&self, keys: &[Key], token: Token) -> Result<(), Error> {
        for key in keys {
            self.spend(key, Some(token));
        }
        Ok(())
    }

    async fn begin(&self, keys: &[Key], token: Token, take_lease: bool) -> Result<(), Error> {
        self.fail("begin")?;
        for key in keys {
            self.remove(key);
            self.fences.lock().unwrap().insert((key.clone(), token));
            if take_lease {
                self.leases.lock().unwrap().insert(key.clone(), token);
            }
        }
        Ok(())
    }

    async fn renew(&self, _keys: &[Key], _token: Token) -> Result<(), Error> {
        Ok(())
    }

    async fn end(
        &self,
        keys: &[Key],
        token: Token,
        written: Option<&Link>,
        _ttl: Duration,
    ) -> Result<Ended, Error> {
        self.fail("end")?;
        let mut ended = Ended {
            stood: true,
            filled: false,
        };
        for key in keys {
            ended.stood &= self.fences.lock().unwrap().remove(&(key.clone(), token));
            let own = self.spend(key, Some(token));
            self.remove(key);
            if let (Some(link), true, false) = (written, own && ended.stood, self.is_fenced(key)) {
                self.links.lock().unwrap().insert(link.clone());
                ended.filled = true;
            }
        }
        Ok(ended)
    }

    async fn withdraw(&self, keys: &[Key]) -> Result<(), Error> {
        self.fail("withdraw")?;
        keys.iter().for_each(|key| self.remove(key));
        Ok(())
    }

    async fn announce(&self, _keys: &[Key]) -> Result<(), Error> {
        Ok(())
    }

    async fn purge(&self) -> Result<(), Error> {
        unimplemented!("no test purges")
    }
}

impl FakeShared {
    fn holds(&self, key: &Key) -> bool {
        match key {
            Key::Link(link) => self.links.lock().unwrap().contains(link),
            Key::Meta(digest) => self.metas.lock().unwrap().contains_key(digest),
        }
    }

    fn is_fenced(&self, key: &Key) -> bool {
        let fences = self.fences.lock().unwrap();
        fences.iter().any(|(fenced, _)| fenced == key)
    }

    /// Takes a lease away if it is this one.
    fn spend(&self, key: &Key, token: Option<Token>) -> bool {
        let mut leases = self.leases.lock().unwrap();
        let own = token.is_some() && leases.get(key).copied() == token;
        if own {
            leases.remove(key);
        }
        own
    }

    fn remove(&self, key: &Key) {
        self.leases.lock().unwrap().remove(key);
        match key {
            Key::Link(link) => drop(self.links.lock().unwrap().remove(link)),
            Key::Meta(digest) => drop(self.metas.lock().unwrap().remove(digest)),
        }
    }
}
