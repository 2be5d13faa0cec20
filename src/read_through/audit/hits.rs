//! What was answered a moment ago.

use super::WeakCore;
use super::judge::{Positive, judge};
use crate::metrics::Audits;
use crate::read_through::Backend;
use std::sync::Arc;
use tokio::sync::mpsc::Receiver;

/// What the backend denies is waited for together.
const AT_ONCE: usize = 16;

/// Looks at hits for as long as there is a cache.
pub(super) async fn look<B: Backend>(
    core: WeakCore<B>,
    mut hits: Receiver<Positive>,
    seen: Arc<Audits>,
) {
    let mut some = Vec::with_capacity(AT_ONCE);
    while hits.recv_many(&mut some, AT_ONCE).await > 0 {
        let positives = std::mem::take(&mut some);
        if judge(&core, positives, &seen, None).await.is_none() {
            return;
        }
    }
}
