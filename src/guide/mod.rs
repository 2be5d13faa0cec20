//! The guide: what this crate promises, and how to run it.

pub mod coherence {
    #![doc = include_str!("coherence.md")]
}

pub mod redis {
    #![doc = include_str!("redis.md")]
}
