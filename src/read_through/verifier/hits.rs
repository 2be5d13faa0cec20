//! How does the verifier check hits?

use super::WeakCore;
use super::judge::{Positive, judge};
use crate::telemetry::metrics::Verifications;
use std::sync::Arc;
use tokio::sync::mpsc::Receiver;

/// Number of hits that are judged together, so that the denied ones share one wait.
const AT_ONCE: usize = 16;

/// Checks hits until the cache is gone.
pub(super) async fn run(core: WeakCore, mut hits: Receiver<Positive>, seen: Arc<Verifications>) {
    let mut some = Vec::with_capacity(AT_ONCE);
    while hits.recv_many(&mut some, AT_ONCE).await > 0 {
        let positives = std::mem::take(&mut some);
        if judge(&core, positives, &seen, None).await.is_none() {
            return;
        }
    }
}
