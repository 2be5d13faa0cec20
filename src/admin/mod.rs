//! For those who look after a running registry: what its tiers hold, and whether that is right.
//!
//! The command `layercache` shows all of it.

mod audit;
mod check_up;
mod inspect;

pub use crate::cache::redis::{Fence, Held, InRedis, Life, RedisEntry};
pub use crate::remark::{Grade, Remark};
pub use audit::{
    Audit, AuditError, AuditPosition, AuditPositionError, AuditProgress, AuditReport, Fate,
    Finding, Wrong,
};
pub use check_up::{check_redis, check_storage};
pub use inspect::{Disagreement, InStorage, Inspection, inspect};
