//! Whether a Redis and a storage are fit for the cache, in plain words, with the fix.

mod guess;
mod storage;

pub use storage::check_storage;

use crate::remark::Remark;
use crate::{Error, RedisConfig};

/// Connects to a Redis as a node would, and says what is wrong with it: its version, memory, persistence and
/// replicas, what the user may not do, who is there. In a cluster each primary is looked at.
///
/// What it tries out it does on keys of its own, which are gone after it; it joins no channel, and is no node.
///
/// ```
/// use layercache::RedisConfig;
/// use layercache::admin::{Grade, check_redis};
///
/// # async fn example() -> Result<(), layercache::Error> {
/// for remark in check_redis(&RedisConfig::new("redis://127.0.0.1")).await? {
///     let mark = if remark.grade == Grade::Good { ' ' } else { '!' };
///     println!("{mark} {remark}");
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// A setting that does not work. What keeps it from Redis is a [`Remark`].
///
/// # Cancellation
/// May be dropped at any time. A key of its own stays for a millisecond then.
pub async fn check_redis(config: &RedisConfig) -> Result<Vec<Remark>, Error> {
    crate::cache::redis::check_up(config).await
}
