//! A fake backend and a fake shared tier that tests can hold, fail and count.

mod backend;
mod shared;

pub(crate) use backend::FakeBackend;
pub(crate) use shared::FakeShared;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

/// A point where a test can hold calls. At first it holds none.
#[derive(Debug)]
pub(crate) struct Barrier {
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
    pub(crate) fn hold(&self) {
        self.held.store(true, Ordering::SeqCst);
    }

    /// Releases all held calls, and holds no more.
    pub(crate) fn release(&self) {
        self.held.store(false, Ordering::SeqCst);
        self.leave
            .add_permits(self.waiting.swap(0, Ordering::SeqCst));
    }

    /// Waits until a call is held.
    pub(crate) async fn arrival(&self) {
        while self.waiting.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    }

    /// Waits until a call is held. Sleeps between checks, for calls that come only after some time.
    pub(crate) async fn late_arrival(&self) {
        while self.waiting.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn pass(&self) {
        if self.held.load(Ordering::SeqCst) {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            self.leave.acquire().await.unwrap().forget();
        }
    }
}
