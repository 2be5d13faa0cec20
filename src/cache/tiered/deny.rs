//! What the backend denies is taken away.

use super::TieredCache;
use super::budget::Budget;
use super::guard::FillGuard;
use super::returns::Return;
use crate::link::Key;

impl TieredCache {
    /// Takes away everywhere what the tiers hold of these keys, because the backend has just denied it.
    /// Of what neither this memory nor the shared tier holds nobody is told: anybody can ask for what was
    /// never there. An entry that is in another node's memory alone stays until its time to live ends.
    ///
    /// The leases of these keys go, too: whoever holds one may have read what is denied now.
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
        // Whoever takes them away now or later takes their leases, too.
        if let Some(guard) = guard {
            guard.settled(keys);
        }
        // Only now: what a look-up has found before it was taken away dies, too.
        let (held, others): (Vec<_>, Vec<_>) = keys
            .iter()
            .zip(was_shared)
            .partition(|(key, was_shared)| *was_shared || self.memory.keeps(key));
        let keys_of = |some: Vec<(&Key, bool)>| -> Vec<Key> {
            some.into_iter().map(|(key, _)| key.clone()).collect()
        };
        let (held, others) = (keys_of(held), keys_of(others));
        if !held.is_empty() {
            self.work.heals.increment(1);
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
                .ask("mention", |deadline| tier.mention(&held, deadline))
                .await
                .is_ok(),
            false => false,
        };
        if !told {
            shared.debts.owe_if_room(&held);
        }
    }
}
