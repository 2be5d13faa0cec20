//! [`SlotPrimary`]: the primary of a cluster that serves a slot.

use super::Cluster;
use crate::cache::redis::net::connect_error::ConnectError;
use crate::cache::redis::net::resolve::{Checked, Located, Resolve};
use async_trait::async_trait;
use std::sync::Weak;

/// The primary of a cluster that serves a slot, whichever server that is now.
#[derive(Debug)]
pub(super) struct SlotPrimary {
    pub(super) cluster: Weak<Cluster>,
    pub(super) slot: u16,
}

#[async_trait]
impl Resolve for SlotPrimary {
    async fn locate(&self) -> Result<Located, ConnectError> {
        let cluster = self.cluster.upgrade().ok_or(ConnectError::ShutDown)?;
        Ok(Located::unnamed(cluster.primary_of(self.slot).await?))
    }

    /// A replaced server of a cluster says so itself, but only once it knows it. So this asks the
    /// others.
    async fn check(&self, from: &Located) -> Checked {
        match self.locate().await {
            Ok(now) if now.server == from.server => Checked::Stays,
            Ok(_) => Checked::Moved,
            Err(_) => Checked::Unknown,
        }
    }

    fn is_cluster(&self) -> bool {
        true
    }
}
