//! What operators ask: what Redis holds, and whether it is fit for the cache.

mod check;
pub(crate) mod diagnostic;
mod inspect;
pub(crate) mod scan;

pub(crate) use check::check_server;
pub use inspect::{Fence, Held, InRedis, Life, RedisEntry};
