//! Are a Redis and a storage fit for the cache, and if not, how can that be fixed?

mod diagnostic;
mod guess;
mod redis;
mod storage;

pub use self::redis::check_redis;
pub use diagnostic::{Diagnostic, Severity};
pub use storage::check_storage;
