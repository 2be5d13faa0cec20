//! The limits for clients: in size, number and time.

use crate::units::{parse_size, parse_time};
use std::time::Duration;

/// The limits that an operator can set. A manifest has a fixed limit of 4 MiB, as in the Go
/// registry.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Limits {
    /// The largest blob that may be uploaded: 512KiB, 20MiB, 1GiB; without a unit, bytes
    #[arg(
        long,
        env = "LAYERCACHE_MAX_UPLOAD",
        default_value = "64GiB",
        value_name = "SIZE",
        value_parser = parse_size
    )]
    pub(crate) max_upload: u64,

    /// How many uploads may run at the same time; each may hold some 24 MiB of memory
    #[arg(
        long,
        env = "LAYERCACHE_MAX_UPLOADS",
        default_value = "1024",
        value_name = "NUMBER"
    )]
    pub(crate) max_uploads: usize,

    /// How long an upload without new data is kept
    #[arg(
        long,
        env = "LAYERCACHE_UPLOAD_TIMEOUT",
        default_value = "15m",
        value_name = "TIME",
        value_parser = parse_time
    )]
    pub(crate) upload_timeout: Duration,

    /// How long a client may take for the head of a request, be silent in a body, or leave an
    /// answer unread
    #[arg(
        long,
        env = "LAYERCACHE_CLIENT_TIMEOUT",
        default_value = "60s",
        value_name = "TIME",
        value_parser = parse_time
    )]
    pub(crate) client_timeout: Duration,
}

impl Limits {
    /// Returns how often the registry looks for uploads without new data.
    pub(crate) fn sweep(&self) -> Duration {
        let least = Duration::from_millis(100);
        (self.upload_timeout / 4).clamp(least, Duration::from_secs(60))
    }
}
