//! [`Error`]: what can go wrong, and what the caller can do about it.

use std::sync::Arc;

/// An error of something below this crate.
///
/// ```
/// use layercache::BoxError;
///
/// let error: BoxError = "the database is away".into();
/// assert_eq!(error.to_string(), "the database is away");
/// ```
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What can go wrong in a cache, in the backend or on the way between them.
///
/// A read never fails because of a cache: only [`Backend`](Self::Backend) and
/// [`LoadLost`](Self::LoadLost) reach the one who asked.
///
/// ```
/// use layercache::Error;
///
/// /// What a registry's client is told.
/// fn status(error: &Error) -> u16 {
///     match error {
///         error if error.is_retryable() => 503, // with `Retry-After`
///         Error::NoPath { .. } => 404,
///         _ => 500,
///     }
/// }
/// # assert_eq!(status(&Error::LoadLost), 500);
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A cache could not do what it was asked to.
    #[error("{tier}: {operation} failed: {source}")]
    Cache {
        /// Which cache: `redis`, or the name of another implementation.
        tier: &'static str,
        /// What it was doing.
        operation: &'static str,
        /// Why it failed. Holds no address and no secret.
        source: BoxError,
    },

    /// A setting does not work.
    #[error("invalid setting `{setting}`: {source}")]
    Setting {
        /// The setting's name.
        setting: &'static str,
        /// Why it does not work.
        source: BoxError,
    },

    /// The backend failed. Nothing was cached.
    #[error("backend: {source}")]
    Backend {
        /// The backend's own error, shared by all who waited for the same answer.
        source: Arc<dyn std::error::Error + Send + Sync + 'static>,
    },

    /// The task that asked the backend ended without an answer: it panicked, or the runtime is
    /// shutting down. Ask again.
    #[error("a load or a change ended without an answer: it panicked or the runtime is stopping")]
    LoadLost,

    /// A change was refused because what caches hold of it could not be taken away first. The
    /// backend was not touched; retry when the cache can be reached. By default only a removal is
    /// refused ([`ChangePolicy`](crate::ChangePolicy)).
    #[error("change refused, nothing was changed: {source} (retry later)")]
    ChangeRefused {
        /// Why the cache could not be told.
        source: Arc<Self>,
    },

    /// A change was made, but it could not be made sure that nobody answers what was before. This
    /// node goes on trying, and asks Redis nothing until it has succeeded; to repeat the change tells
    /// when it has.
    #[error(
        "changed, but other nodes may still answer what was before: {source} (retry to hear when none does)"
    )]
    ChangeUnconfirmed {
        /// Why the cache could not be told.
        source: Arc<Self>,
    },

    /// The layout has no path for what was asked.
    #[error("the layout has no path for {what}")]
    NoPath {
        /// What was asked for.
        what: String,
    },
}

impl Error {
    /// Whether the same change, made once more, is expected to succeed as soon as Redis can be reached:
    /// it was refused with nothing changed, or was made and is not confirmed.
    ///
    /// ```
    /// use layercache::Error;
    /// use std::sync::Arc;
    ///
    /// let source = Arc::new(Error::LoadLost);
    /// assert!(Error::ChangeRefused { source }.is_retryable());
    /// assert!(!Error::NoPath { what: "a link".into() }.is_retryable());
    /// ```
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::ChangeRefused { .. } | Self::ChangeUnconfirmed { .. }
        )
    }

    /// The error of this crate that `error` is, or that is among its sources: an
    /// `object_store::Error` of a [`CachedStore`](crate::CachedStore) carries it as a source, also
    /// behind other stores that pass it on.
    ///
    /// ```
    /// use layercache::Error;
    /// use std::sync::Arc;
    ///
    /// let refused = Error::ChangeRefused { source: Arc::new(Error::LoadLost) };
    /// let from_store = object_store::Error::Generic {
    ///     store: "CachedStore",
    ///     source: Box::new(refused),
    /// };
    /// assert!(Error::find(&from_store).is_some_and(Error::is_retryable));
    /// ```
    pub fn find<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        let mut chain = std::iter::successors(Some(error), |error| error.source());
        chain.find_map(|error| error.downcast_ref())
    }

    pub(crate) fn backend(source: BoxError) -> Self {
        Self::Backend {
            source: Arc::from(source),
        }
    }

    /// The same error again, for another who waited for the same answer.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Backend { source } => Self::Backend {
                source: Arc::clone(source),
            },
            Self::ChangeRefused { source } => Self::ChangeRefused {
                source: Arc::clone(source),
            },
            Self::ChangeUnconfirmed { source } => Self::ChangeUnconfirmed {
                source: Arc::clone(source),
            },
            Self::NoPath { what } => Self::NoPath { what: what.clone() },
            // Neither loads nor changes fail in another way.
            _ => Self::LoadLost,
        }
    }
}
