//! The spans of operations that do I/O. A hit in memory creates no span. If no subscriber is
//! interested, no span is created and its fields are not evaluated.
//!
//! Names and fields follow OpenTelemetry's conventions for databases where they fit. Repositories
//! and digests are fields of spans only, never labels of metrics.

use crate::types::link::Key;
use crate::types::question::{Question, QuestionRef};
use crate::types::{CacheStatus, Freshness};
use object_store::path::Path;
use tracing::field::{Empty, debug};
use tracing::{Span, debug_span};

/// Creates the span of a load, for a question that memory could not answer.
pub(crate) fn load(question: &Question, freshness: Freshness) -> Span {
    debug_span!(
        "load",
        repository = question.link().map(|link| display(&link.repository)),
        digest = %QuestionRef::from(question).digest(),
        ?freshness,
        status = Empty,
    )
}

/// Records which tier answered a load.
pub(crate) fn answered(span: &Span, by: CacheStatus) {
    span.record("status", debug(by));
}

/// Returns the span of a look-up in Redis for these loads. A single load keeps its own span.
/// Several loads get a new span, which follows from theirs.
pub(crate) fn batch<'a>(mut loads: impl ExactSizeIterator<Item = &'a Span>) -> Span {
    if loads.len() == 1 {
        return loads.next().cloned().unwrap_or_else(Span::none);
    }
    let batch = debug_span!(parent: None, "look-up", loads = loads.len());
    for load in loads {
        batch.follows_from(load);
    }
    batch
}

/// Creates the span of a backend call.
pub(crate) fn backend(call: &'static str) -> Span {
    debug_span!("backend", otel.kind = "client", call)
}

/// Creates the span of a change of these keys: the backend call and all steps around it.
pub(crate) fn change(keys: &[Key]) -> Span {
    let first = keys.first();
    debug_span!(
        "change",
        keys = keys.len(),
        repository = first.and_then(Key::repository).map(display),
        digest = first.map(Key::digest).map(display),
        conclusion = Empty,
    )
}

/// Creates the span of a purge of everything.
pub(crate) fn purge() -> Span {
    debug_span!("purge")
}

/// Creates the span of a warm-up, which fills the tiers from a list.
pub(crate) fn warm(prefix: Option<&Path>) -> Span {
    debug_span!("warm", prefix = prefix.map(display))
}

/// Creates the span of an operation in Redis: one round trip with `commands` commands, or one round
/// trip to each primary that has some of their keys.
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

/// Creates the span of a new connection to Redis. It has no parent, because many callers use the
/// connection.
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

/// Records why the span's operation failed, if it failed.
#[cfg(feature = "redis")]
pub(crate) fn failed(span: &Span, error: Option<&impl std::fmt::Display>) {
    if let Some(error) = error {
        span.record("error.type", tracing::field::display(error));
    }
}
