//! What several nodes were asked and told, and whether that can be.

pub mod ask;
pub mod check;
pub mod cluster;
pub mod flaky;
pub mod record;
pub mod report;
pub mod traffic;
