//! What each public operation costs: round trips to Redis, calls of the backend, allocations. The
//! tables here and the tables under "Cost" in the documentation say the same.

mod allocations;
mod caches;
mod changes;
mod lab;
mod reads;
use test_support as support;
