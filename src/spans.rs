//! Spans of what does I/O. A hit in memory has none, and where nobody listens none is made: its fields
//! are not even looked at.
//!
//! Names and fields are those of OpenTelemetry's conventions for databases where they fit. A repository
//! and a digest are on spans alone, and on no metric.

use crate::cache::shared::{Question, QuestionRef};
use crate::link::Key;
use crate::{CacheStatus, Freshness};
use object_store::path::Path;
use tracing::field::{Empty, debug};
use tracing::{Span, debug_span};

/// A load of what no tier in the process knows.
pub(crate) fn load(question: &Question, freshness: Freshness) -> Span {
    debug_span!(
        "load",
        repository = question.link().map(|link| display(&link.repository)),
        digest = %QuestionRef::from(question).digest(),
        ?freshness,
        status = Empty,
    )
}

/// Who has answered a load.
pub(crate) fn answered(span: &Span, by: CacheStatus) {
    span.record("status", debug(by));
}

/// A look in Redis for these loads: its own span where they are several, which follows from theirs.
pub(crate) fn trip<'a>(mut loads: impl ExactSizeIterator<Item = &'a Span>) -> Span {
    if loads.len() == 1 {
        return loads.next().cloned().unwrap_or_else(Span::none);
    }
    let trip = debug_span!(parent: None, "look-up", loads = loads.len());
    for load in loads {
        trip.follows_from(load);
    }
    trip
}

/// A call of the backend.
pub(crate) fn backend(call: &'static str) -> Span {
    debug_span!("backend", otel.kind = "client", call)
}

/// A change of these, all that goes around its call too.
pub(crate) fn change(keys: &[Key]) -> Span {
    let first = || match keys.first() {
        Some(Key::Link(link) | Key::Own(link)) => (Some(&link.repository), Some(&link.digest)),
        Some(Key::Meta(digest)) => (None, Some(digest)),
        None => (None, None),
    };
    debug_span!(
        "change",
        keys = keys.len(),
        repository = first().0.map(display),
        digest = first().1.map(display),
        verdict = Empty,
    )
}

/// Everything is forgotten.
pub(crate) fn purge() -> Span {
    debug_span!("purge")
}

/// The tiers are filled from a list.
pub(crate) fn warm(prefix: Option<&Path>) -> Span {
    debug_span!("warm", prefix = prefix.map(display))
}

/// An operation in Redis: a round trip with so many commands, or one to each primary that has some of
/// them.
#[cfg(feature = "redis")]
pub(crate) fn redis(operation: &'static str, commands: usize) -> Span {
    macro_rules! operation {
        ($span:ident) => {
            $span!(
                "redis",
                otel.name = operation,
                otel.kind = "client",
                db.system.name = "redis",
                db.operation.name = operation,
                db.operation.batch.size = commands,
                error.type = Empty,
            )
        };
    }
    match operation {
        "heartbeat" => {
            use tracing::trace_span;
            operation!(trace_span)
        }
        _ => operation!(debug_span),
    }
}

/// A connection to Redis is made, for whoever needs it.
#[cfg(feature = "redis")]
pub(crate) fn connect() -> Span {
    debug_span!(
        parent: None,
        "connect",
        otel.kind = "client",
        db.system.name = "redis",
        server = Empty,
        error.type = Empty,
    )
}

/// Why what it is of has failed, if it did.
#[cfg(feature = "redis")]
pub(crate) fn failed(span: &Span, error: Option<&impl std::fmt::Display>) {
    if let Some(error) = error {
        span.record("error.type", tracing::field::display(error));
    }
}
