//! How far has a warming come?

use super::listing::Page;
use crate::types::Error;
use object_store::path::Path;
use std::fmt;
use std::ops::AddAssign;

/// Holds the progress of a warming. `seen` is the sum of the other counts.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = layercache::CachedStore::new(object_store::memory::InMemory::new());
/// use layercache::WarmProgress;
///
/// let WarmProgress { seen, filled, known, skipped, refused, .. } = store.warm(None).await?;
/// assert_eq!(seen, filled + known + skipped + refused);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WarmProgress {
    /// Objects that the store has listed.
    pub seen: u64,
    /// Objects of which a fact was filled.
    pub filled: u64,
    /// Objects that memory or Redis already knew.
    pub known: u64,
    /// Objects that the layout gives no meaning, and objects at a link's path that are not links.
    pub skipped: u64,
    /// Objects that were not filled: another caller or node was changing or filling them, they were
    /// deleted meanwhile, or Redis had no room. The next caller that asks for one asks the store.
    pub refused: u64,
    /// The last object of the part that is done; `None` at the beginning. Pass it to
    /// [`resume_after`](super::Warm::resume_after). It stays where it began if the store lists
    /// without order.
    pub position: Option<Path>,
}

/// Reports why a warming has stopped, and its progress until then.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = layercache::CachedStore::new(object_store::memory::InMemory::new());
/// use layercache::{Error, WarmError};
///
/// match store.warm(None).await {
///     Ok(warmed) => println!("{} filled", warmed.filled),
///     Err(WarmError { progress, source: Error::Cache { .. }, .. }) => {
///         println!("Redis is away; go on after {:?}", progress.position);
///     }
///     Err(error) => return Err(error.into()),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[error("warming stopped {}: {source}", At(&progress.position))]
#[non_exhaustive]
pub struct WarmError {
    /// The progress until then, with the position to resume from.
    pub progress: WarmProgress,
    /// The cause: the store failed ([`Error::Backend`]), or Redis could not be asked
    /// ([`Error::Cache`]).
    pub source: Error,
}

struct At<'a>(&'a Option<Path>);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(position) => write!(f, "after `{position}`"),
            None => f.write_str("at the beginning"),
        }
    }
}

/// Counts the results of some objects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) filled: u64,
    pub(super) known: u64,
    pub(super) skipped: u64,
    pub(super) refused: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.filled += other.filled;
        self.known += other.known;
        self.skipped += other.skipped;
        self.refused += other.refused;
    }
}

/// Adds up the pages and reports the progress.
pub(super) struct Tally {
    /// The position where the warming began.
    after: Option<Path>,
    progress: WarmProgress,
    tell: Box<dyn FnMut(&WarmProgress) + Send>,
}

impl Tally {
    pub(super) fn new(after: Option<Path>, tell: Box<dyn FnMut(&WarmProgress) + Send>) -> Self {
        let progress = WarmProgress {
            position: after.clone(),
            ..WarmProgress::default()
        };
        Self {
            after,
            progress,
            tell,
        }
    }

    pub(super) const fn position(&self) -> Option<&Path> {
        self.progress.position.as_ref()
    }

    /// Adds a finished page, and reports the progress.
    pub(super) fn add(&mut self, page: &Page, counts: Counts) {
        let progress = &mut self.progress;
        progress.seen += page.seen;
        progress.filled += counts.filled;
        progress.known += counts.known;
        progress.skipped += page.meaningless + counts.skipped;
        progress.refused += counts.refused;
        progress.position = match page.is_in_order {
            true => page.last().cloned(),
            false => self.after.clone(),
        };
        (self.tell)(progress);
    }

    pub(super) fn done(self) -> WarmProgress {
        self.progress
    }

    pub(super) fn stopped(self, source: Error) -> WarmError {
        WarmError {
            progress: self.progress,
            source,
        }
    }
}
