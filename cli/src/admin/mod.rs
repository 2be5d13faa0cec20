//! What do Redis and the storage hold, and is it correct? The commands `audit`, `check` and `stat`
//! ask this.

mod audit;
mod check;
mod inspect;
mod scan;

pub use audit::{
    Audit, AuditError, AuditPosition, AuditPositionError, AuditProgress, AuditReport, Fate,
    Finding, Wrong,
};
pub use check::{Diagnostic, Severity, check_redis, check_storage};
pub use inspect::{
    Disagreement, Fence, InRedis, InStorage, Inspection, Life, RedisEntry, StoredValue, inspect,
};
