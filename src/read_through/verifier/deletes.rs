//! How does the verifier check deletes?

use super::WeakCore;
use super::judge::{Positive, judge};
use crate::cache::shared::MOST_QUESTIONS;
use crate::telemetry::metrics::{Tier, Verifications};
use crate::types::link::{Key, KeyRef};
use crate::types::question::Question;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, sleep_until};

/// Ages at which a delete is checked. The metrics use the same ages as labels.
const AGES: [Duration; Verifications::AGES.len()] = [
    Duration::from_millis(100),
    Duration::from_secs(1),
    Duration::from_secs(60),
];

/// A deleted key and the time of its delete.
#[derive(Debug)]
pub(super) struct Deleted {
    pub(super) at: Instant,
    pub(super) key: Key,
}

/// The deletes that wait for each age, oldest first.
type Stages = [VecDeque<Deleted>; AGES.len()];

/// Checks deletes until the cache is gone.
pub(super) async fn run(
    core: WeakCore,
    mut deletes: Receiver<Deleted>,
    most: usize,
    seen: Arc<Verifications>,
) {
    let mut stages = Stages::default();
    loop {
        let next = next(&stages);
        tokio::select! {
            biased;
            deleted = deletes.recv() => match deleted {
                None => return,
                Some(deleted) if stages.iter().map(VecDeque::len).sum::<usize>() < most => {
                    stages[0].push_back(deleted);
                }
                Some(_) => seen.dropped.increment(1),
            },
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                for age in (0..AGES.len()).rev() {
                    let due = take_due(&mut stages[age], AGES[age]);
                    if due.is_empty() {
                        continue;
                    }
                    let keys = due.iter().map(|deleted| deleted.key.clone()).collect();
                    if look_for(&core, keys, age, &seen).await.is_none() {
                        return;
                    }
                    if let Some(stage) = stages.get_mut(age + 1) {
                        stage.extend(due);
                    }
                }
            }
        }
    }
}

/// Returns when the next check is due.
fn next(stages: &Stages) -> Option<Instant> {
    let ages = stages.iter().zip(AGES);
    let first = ages.filter_map(|(stage, age)| Some(stage.front()?.at + age));
    first.min()
}

fn take_due(stage: &mut VecDeque<Deleted>, age: Duration) -> Vec<Deleted> {
    let now = Instant::now();
    let is_due = |deleted: &&Deleted| deleted.at + age <= now;
    let count = stage.iter().take(MOST_QUESTIONS).take_while(is_due).count();
    stage.drain(..count).collect()
}

/// Checks whether a tier still has any of these keys. Returns `None` if the cache is gone.
async fn look_for(weak: &WeakCore, keys: Vec<Key>, age: usize, seen: &Verifications) -> Option<()> {
    let core = weak.upgrade()?;
    let cache = core.cache();
    let questions: Vec<_> = keys.iter().cloned().map(Question::from).collect();
    // Take the stamps before anything is read.
    let read_stamps: Vec<_> = questions
        .iter()
        .map(|question| cache.read_stamps(question))
        .collect();
    let memory: Vec<_> = questions
        .iter()
        .map(|question| Some(cache.peek(question)))
        .collect();
    let redis = match cache.fetch_only(&questions).await {
        None => Vec::new(),
        Some(Ok(found)) => found.into_iter().map(Some).collect(),
        Some(Err(_)) => vec![None; questions.len()],
    };
    drop(core);
    let mut positives = Vec::new();
    for (tier, answers) in [(Tier::Memory, memory), (Tier::Redis, redis)] {
        let verdicts = seen.of(Some(age), tier);
        let all = keys.iter().zip(&questions).zip(&read_stamps).zip(answers);
        for (((key, question), read_stamps), answer) in all {
            match answer {
                Some(found) if found.has(KeyRef::from(key).kind()) => positives.push(Positive {
                    question: question.clone(),
                    read_stamps: *read_stamps,
                    tier,
                }),
                Some(_) => verdicts.ok.increment(1),
                None => verdicts.unknown.increment(1),
            }
        }
    }
    judge(weak, positives, seen, Some(age)).await
}
