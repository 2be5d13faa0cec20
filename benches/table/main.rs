//! Measures the costs that layercache promises, each figure beside its yardstick in the same run.
//!
//! `cargo bench --bench table` measures all rows and writes `benches/TABLE.md`;
//! `cargo bench --bench table -- NAME…` measures those groups alone and writes nothing.
#![allow(
    clippy::future_not_send,
    reason = "a measurement's futures stay on its thread"
)]

mod clock;
mod rows;
mod table;
mod warm;

#[path = "../common/mod.rs"]
mod common;
use test_support as support;

use table::Table;

fn main() {
    if rows::ask() {
        return;
    }
    let mut table = Table::from_arguments();
    for (group, measure) in rows::GROUPS {
        if table.wants(group) {
            measure(&mut table);
        }
    }
    table.finish();
}
