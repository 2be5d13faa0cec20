//! Records the operations of several nodes and their answers, and checks whether the answers are
//! allowed.

pub mod ask;
pub mod cluster;
pub mod flaky;
pub mod traffic;

pub use histories::{check, record, report};
