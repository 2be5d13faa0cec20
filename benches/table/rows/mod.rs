//! The groups of rows, each in a file with the code of its yardsticks.

mod backend;
mod hits;
mod http;
mod instructions;
mod pull;
mod redis;
mod redis_size;
mod scale;
mod size;
mod threads;
mod warm;

use crate::table::Table;

pub(crate) use instructions::ask;

/// A group's name, and the function that measures its rows.
type Group = (&'static str, fn(&mut Table));

/// The groups in the order of the table.
pub(crate) const GROUPS: &[Group] = &[
    ("hits", hits::measure),
    ("threads", threads::measure),
    ("instructions", instructions::measure),
    ("scale", scale::measure),
    ("size", size::measure),
    ("redis", redis::measure),
    ("redis-size", redis_size::measure),
    ("backend", backend::measure),
    ("warm", warm::measure),
    ("http", http::measure),
    ("pull", pull::measure),
];
