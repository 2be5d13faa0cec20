//! Measures what each public operation costs: round trips to Redis, calls of the backend,
//! allocations. The tables here agree with the tables under "Cost" in the documentation.

mod allocations;
mod caches;
mod changes;
mod lab;
mod reads;
use test_support as support;
