//! [`Error`]: which errors are there, and how can the caller react?

use std::sync::Arc;

/// An error of the code below this crate, such as a backend.
///
/// ```
/// use layercache::BoxError;
///
/// let error: BoxError = "the database is away".into();
/// assert_eq!(error.to_string(), "the database is away");
/// ```
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// An error of a cache, of the backend or of the task that runs between them.
///
/// A read of a registry or a store never fails because of a cache. Its only errors are
/// [`Backend`](Self::Backend), [`LoadLost`](Self::LoadLost) and [`Runtime`](Self::Runtime).
///
/// ```
/// use layercache::Error;
///
/// /// Returns the HTTP status for a client of the registry.
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
    /// An operation of a cache failed.
    #[error("{tier}: {operation} failed: {source}")]
    Cache {
        /// The cache: `redis`, or the name of another implementation.
        tier: &'static str,
        /// The operation that failed.
        operation: &'static str,
        /// Why it failed. Contains no address and no secret.
        source: BoxError,
    },

    /// A setting is invalid.
    #[error("invalid setting `{setting}`: {source}")]
    Setting {
        /// The setting's name.
        setting: &'static str,
        /// Why it is invalid.
        source: BoxError,
    },

    /// The backend failed. Nothing was cached.
    #[error("backend: {source}")]
    Backend {
        /// The backend's own error, shared by all callers that waited for the same answer.
        source: Arc<dyn std::error::Error + Send + Sync + 'static>,
    },

    /// The task that asked the backend ended without an answer: it panicked, or the runtime is
    /// shutting down. Ask again.
    #[error("a load or a change ended without an answer: it panicked or the runtime is stopping")]
    LoadLost,

    /// A change was refused, because its keys could not be removed from the cache first. The
    /// backend was not called. Retry when the cache can be reached. By default only a removal is
    /// refused ([`ChangePolicy`](crate::ChangePolicy)).
    #[error("change refused, nothing was changed: {source} (retry later)")]
    ChangeRefused {
        /// Why the cache could not be told.
        source: Arc<Self>,
    },

    /// A change was made, or the backend may still make it, and other nodes may still answer with
    /// values from before it. This node keeps trying to tell them, and reads nothing from Redis
    /// until it has succeeded. To learn when it has succeeded, repeat the change until it returns no
    /// error.
    #[error(
        "the backend made the change or may still make it, and other nodes may still answer with the old state: {source} (repeat the change until it returns no error)"
    )]
    ChangeUnconfirmed {
        /// Why the cache could not be told.
        source: Arc<Self>,
    },

    /// The cache cannot work in this tokio runtime, or outside one. Nothing was asked or changed.
    #[error("the cache needs a tokio runtime: {problem}")]
    Runtime {
        /// What is wrong, and what to do.
        problem: &'static str,
    },

    /// The layout has no path for a blob or a link.
    #[error("the layout has no path for {what}")]
    NoPath {
        /// The blob or the link, in words.
        what: String,
    },
}

impl Error {
    /// Returns whether the same change is expected to succeed if it is repeated when Redis can be
    /// reached. The change was either refused and changed nothing, or made and not confirmed.
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

    /// Finds the error of this crate among the sources of an error of a
    /// [`CachedStore`](crate::CachedStore). It is there even if other stores wrap that store and pass
    /// its errors on. Returns `None` for an error of the store itself.
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
    /// assert!(Error::from_store(&from_store).is_some_and(Error::is_retryable));
    ///
    /// let own = object_store::Error::NotImplemented { operation: "x".into(), implementer: "y".into() };
    /// assert!(Error::from_store(&own).is_none());
    /// ```
    pub fn from_store(error: &object_store::Error) -> Option<&Self> {
        let mut chain =
            std::iter::successors(std::error::Error::source(error), |error| error.source());
        chain.find_map(|error| error.downcast_ref())
    }

    pub(crate) fn backend(source: BoxError) -> Self {
        Self::Backend {
            source: Arc::from(source),
        }
    }

    /// Returns the same error for another caller that waited for the same answer.
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
            Self::Runtime { problem } => Self::Runtime { problem },
            // Loads and changes fail in no other way.
            _ => Self::LoadLost,
        }
    }
}
