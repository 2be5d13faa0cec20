//! How do errors become `object_store` errors for the caller?

use crate::coherence::change::Outcome;
use crate::types::Error;
use object_store::path::Path;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// Turns `error` into the error that the store would have returned. An error of the backend keeps
/// its kind, also if several callers share it.
pub(super) fn to_store(error: Error) -> object_store::Error {
    match error {
        Error::Backend { source } => match source.downcast_ref::<object_store::Error>() {
            Some(original) => again(original, &source),
            None => generic(Error::Backend { source }),
        },
        other => generic(other),
    }
}

/// Returns what a call that failed with `error` has done. A call that the store refused has done
/// nothing. A call that timed out may still happen.
pub(super) const fn failed(error: &object_store::Error) -> Outcome {
    use object_store::Error as E;
    match error {
        E::NotFound { .. }
        | E::InvalidPath { .. }
        | E::NotSupported { .. }
        | E::AlreadyExists { .. }
        | E::Precondition { .. }
        | E::NotModified { .. }
        | E::NotImplemented { .. }
        | E::PermissionDenied { .. }
        | E::Unauthenticated { .. }
        | E::UnknownConfigurationKey { .. } => Outcome::Nothing,
        _ => Outcome::Unknown,
    }
}

fn generic(error: Error) -> object_store::Error {
    object_store::Error::Generic {
        store: "CachedStore",
        source: Box::new(error),
    }
}

/// Returns the error for a `location` where the backend has no object.
pub(super) fn not_found(location: &Path) -> object_store::Error {
    object_store::Error::NotFound {
        path: location.to_string(),
        source: "the backend has no such object".into(),
    }
}

/// The cause of an error that several callers share.
#[derive(Debug)]
struct Cause(Arc<dyn StdError + Send + Sync>);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.source() {
            Some(cause) => fmt::Display::fmt(cause, f),
            None => fmt::Display::fmt(&self.0, f),
        }
    }
}

impl StdError for Cause {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()?.source()
    }
}

fn again(
    original: &object_store::Error,
    shared: &Arc<dyn StdError + Send + Sync>,
) -> object_store::Error {
    use object_store::Error as E;
    let source = Box::new(Cause(Arc::clone(shared)));
    match original {
        E::NotFound { path, .. } => E::NotFound {
            path: path.clone(),
            source,
        },
        E::AlreadyExists { path, .. } => E::AlreadyExists {
            path: path.clone(),
            source,
        },
        E::Precondition { path, .. } => E::Precondition {
            path: path.clone(),
            source,
        },
        E::NotModified { path, .. } => E::NotModified {
            path: path.clone(),
            source,
        },
        E::PermissionDenied { path, .. } => E::PermissionDenied {
            path: path.clone(),
            source,
        },
        E::Unauthenticated { path, .. } => E::Unauthenticated {
            path: path.clone(),
            source,
        },
        E::NotSupported { .. } => E::NotSupported { source },
        E::NotImplemented {
            operation,
            implementer,
        } => E::NotImplemented {
            operation: operation.clone(),
            implementer: implementer.clone(),
        },
        E::UnknownConfigurationKey { store, key } => E::UnknownConfigurationKey {
            store,
            key: key.clone(),
        },
        E::Generic { store, .. } => E::Generic { store, source },
        _ => E::Generic {
            store: "CachedStore",
            source,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_error_keeps_kind_words_and_cause() {
        let original = || object_store::Error::PermissionDenied {
            path: "a/b".into(),
            source: "no key".into(),
        };
        let error = Error::backend(Box::new(original()));
        for copy in [to_store(error.again()), to_store(error)] {
            assert!(matches!(copy, object_store::Error::PermissionDenied { .. }));
            assert_eq!(copy.to_string(), original().to_string());
            assert_eq!(copy.source().unwrap().to_string(), "no key");
        }
    }

    #[test]
    fn an_error_of_ours_says_whose_it_is() {
        let text = to_store(Error::LoadLost).to_string();
        assert!(text.starts_with("Generic CachedStore error: "), "{text}");
    }
}
