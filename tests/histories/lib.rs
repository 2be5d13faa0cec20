//! Records the operations of several nodes and their answers, and checks whether the answers are
//! allowed. The real servers and the simulation use the same check.

pub mod check;
pub mod record;
pub mod report;
