//! [`SentinelView`]: what a Sentinel knows about the primaries that it watches.

use std::collections::BTreeMap;

/// A primary that a Sentinel watches, under the name of its service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub host: String,
    pub port: u16,
    /// The run id of the primary.
    pub run_id: String,
    /// The epoch of the latest failover that the Sentinel knows. It grows with each failover.
    pub epoch: u64,
    pub is_down: bool,
    /// The places of the replicas.
    pub replicas: Vec<(String, u16)>,
    /// The places of the other Sentinels.
    pub sentinels: Vec<(String, u16)>,
    pub quorum: usize,
}

/// What a Sentinel knows. The caller decides when each Sentinel learns of a change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SentinelView {
    pub services: BTreeMap<String, Service>,
}

impl Service {
    pub(crate) const fn flags(&self) -> &'static str {
        match self.is_down {
            true => "s_down,master",
            false => "master",
        }
    }
}
