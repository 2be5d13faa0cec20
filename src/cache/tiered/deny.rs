//! Removes cached facts that the backend denies.

use super::TieredCache;
use super::budget::Budget;
use super::fill_guard::FillGuard;
use super::returns::Return;
use crate::types::link::Key;

impl TieredCache {
    /// Removes these keys from all tiers of all nodes, because the backend has just denied them. If
    /// neither this memory nor the shared tier has a key, the other nodes are not told of it,
    /// because any client can ask for keys that never existed. An entry that only another node's
    /// memory has stays until its time to live ends.
    ///
    /// The leases of these keys go too: their holders may have read the facts that the backend now
    /// denies.
    pub(crate) async fn deny(
        &self,
        keys: &[Key],
        guard: Option<&mut FillGuard>,
        budget: &mut Budget,
    ) {
        let mut was_shared = vec![false; keys.len()];
        let mut is_taken = true;
        if let Some(shared) = &self.shared {
            let tier = &shared.tier;
            let denied = budget.ask("deny", |deadline| tier.deny(keys, deadline));
            match denied.await {
                Ok(held) => was_shared = held,
                Err(error) => {
                    tracing::debug!(%error, "what the backend denied may still be cached");
                    is_taken = false;
                }
            }
        }
        // `DENY`, now or on a later try, also removes the leases.
        if let Some(guard) = guard {
            guard.finished(keys);
        }
        // After the removal in Redis, so that facts which look-ups found before it die too.
        let (held, others): (Vec<_>, Vec<_>) = keys
            .iter()
            .zip(was_shared)
            .partition(|(key, was_shared)| *was_shared || self.memory.keeps(key));
        let keys_of = |some: Vec<(&Key, bool)>| -> Vec<Key> {
            some.into_iter().map(|(key, _)| key.clone()).collect()
        };
        let (held, others) = (keys_of(held), keys_of(others));
        if !held.is_empty() {
            self.work.repairs.increment(1);
            self.work.invalidated.increment(held.len() as u64);
        }
        for key in &held {
            self.memory.generations().bump(key);
        }
        let Some(shared) = &self.shared else { return };
        if !is_taken {
            shared.returns.begin(others, Return::Denied);
        }
        if held.is_empty() {
            return;
        }
        let tier = &shared.tier;
        let told = match is_taken {
            true => budget
                .ask("notify", |deadline| tier.notify(&held, deadline))
                .await
                .is_ok(),
            false => false,
        };
        if !told {
            shared.queue.enqueue_if_room(&held);
        }
    }
}
