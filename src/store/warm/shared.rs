//! How are Redis and memory warmed together?

use super::super::erased::ErasedStore;
use super::listing::{Listed, Listing, Page, list};
use super::progress::{Counts, Tally, WarmError, WarmProgress};
use super::proof::ListProof;
use crate::cache::shared::Facts;
use crate::cache::tiered::FillGuard;
use crate::coherence::lease::Grant;
use crate::types::Error;
use crate::types::question::Question;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::ObjectMeta;
use object_store::path::Path;
use std::collections::HashSet;
use std::time::Duration;
use tokio::time::sleep;

/// Number of objects that are read at a time.
pub(super) const AT_A_TIME: usize = 16;

/// Number of pages under way. While one page waits for Redis, the store lists another.
const PAGES: usize = 3;

/// Pauses before a page is tried again for which Redis did not answer.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_millis(1000),
    Duration::from_millis(2000),
];

/// Fills Redis and memory. A first list gives the names, page by page. The node takes leases for
/// the facts of a page that are missing; a second list of the page then gives the facts to fill.
pub(super) async fn run(
    store: &ErasedStore,
    prefix: Option<Path>,
    mut tally: Tally,
) -> Result<WarmProgress, WarmError> {
    let listing = Listing::new(store, prefix.as_ref(), tally.position());
    let mut done = under_way(store.clone(), prefix, listing);
    loop {
        match done.try_next().await {
            Ok(Some((page, counts))) => tally.add(&page, counts),
            Ok(None) => return Ok(tally.done()),
            Err(error) => return Err(tally.stopped(error)),
        }
    }
}

/// Fills a few pages at a time, and returns them in the order of the list.
fn under_way(
    store: ErasedStore,
    prefix: Option<Path>,
    listing: Listing,
) -> BoxStream<'static, Result<(Page, Counts), Error>> {
    let pages = futures::stream::try_unfold(listing, |mut listing| async move {
        let page = listing.next().await?;
        Ok::<_, Error>(page.map(|page| (page, listing)))
    });
    let done = pages.map_ok(move |page| {
        let (store, prefix) = (store.clone(), prefix.clone());
        async move {
            let counts = insist(&store, prefix.as_ref(), &page).await?;
            Ok((page, counts))
        }
    });
    done.try_buffered(PAGES).boxed()
}

/// Fills a page. Tries again if Redis could not be asked.
async fn insist(store: &ErasedStore, prefix: Option<&Path>, page: &Page) -> Result<Counts, Error> {
    for pause in PAUSES {
        match fill(store, prefix, page).await {
            Err(Error::Cache { .. }) => sleep(pause).await,
            other => return other,
        }
    }
    fill(store, prefix, page).await
}

async fn fill(store: &ErasedStore, prefix: Option<&Path>, page: &Page) -> Result<Counts, Error> {
    let (core, mut counts) = (&store.core, Counts::default());
    let open = page.listed.iter();
    let mut open: Vec<_> = open
        .filter(|listed| !core.knows(&listed.question))
        .collect();
    counts.known += (page.listed.len() - open.len()) as u64;
    let questions = open.iter().map(|listed| &listed.question);
    let mut guard = core.guard_many(questions).await?;
    counts.known += get(store, &guard, &mut open).await?;
    let is_granted = |question: &Question| {
        let keys = question.keys();
        keys.iter().any(|key| guard.has(key, Grant::Granted))
    };
    let before = open.len();
    open.retain(|listed| is_granted(&listed.question));
    counts.refused += (before - open.len()) as u64;
    if open.is_empty() {
        return Ok(counts);
    }
    let facts = match page.is_in_order {
        true => prove(store, prefix, page, &open, &mut counts).await?,
        false => ask(store, open, &mut counts).await?,
    };
    let facts = facts.into_iter().map(|facts| guard.granted(facts));
    let facts: Vec<_> = facts.collect();
    for is_filled in core.cache().fill_all(&mut guard, facts).await? {
        match is_filled {
            true => counts.filled += 1,
            false => counts.refused += 1,
        }
    }
    Ok(counts)
}

type Missing<'a> = Vec<&'a Listed>;

/// Fills memory with the facts that Redis already has, and removes those objects from `open`.
async fn get(store: &ErasedStore, guard: &FillGuard, open: &mut Missing<'_>) -> Result<u64, Error> {
    let is_hit = |listed: &&&Listed| {
        let keys = listed.question.keys();
        keys.iter().any(|key| guard.has(key, Grant::Hit))
    };
    let hits: Vec<_> = open.iter().filter(is_hit).collect();
    let questions = hits.iter().map(|listed| listed.question.clone());
    let questions: Vec<_> = questions.collect();
    let read_stamps = questions
        .iter()
        .map(|question| guard.read_stamps(question.keys()));
    let read_stamps: Vec<_> = read_stamps.collect();
    let (cache, mut budget) = (store.core.cache(), store.core.cache().budget());
    let found = cache.try_fetch(&questions, &read_stamps, &mut budget);
    let known = hits.iter().zip(found.await?).filter_map(|(listed, found)| {
        let is_answer = found.is_whole(&listed.question);
        is_answer.then_some(&listed.object.location)
    });
    let known: HashSet<_> = known.collect();
    open.retain(|listed| !known.contains(&listed.object.location));
    Ok(known.len() as u64)
}

/// Returns the facts that a second list of the page proves for the objects in `open`. They are
/// sorted by name.
async fn prove(
    store: &ErasedStore,
    prefix: Option<&Path>,
    page: &Page,
    open: &[&Listed],
    counts: &mut Counts,
) -> Result<Vec<Facts>, Error> {
    let mut proven = Vec::with_capacity(open.len());
    let mut unread = Vec::new();
    let mut objects = list(store.inner().as_ref(), prefix, page.after.as_ref());
    let mut open = open.iter().peekable();
    while open.peek().is_some()
        && let Some(object) = objects.next().await
    {
        let object = object.map_err(|error| Error::backend(error.into()))?;
        // The object was deleted after the first list.
        while open
            .next_if(|named| named.object.location < object.location)
            .is_some()
        {
            counts.refused += 1;
        }
        let is_named = |named: &&&Listed| named.object.location == object.location;
        let Some(named) = open.next_if(is_named) else {
            continue;
        };
        match ListProof::of(&again(named, object)) {
            ListProof::Facts(facts) => proven.push(facts),
            ListProof::Unread => unread.push(*named),
            ListProof::Broken => counts.skipped += 1,
        }
    }
    counts.refused += open.count() as u64;
    proven.extend(ask(store, unread, counts).await?);
    Ok(proven)
}

/// Returns the listed object with its newer description.
fn again(named: &Listed, object: ObjectMeta) -> Listed {
    Listed {
        object,
        question: named.question.clone(),
    }
}

/// Asks the store for each of these objects.
async fn ask(
    store: &ErasedStore,
    open: Missing<'_>,
    counts: &mut Counts,
) -> Result<Vec<Facts>, Error> {
    let reads = open.into_iter().map(|listed| {
        let (core, question) = (store.core.clone(), listed.question.clone());
        let read = async move { core.ask_alone(&question).await };
        read.boxed()
    });
    let reads: Vec<_> = reads.collect();
    let mut reads = futures::stream::iter(reads).buffer_unordered(AT_A_TIME);
    let mut proven = Vec::new();
    while let Some(facts) = reads.try_next().await? {
        match facts {
            Some(facts) => proven.push(facts),
            None => counts.skipped += 1,
        }
    }
    Ok(proven)
}
