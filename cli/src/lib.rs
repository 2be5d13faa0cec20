//! The parts of the command `layercache` that its tests use, too.
//!
//! This library is not covered by semantic versioning: use the command, or the crate `layercache`.
#![forbid(unsafe_code)]

pub mod admin;
