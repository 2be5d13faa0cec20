//! How is memory warmed if it is the only tier?

use super::super::erased::ErasedStore;
use super::listing::{Listed, Listing};
use super::progress::{Counts, Tally, WarmError, WarmProgress};
use super::proof::ListProof;
use super::shared::AT_A_TIME;
use crate::cache::memory::ReadStamps;
use crate::coherence::generation::Snapshot;
use crate::types::Error;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;

/// Fills memory from lists. The stamps of all keys are taken before each list.
pub(super) async fn run(
    store: &ErasedStore,
    prefix: Option<Path>,
    mut tally: Tally,
) -> Result<WarmProgress, WarmError> {
    loop {
        // Take the stamps before the list, because the list may be older than a change that comes
        // later.
        let snapshot = store.core.cache().snapshot();
        let mut listing = Listing::new(store, prefix.as_ref(), tally.position());
        loop {
            let page = match listing.next().await {
                Ok(Some(page)) => page,
                Ok(None) => return Ok(tally.done()),
                Err(error) => return Err(tally.stopped(error)),
            };
            let counts = match fill(store, &page.listed, snapshot.as_ref()).await {
                Ok(counts) => counts,
                Err(error) => return Err(tally.stopped(error)),
            };
            tally.add(&page, counts);
            // A key was changed after the stamps were taken. Continue with a new list and new
            // stamps.
            if counts.refused > 0 && page.is_in_order {
                break;
            }
        }
    }
}

async fn fill(
    store: &ErasedStore,
    page: &[Listed],
    snapshot: Option<&Snapshot>,
) -> Result<Counts, Error> {
    let (cache, mut counts) = (store.core.cache(), Counts::default());
    let mut unread = Vec::new();
    for listed in page {
        if store.core.knows(&listed.question) {
            counts.known += 1;
            continue;
        }
        let read_stamps = snapshot.map_or_else(ReadStamps::default, |snapshot| {
            ReadStamps::at(snapshot, &listed.question)
        });
        match ListProof::of(listed) {
            ListProof::Facts(facts) => match cache.fill_memory(facts, read_stamps) {
                true => counts.filled += 1,
                false => counts.refused += 1,
            },
            ListProof::Unread => unread.push((&listed.question, read_stamps)),
            ListProof::Broken => counts.skipped += 1,
        }
    }
    let reads = unread.into_iter().map(|(question, read_stamps)| {
        let (core, question) = (store.core.clone(), question.clone());
        let read = async move {
            let facts = core.ask_alone(&question).await?;
            Ok::<_, Error>(facts.map(|facts| core.cache().fill_memory(facts, read_stamps)))
        };
        read.boxed()
    });
    let reads: Vec<_> = reads.collect();
    let mut reads = futures::stream::iter(reads).buffer_unordered(AT_A_TIME);
    while let Some(filled) = reads.try_next().await? {
        match filled {
            Some(true) => counts.filled += 1,
            Some(false) => counts.refused += 1,
            None => counts.skipped += 1,
        }
    }
    Ok(counts)
}
