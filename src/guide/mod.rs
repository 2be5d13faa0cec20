//! The guide: what this crate promises, and how to run it.

pub mod coherence {
    #![doc = include_str!("coherence.md")]
}
