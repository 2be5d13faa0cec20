//! [`Warm`]: fills the tiers from a list.

mod alone;
mod listing;
mod progress;
mod proof;
mod shared;

pub use progress::{WarmError, WarmProgress};
#[cfg(feature = "redis")]
pub(crate) use proof::has_text_of;

use super::CachedStore;
use crate::spans;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::ObjectStore;
use object_store::path::Path;
use progress::Tally;
use std::fmt;
use tracing::Instrument;

/// A filling of the tiers from what the store lists, made by [`CachedStore::warm`]. Does nothing until it
/// is awaited.
///
/// A node that starts, and all nodes after a [`purge`](CachedStore::purge), ask the store for each blob and
/// each link anew. A list tells of 1,000 objects in one request, instead of one or two for each.
///
/// ```
/// use layercache::CachedStore;
/// use object_store::memory::InMemory;
/// use object_store::path::Path;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let store = CachedStore::new(InMemory::new());
/// let blobs = Path::from("docker/registry/v2/blobs");
///
/// let warmed = store
///     .warm(Some(&blobs))
///     .progress(|so_far| println!("{} of {}", so_far.filled, so_far.seen))
///     .await;
/// if let Err(error) = warmed {
///     // Later, from where it stopped.
///     let mut warm = store.warm(Some(&blobs));
///     if let Some(position) = &error.progress.position {
///         warm = warm.resume_after(position);
///     }
///     warm.await?;
/// }
/// # Ok(())
/// # }
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(example()).unwrap();
/// ```
///
/// # What is filled
/// A blob's path, length, entity tag and version, for `stat`. A list says nothing of content types and other
/// attributes, so a `head` through `object_store` still asks the store once; what is known in full is
/// not replaced. A link, if its entity tag proves that it holds its own digest (on S3 the tag of a small
/// object is the MD5 of its content); otherwise the link is read. What means nothing to the
/// [`Layout`](crate::layout::Layout) is passed over. Tiers keep no more than they have room for: a memory of
/// 64 MiB some 100,000 blobs.
///
/// # Beside changes
/// It fills under the same rules as any load, and so never what a change has taken away: in memory alone it
/// knows the stamps of all keys from before each list; with Redis it lists a page of 1,000 to learn names,
/// takes leases for what is missing, and fills only what a second list of the same page shows
/// while the leases stand. What somebody else is changing or filling is left to him. While a page is under
/// way (for the time of one list), who asks for a missing key of it waits for it, some 300 ms at most.
///
/// # Cost
/// | | in memory alone | with Redis |
/// |---|---|---|
/// | lists | 1 for 1,000 objects | 2 for 1,000 objects of which something is missing |
/// | reads of the store | 1 for a link that its entity tag does not prove, 16 at a time | the same |
/// | round trips to Redis | 0 | 10 for 1,000 missing facts, 7 for 1,000 that it knows; in a cluster 16, each to all primaries |
/// | memory | 1 page and the stamps: 1 MiB | 5 pages: 3 MiB |
///
/// A blob costs some 2 µs of this process in memory alone, and with Redis some 11 µs of the server: about
/// three times what writing it without leases does. No call of a script has more than 100 facts, which
/// occupies Redis for less than a millisecond. Three pages are under way at a time. A store that cannot
/// begin a list in the middle, as `InMemory`, reads the whole of it for each second list.
///
/// # Order
/// Names are expected in their order, as S3, GCS and Azure list them. A local folder has none: there the
/// [`position`](WarmProgress::position) stays where it began, and with Redis each object is asked for by
/// itself.
///
/// # Errors
/// [`WarmError`], with all that was done before: the store failed, or Redis did not answer five times within
/// some four seconds. Without Redis no fact that it shares can be filled, so nothing goes on.
///
/// # Cancellation
/// Dropping the future stops it at once; leases that it holds are given back in a task of their own. The last
/// [`progress`](Self::progress) has the position to resume from.
#[must_use = "nothing is filled until this is awaited"]
pub struct Warm<S: ObjectStore> {
    store: CachedStore<S>,
    prefix: Option<Path>,
    after: Option<Path>,
    progress: Box<dyn FnMut(&WarmProgress) + Send>,
}

impl<S: ObjectStore> Warm<S> {
    pub(super) fn new(store: CachedStore<S>, prefix: Option<Path>) -> Self {
        Self {
            store,
            prefix,
            after: None,
            progress: Box::new(|_| ()),
        }
    }

    /// Passes over all up to this path and it too: a [`position`](WarmProgress::position) of before.
    pub fn resume_after(mut self, position: &Path) -> Self {
        self.after = Some(position.clone());
        self
    }

    /// Tells of what was done, after each page of 1,000 objects and at the end. Runs on the task that awaits
    /// this; it should not take long.
    pub fn progress(mut self, tell: impl FnMut(&WarmProgress) + Send + 'static) -> Self {
        self.progress = Box::new(tell);
        self
    }

    async fn run(self) -> Result<WarmProgress, WarmError> {
        let Self {
            store,
            prefix,
            after,
            progress,
        } = self;
        let tally = Tally::new(after, progress);
        let span = spans::warm(prefix.as_ref());
        let run = async {
            match store.core.cache().has_shared() {
                true => shared::run(&store, prefix, tally).await,
                false => alone::run(&store, prefix, tally).await,
            }
        };
        run.instrument(span).await
    }
}

impl<S: ObjectStore> IntoFuture for Warm<S> {
    type Output = Result<WarmProgress, WarmError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.run().boxed()
    }
}

impl<S: ObjectStore> fmt::Debug for Warm<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Warm")
            .field("store", &self.store)
            .field("prefix", &self.prefix)
            .field("after", &self.after)
            .finish_non_exhaustive()
    }
}
