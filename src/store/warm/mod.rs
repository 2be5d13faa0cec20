//! [`Warm`]: how are the tiers filled from a list?

mod listing;
mod local;
mod progress;
mod proof;
mod shared;

pub use progress::{WarmError, WarmProgress};
pub use proof::has_text_of;

use super::erased::ErasedStore;
use crate::telemetry::spans;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::path::Path;
use progress::Tally;
use std::fmt;
use tracing::Instrument;

/// Fills the tiers from the store's lists. [`CachedStore::warm`](crate::CachedStore::warm) makes
/// it. It does nothing until it is awaited.
///
/// A node that has just started, and every node after a [`purge`](crate::CachedStore::purge), asks
/// the store once for each blob and each link. A list returns 1,000 objects in one request, where
/// single questions take one or two requests per object.
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
///     // Later, resume where it stopped.
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
/// - A blob: its path, length, entity tag and version, which is enough for `stat`. A list has no
///   content types or other attributes, so a `head` through `object_store` still asks the store
///   once. An entry with full metadata is not replaced.
/// - A link: if its entity tag proves that it holds its own digest (on S3 the tag of a small object
///   is the MD5 of its content), its membership is filled. Otherwise the link is read.
/// - Objects that the [`Layout`](crate::layout::Layout) gives no meaning are skipped.
///
/// Tiers keep no more than they have room for: a memory of 64 MiB keeps some 100,000 blobs.
///
/// # Beside changes
/// Warming follows the same rules as a load, so it never fills an entry that a change has removed.
///
/// In memory alone, it takes the stamps of all keys before each list. With Redis, it lists a page
/// of 1,000 to learn the names and takes leases for the facts that are missing. It then lists the
/// same page again and fills only the objects that the second list shows while the leases stand. It
/// skips a key that another caller or node is changing or filling. While a page is under way (for
/// the time of one list), a caller that asks for a missing key of the page waits for it, some 300
/// ms at most.
///
/// # Cost
/// [`guide::costs`](crate::guide::costs#warming) has the lists and the round trips to Redis for 1,000
/// objects. A link whose entity tag does not prove its content costs a read, 16 at a time. The node
/// holds 1 page and its stamps (1 MiB), or 5 pages with Redis (3 MiB).
///
/// A blob costs some 2 µs of this process in memory alone. With Redis it costs some 11 µs of the
/// server, about three times the cost of a write without leases. A script call has at most 100
/// facts, which occupies Redis for less than a millisecond. Three pages are under way at a time. A
/// store that cannot start a list in the middle, such as `InMemory`, reads the whole list for each
/// second list.
///
/// # Order
/// Warming expects names in order, as S3, GCS and Azure list them. A local folder lists them
/// without order. There the [`position`](WarmProgress::position) stays at its start, and with Redis
/// each object is asked for by itself.
///
/// # Errors
/// Returns a [`WarmError`], with the progress so far, if the store failed, or if Redis did not
/// answer five times within some four seconds. Without Redis none of the shared facts can be
/// filled, so warming stops.
///
/// # Cancellation
/// Dropping the future stops warming at once. A task of its own returns the leases that it holds.
/// The last [`progress`](Self::progress) has the position to resume from.
#[must_use = "nothing is filled until this is awaited"]
pub struct Warm {
    store: ErasedStore,
    prefix: Option<Path>,
    after: Option<Path>,
    progress: Box<dyn FnMut(&WarmProgress) + Send>,
}

impl Warm {
    pub(super) fn new(store: ErasedStore, prefix: Option<Path>) -> Self {
        Self {
            store,
            prefix,
            after: None,
            progress: Box::new(|_| ()),
        }
    }

    /// Resumes after `position`, which an earlier [`WarmProgress`] has. Skips the object at this
    /// path and every object that is listed before it.
    pub fn resume_after(mut self, position: &Path) -> Self {
        self.after = Some(position.clone());
        self
    }

    /// Sets a callback that receives the progress after each page of up to 1,000 objects. It runs
    /// on the task that awaits the warming, so it should not take long.
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
                false => local::run(&store, prefix, tally).await,
            }
        };
        run.instrument(span).await
    }
}

impl IntoFuture for Warm {
    type Output = Result<WarmProgress, WarmError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.run().boxed()
    }
}

impl fmt::Debug for Warm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Warm")
            .field("store", &self.store)
            .field("prefix", &self.prefix)
            .field("after", &self.after)
            .finish_non_exhaustive()
    }
}
