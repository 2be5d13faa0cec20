//! Long random runs on real servers. The simulation finds the same faults sooner and repeatably.
//! These runs prove that real servers and a real network add none.

mod history;
mod soak;
