//! The metrics: what the guide says of them, what is emitted, and what watches them.

use test_support as support;

mod audit;
mod counts;
mod guide;
mod promtool;
mod watchers;
