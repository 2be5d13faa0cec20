//! [`FakeBackend`]: a backend in memory.

use super::Barrier;
use crate::read_through::{Backend, LinkState, WritableBackend};
use crate::types::error::BoxError;
use crate::types::{Digest, LayerMeta, Link};
use async_trait::async_trait;
use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[derive(Debug, Default)]
pub(crate) struct Truth {
    links: HashSet<Link>,
    blobs: HashMap<Digest, LayerMeta>,
}

/// A backend whose calls are held after they have read, so that an answer may be outdated when it
/// is returned.
#[derive(Debug, Default)]
pub(crate) struct FakeBackend {
    truth: Mutex<Truth>,
    pub(crate) read: Barrier,
    pub(crate) written: Barrier,
    pub(crate) link_calls: AtomicUsize,
    pub(crate) describe_calls: AtomicUsize,
    pub(crate) fails: AtomicBool,
}

impl FakeBackend {
    pub(crate) fn put(&self, link: &Link, length: u64) {
        let meta = LayerMeta::new("a/data", length).unwrap();
        let mut truth = self.truth.lock().unwrap();
        truth.links.insert(link.clone());
        truth.blobs.insert(link.digest, meta);
    }

    pub(crate) fn forget(&self, link: &Link) {
        let mut truth = self.truth.lock().unwrap();
        truth.links.remove(link);
        truth.blobs.remove(&link.digest);
    }

    pub(crate) fn calls(&self) -> (usize, usize) {
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
impl Backend for FakeBackend {
    async fn link_state(&self, link: &Link) -> Result<LinkState, BoxError> {
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
impl WritableBackend for FakeBackend {
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
