//! Tests the example registry as a process.

mod admin;
mod api;
mod bad_content;
mod bad_input;
mod cache;
mod limits;
mod lists;
mod outage;
mod paths;
mod tls;
mod uploads;
