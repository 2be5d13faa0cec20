//! What keeps old answers from being given: small, and without I/O.
//!
//! Two rules, each in a file of its own:
//!
//! - a value in memory carries the [stamp](generation::Stamp) it was loaded under, and is dead once
//!   its key has been changed ([`generation`]);
//! - nobody boards a load that has left ([`flight`]).
//!
//! Both hold within this process. What other nodes have to be told, and what Redis has to refuse,
//! joins them here.

pub(crate) mod flight;
pub(crate) mod generation;
