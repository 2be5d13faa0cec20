//! Records the operations of several nodes and their answers, and checks whether the answers are
//! allowed.

pub mod ask;
pub mod check;
pub mod cluster;
pub mod flaky;
pub mod record;
pub mod report;
pub mod traffic;
