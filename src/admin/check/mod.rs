//! Are a Redis and a storage fit for the cache, and if not, how can that be fixed?

mod guess;
mod storage;

pub use storage::check_storage;

use crate::cache::RedisConfig;
use crate::cache::redis::admin::diagnostic::Diagnostic;
use crate::types::Error;

/// Connects to a Redis as a node would, and reports what is wrong with it: its version, memory,
/// persistence and replicas, missing permissions of the user, and the nodes that use it. In a
/// cluster it checks each primary.
///
/// It tests commands on keys of its own and deletes these keys afterwards. It joins no channel and
/// does not count as a node.
///
/// ```
/// use layercache::RedisConfig;
/// use layercache::admin::{Severity, check_redis};
///
/// # async fn example() -> Result<(), layercache::Error> {
/// for diagnostic in check_redis(&RedisConfig::new("redis://127.0.0.1")).await? {
///     let mark = if diagnostic.severity == Severity::Good { ' ' } else { '!' };
///     println!("{mark} {diagnostic}");
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Returns an error if a setting is not valid. A problem in reaching Redis is not an error but a
/// [`Diagnostic`].
///
/// # Cancellation
/// May be dropped at any time. A test key then stays for a millisecond.
pub async fn check_redis(config: &RedisConfig) -> Result<Vec<Diagnostic>, Error> {
    crate::cache::redis::check_server(config).await
}
