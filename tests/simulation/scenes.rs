//! [`Scene`]: which faults belong together, and in which setting they matter.
//!
//! Most errors need two or three faults in the right order, within some milliseconds, while a change or
//! a load is under way. Faults that are drawn one by one meet so only in one of thousands of runs. So
//! most runs are about one scene, which happens again and again, each time a little differently. In
//! the other runs each fault is drawn by itself.

use super::acts::{Act, Stage};
use super::network::Slowness;
use super::setting::{Setting, one_of};
use super::shape::Shape;
use std::env;
use std::time::Duration;

/// The faults that a run repeats, and their setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scene {
    /// Redis loses the fences of changes that are under way.
    LostFences,
    /// The same, and then a replica that still has the fences replaces the primary.
    RestoredFences,
    /// A node is cut off, and Redis's clock steps.
    SteppedClock,
    /// A node is cut off, and Redis loses the set of nodes.
    LostNodes,
    /// A primary is cut off with some of the nodes, and a replica replaces it.
    CutPrimary,
    /// A primary of a cluster stands still, and goes on after a replica has replaced it.
    FrozenPrimary,
    /// The sentinels' answers to a node arrive after a failover.
    LateSentinels,
    /// A server comes back with old data, or a replica that has missed the last changes replaces it.
    OldData,
    /// Objects are deleted behind the cache's back, and then somebody purges the cache.
    Collections,
    /// Redis receives a command after its node has sent it again on another connection.
    LateTries,
    /// Redis receives the commands of a node late.
    LateCommands,
    /// A message is published late, and then a node hears nothing.
    LateMessages,
    /// A heartbeat comes back late, and then its node hears nothing.
    LateHeartbeats,
    /// A node cannot reach Redis.
    Offline,
    /// Redis has no memory for more.
    FullServers,
    /// Machines lose their power while they change something.
    Deaths,
    /// Many changes come at the same time, and a node hears of some later.
    Crowds,
}

/// One run in this many has no scene.
const WITHOUT: usize = 10;

/// The scenes, and how often each is drawn. The higher the number, the rarer are its errors.
const ALL: [(Scene, usize); 17] = [
    (Scene::LostFences, 1),
    (Scene::RestoredFences, 3),
    (Scene::SteppedClock, 1),
    (Scene::LostNodes, 1),
    (Scene::CutPrimary, 3),
    (Scene::FrozenPrimary, 2),
    (Scene::LateSentinels, 2),
    (Scene::OldData, 1),
    (Scene::Collections, 1),
    (Scene::LateTries, 3),
    (Scene::LateCommands, 1),
    (Scene::LateMessages, 1),
    (Scene::LateHeartbeats, 1),
    (Scene::Offline, 2),
    (Scene::FullServers, 2),
    (Scene::Deaths, 1),
    (Scene::Crowds, 1),
];

impl Scene {
    /// Draws the scene of a run, if `LAYERCACHE_SIM_SCENE` does not name it.
    ///
    /// # Panics
    /// If there is no scene of that name.
    pub(crate) fn draw(random: &mut fastrand::Rng) -> Option<Self> {
        if let Ok(name) = env::var("LAYERCACHE_SIM_SCENE") {
            let mut all = ALL.iter().map(|(scene, _)| *scene);
            let named = all.find(|scene| format!("{scene:?}") == name);
            return Some(named.unwrap_or_else(|| panic!("there is no scene {name}")));
        }
        let has_one = random.usize(..WITHOUT) > 0;
        let all: usize = ALL.iter().map(|(_, often)| often).sum();
        let mut number = random.usize(..all);
        let drawn = ALL.iter().find(|(_, often)| {
            let is_it = number < *often;
            number = number.saturating_sub(*often);
            is_it
        });
        drawn.map(|(scene, _)| *scene).filter(|_| has_one)
    }

