//! The metrics: what the guide says of them, what is emitted, and what watches them.

#[path = "../support/mod.rs"]
mod support;

mod audit;
mod counts;
mod guide;
mod promtool;
mod watchers;
