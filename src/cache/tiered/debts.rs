//! What this node owes the shared tier, and the task that pays it.

use crate::Error;
use crate::cache::shared::{SharedSettings, SharedTier};
use crate::coherence::journal::{Journal, Payment};
use crate::link::Key;
use crate::metrics::{Part, limit_hits, owed_keys, purges};
use metrics::Counter;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::sleep;

/// How long after an attempt to pay that failed comes the next.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Debts {
    tier: Arc<dyn SharedTier>,
    settings: SharedSettings,
    journal: Mutex<Journal<Key>>,
    owed: Part,
    limit_hits: Counter,
    purges: Counter,
}

/// Why the shared tier is not asked.
#[derive(Debug, thiserror::Error)]
#[error("{0} changes of this node have still to be told to it")]
struct Indebted(usize);

impl Debts {
    pub(super) fn new(tier: Arc<dyn SharedTier>, settings: SharedSettings) -> Arc<Self> {
        Arc::new(Self {
            tier,
            settings,
            journal: Mutex::new(Journal::new()),
            owed: owed_keys(),
            purges: purges("owed"),
            limit_hits: limit_hits("journal"),
        })
    }

    fn journal(&self) -> MutexGuard<'_, Journal<Key>> {
        // The journal is whole between any two of its changes, whoever panicked.
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing is owed; an error says that something is.
    pub(super) fn is_clear(&self) -> Result<(), Error> {
        let journal = self.journal();
        match journal.is_clear() {
            true => Ok(()),
            false => Err(Error::Cache {
                tier: "redis",
                operation: "look-up",
                source: Box::new(Indebted(journal.len())),
            }),
        }
    }

    /// Remembers what could not be taken away, and takes it away as soon as that can be done.
    pub(super) fn owe(self: &Arc<Self>, keys: impl IntoIterator<Item = Key>) {
        let mut journal = self.journal();
        let was_everything = journal.is_everything();
        let begins = journal.owe(keys);
        if !was_everything && journal.is_everything() {
            self.limit_hits.increment(1);
        }
        self.show(&journal);
        drop(journal);
        self.begin(begins);
    }

    /// The same for what the backend has denied: beyond some thousands it is not remembered, and the
    /// next who reads it takes it away.
    pub(super) fn owe_if_room(self: &Arc<Self>, keys: &[Key]) {
        let mut journal = self.journal();
        let begins = journal.owe_if_room(keys.to_vec());
        self.show(&journal);
        drop(journal);
        if begins.is_none() {
            self.limit_hits.increment(1);
        }
        self.begin(begins.unwrap_or(false));
    }

    fn begin(self: &Arc<Self>, begins: bool) {
        if begins {
            tracing::warn!("Redis is not asked until this node's changes have been told to it");
            tokio::spawn(Arc::clone(self).pay());
        }
    }

    async fn pay(self: Arc<Self>) {
        loop {
            let Some(payment) = self.journal().next() else {
                tracing::info!("this node's changes have been told to Redis");
                return;
            };
            let paid = match &payment {
                Payment::Keys(keys) => self.take_away(keys).await,
                Payment::Everything => {
                    self.purges.increment(1);
                    self.tier.purge().await
                }
            };
            match paid {
                Ok(()) => {
                    let mut journal = self.journal();
                    journal.paid();
                    self.show(&journal);
                }
                Err(error) => {
                    tracing::debug!(%error, "owed still");
                    self.journal().back(payment);
                    if Arc::strong_count(&self) == 1 {
                        tracing::warn!("stopped before all changes were told to Redis");
                        return;
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn show(&self, journal: &Journal<Key>) {
        self.owed.set(journal.len() as i64);
    }

    async fn take_away(&self, keys: &[Key]) -> Result<(), Error> {
        loop {
            let session = self.tier.session();
            let deadline = self.settings.removal_deadline();
            self.tier.withdraw(keys, deadline).await?;
            self.tier.publish(keys, deadline).await?.await;
            if session.is_some() && self.tier.session() == session {
                return Ok(());
            }
        }
    }
}
