//! Tests the metrics: their description in the guide, their values, and the dashboard and alerts
//! that use them.

mod audit;
mod counts;
mod guide;
mod promtool;
mod watchers;
