//! Administration of a running registry: what do its tiers hold, and is it correct?
//!
//! The command `layercache` offers all of this.

mod audit;
mod check;
mod inspect;

pub use crate::cache::redis::admin::diagnostic::{Diagnostic, Severity};
pub use crate::cache::redis::{Fence, Held, InRedis, Life, RedisEntry};
pub use audit::{
    Audit, AuditError, AuditPosition, AuditPositionError, AuditProgress, AuditReport, Fate,
    Finding, Wrong,
};
pub use check::{check_redis, check_storage};
pub use inspect::{Disagreement, InStorage, Inspection, inspect};