    /// Changes the setting of a run, so that the scene's faults matter.
    pub(crate) fn adapt(self, random: &mut fastrand::Rng, setting: &mut Setting) {
        let slow = |most, one_in| Slowness { most, one_in };
        let seconds = Duration::from_secs;
        // While the nodes do not know each other, each change waits for the longest trust, and nothing
        // is cached meanwhile. So there are few changes, and an error stays for long.
        setting.blobs = one_of(random, &[2, 3, 5]);
        (setting.changes, setting.bursts) = (one_of(random, &[10, 20, 40]), 0);
        setting.store.slow = one_of(random, &[1, 8]);
        match self {
            Self::LostFences => {
                setting.store.slow = one_of(random, &[60, 300, 1_500, 3_000]);
                setting.changes = one_of(random, &[20, 50, 100]);
                match random.bool() {
                    true => {
                        setting.store.one_in = one_of(random, &[0, 5]);
                        setting.bursts = one_of(random, &[0, 50]);
                    }
                    // Some deletes of a batch may still happen.
                    false => {
                        setting.blobs = one_of(random, &[1, 2, 4]);
                        setting.changes = one_of(random, &[5, 10]);
                        setting.store.slow = one_of(random, &[300, 1_000]);
                        setting.store.one_in = 4;
                        setting.batches = 700;
                        setting.busy = seconds(6);
                    }
                }
            }
            Self::RestoredFences => {
                setting.shape.redraw(random, Shape::has_two_replicas);
                setting.one_trusts_longer(200, 1_500);
                setting.store.slow = one_of(random, &[800, 1_500]);
                setting.blobs = one_of(random, &[5, 8, 11]);
                setting.changes = one_of(random, &[20, 40]);
                setting.busy = seconds(10);
            }
            Self::SteppedClock => {
                setting.has_many(random);
                setting.draw_trusts(random, &[200, 500, 1_000], 2);
                setting.busy = seconds(7);
            }
            Self::LostNodes => {
                setting.has_many(random);
                match random.u32(..3) > 0 {
                    true => setting.one_trusts_longer(200, 1_000),
                    false => setting.draw_trusts(random, &[500, 1_000], 3),
                }
                setting.busy = seconds(7);
            }
            Self::CutPrimary => {
                setting.has_many(random);
                setting.store.slow = one_of(random, &[1, 8, 300, 800]);
                setting.shape.redraw(random, Shape::has_two_replicas);
                match random.bool() {
                    true => setting.one_trusts_longer(200, 1_000),
                    false => setting.draw_trusts(random, &[200, 500], 3),
                }
                setting.busy = seconds(7);
            }
            Self::FrozenPrimary => {
                let is_fast = |shape: Shape| shape.node_timeout().is_some_and(|time| time < 500);
                setting.shape.redraw(random, is_fast);
                setting.has_many(random);
                setting.one_trusts_longer(200, 2_000);
                setting.busy = seconds(10);
            }
            Self::LateSentinels => {
                setting.has_many(random);
                setting.shape.redraw(random, Shape::has_two_replicas);
                setting.one_trusts_longer(200, 1_000);
                setting.busy = seconds(7);
            }
            Self::OldData => {
                setting.blobs = one_of(random, &[5, 8, 11]);
                setting.far = Some((random.usize(..setting.nodes()), random.u64(10..20)));
                // With a slower network that node would give up each of its reads of Redis.
                setting.network = slow(0, 1);
                setting.store.slow = one_of(random, &[1, 8, 60]);
                setting.changes = one_of(random, &[50, 100, 200]);
            }
            Self::Collections => {
                setting.blobs = one_of(random, &[5, 8, 11]);
                setting.network = one_of(random, &[slow(12, 1), slow(20, 1)]);
                setting.store.slow = one_of(random, &[60, 200]);
                setting.busy = seconds(6);
            }
            Self::LateTries => {
                setting.blobs = one_of(random, &[1, 2, 3]);
                setting.changes = one_of(random, &[10, 20]);
                (setting.store.slow, setting.store.share) = (2_000, 40);
                setting.draw_trusts(random, &[200, 500], 4);
                setting.network = one_of(random, &[slow(0, 1), slow(12, 1)]);
                setting.busy = seconds(6);
            }
            Self::LateCommands => {
                setting.has_many(random);
                setting.busy = seconds(7);
                setting.draw_trusts(random, &[200, 500], 4);
                setting.network = one_of(random, &[slow(12, 1), slow(20, 1)]);
            }
            Self::LateMessages => {
                setting.has_many(random);
                setting.draw_trusts(random, &[500, 1_000], 4);
                setting.network = slow(12, 1);
                setting.busy = seconds(5);
            }
            Self::LateHeartbeats => {
                setting.has_many(random);
                setting.draw_trusts(random, &[500], 1);
                setting.network = slow(20, 1);
                setting.busy = seconds(7);
            }
            Self::Offline => setting.changes = one_of(random, &[50, 200]),
            Self::FullServers => {
                setting.changes = one_of(random, &[50, 100]);
                setting.bursts = one_of(random, &[0, 50]);
                setting.store.slow = one_of(random, &[8, 60]);
                setting.network = one_of(random, &[slow(0, 1), slow(12, 1)]);
                setting.draw_trusts(random, &[500, 1_000], 4);
                setting.busy = seconds(8);
            }
            Self::Deaths => {
                setting.changes = one_of(random, &[20, 50, 100]);
                setting.draw_trusts(random, &[200, 500], 4);
                setting.store.slow = one_of(random, &[8, 60, 300]);
            }
            Self::Crowds => {
                setting.draw_trusts(random, &[500, 1_000], 4);
                setting.network = one_of(random, &[slow(0, 1), slow(4, 1), slow(12, 1)]);
                (setting.changes, setting.bursts) = (0, 20);
                setting.busy = seconds(7);
            }
        }
    }

    /// Draws the faults of one act of the scene.
    pub(crate) fn act(self, random: &mut fastrand::Rng, setting: &Setting) -> Act {
        let mut stage = Stage {
            random,
            setting,
            act: Act::default(),
        };
        let pause = match self {
            Self::LostFences => stage.lost_fences(),
            Self::RestoredFences => stage.restored_fences(),
            Self::SteppedClock => stage.stepped_clock(),
            Self::LostNodes => stage.lost_nodes(),
            Self::CutPrimary => stage.cut_primary(),
            Self::FrozenPrimary => stage.frozen_primary(),
            Self::LateSentinels => stage.late_sentinels(),
            Self::OldData => stage.old_data(),
            Self::Collections => stage.collections(),
            Self::LateTries => stage.late_tries(),
            Self::LateCommands => stage.late_commands(),
            Self::LateMessages => stage.late_messages(),
            Self::LateHeartbeats => stage.late_heartbeats(),
            Self::Offline => stage.offline(),
            Self::FullServers => stage.full_servers(),
            Self::Deaths => stage.deaths(),
            Self::Crowds => stage.crowds(),
        };
        stage.act.pause = Duration::from_millis(pause);
        stage.act
    }
}
