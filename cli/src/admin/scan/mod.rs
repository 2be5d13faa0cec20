//! How does the audit read what Redis holds, and remove what is wrong? It reads without writing
//! anything, and removes facts with the delete protocol.

mod item;
mod key_name;
mod members;
mod review;
mod sweep;

pub(super) use item::{Item, StoredHash, hash_key};
pub(super) use key_name::KeyName;
pub(super) use members::{MemberPage, member_page};
pub(super) use review::{Now, metas, review};
pub(super) use sweep::sweep;

use layercache::Error;
use redis::{Cmd, ErrorKind, RedisError, Value, cmd};

/// No further arguments of a command.
pub(super) const NONE: &[&str] = &[];

/// Returns a command whose first argument is a key.
pub(super) fn on(name: &str, key: impl AsRef<[u8]>, args: &[impl redis::ToRedisArgs]) -> Cmd {
    let mut command = cmd(name);
    command.arg(key.as_ref());
    for arg in args {
        command.arg(arg);
    }
    command
}

/// Returns the error for a reply that is not as expected.
pub(super) fn unexpected(operation: &'static str) -> Error {
    let error = (ErrorKind::UnexpectedReturnType, "unexpected reply");
    Error::Cache {
        tier: "redis",
        operation,
        source: Box::new(RedisError::from(error)),
    }
}

/// Returns an integer reply. A negative number counts as 0.
pub(super) fn number(reply: &Value) -> Option<u64> {
    match reply {
        Value::Int(number) => Some(u64::try_from(*number).unwrap_or(0)),
        _ => None,
    }
}
