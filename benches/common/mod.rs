//! The code that the benches share. Benches that start servers have `tests/support` as
//! `crate::support`.
#![allow(dead_code, unreachable_pub, reason = "each bench uses a part of it")]

pub mod cell;
pub mod client;
pub mod cpu;
pub mod load;
pub mod machine;
pub mod s3_proxy;
pub mod stage;
