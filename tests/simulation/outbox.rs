//! [`Outbox`]: what a machine sends to the world outside of its runtime.

use super::signed::Signed;
use super::store::Call;
use super::stream::SimStream;
use histories::record::Fact;
use std::io;
use std::sync::{Arc, Mutex};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// The number of a connection between a machine and a server. No other connection has it.
pub(crate) type Link = u64;

/// One thing that a machine sends.
pub(crate) enum Emission {
    Connect {
        host: String,
        reply: oneshot::Sender<io::Result<SimStream>>,
    },
    Bytes(Link, Vec<u8>),
    Close(Link),
    Call(Box<dyn Call>),
    Signed(Signed),
    /// A client has created or removed this.
    Changed(Fact, bool),
}

/// The emissions of one machine, in order. A clone only increments a reference count.
#[derive(Clone, Default)]
pub(crate) struct Outbox(Arc<Inner>);

#[derive(Default)]
struct Inner {
    emissions: Mutex<Vec<(Instant, Emission)>>,
    emitted: Notify,
}

impl Outbox {
    pub(crate) fn emit(&self, emission: Emission) {
        let emissions = &mut self.0.emissions.lock().unwrap();
        emissions.push((Instant::now(), emission));
        self.0.emitted.notify_one();
    }

    /// Waits until the machine has sent something.
    pub(crate) async fn emitted(&self) {
        self.0.emitted.notified().await;
    }

    /// Takes what the machine has sent, each with the machine's time.
    pub(crate) fn take(&self) -> Vec<(Instant, Emission)> {
        std::mem::take(&mut self.0.emissions.lock().unwrap())
    }
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outbox")
    }
}
