//! How an operator observes the cache: metrics, and spans for traces.

pub(crate) mod metrics;
pub(crate) mod spans;
