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
use std::time::Duration;

/// The faults that a run repeats, and their setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scene {
    /// Redis loses the fences of changes that are under way.
    LostFences,
    /// The same, and then a server of a cluster comes back with an old dump that has the fences.
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
const WITHOUT: usize = 5;

const ALL: [Scene; 17] = [
    Scene::LostFences,
    Scene::RestoredFences,
    Scene::SteppedClock,
    Scene::LostNodes,
    Scene::CutPrimary,
    Scene::FrozenPrimary,
    Scene::LateSentinels,
    Scene::OldData,
    Scene::Collections,
    Scene::LateTries,
    Scene::LateCommands,
    Scene::LateMessages,
    Scene::LateHeartbeats,
    Scene::Offline,
    Scene::FullServers,
    Scene::Deaths,
    Scene::Crowds,
];

impl Scene {
    pub(crate) fn draw(random: &mut fastrand::Rng) -> Option<Self> {
        (random.usize(..WITHOUT) > 0).then(|| one_of(random, &ALL))
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
                setting.store.one_in = one_of(random, &[0, 5]);
                setting.bursts = one_of(random, &[0, 50]);
                setting.changes = one_of(random, &[50, 100]);
            }
            Self::RestoredFences => {
                setting.shape.redraw(random, Shape::is_cluster);
                setting.store.slow = 3_000;
                setting.changes = one_of(random, &[50, 100]);
                setting.busy = seconds(5);
            }
            Self::SteppedClock => {
                setting.draw_trusts(random, &[200, 500, 1_000], 2);
                setting.busy = seconds(7);
            }
            Self::LostNodes => {
                match random.bool() {
                    true => setting.one_trusts_longer(200, 1_000),
                    false => setting.draw_trusts(random, &[500, 1_000], 3),
                }
                setting.busy = seconds(7);
            }
            Self::CutPrimary => {
                setting.shape.redraw(random, Shape::has_two_replicas);
                match random.bool() {
                    true => setting.one_trusts_longer(200, 2_000),
                    false => setting.draw_trusts(random, &[200, 500, 2_000], 3),
                }
                setting.busy = seconds(7);
            }
            Self::FrozenPrimary => {
                let is_fast = |shape: Shape| shape.node_timeout().is_some_and(|time| time < 500);
                setting.shape.redraw(random, is_fast);
                setting.one_trusts_longer(200, 2_000);
                setting.busy = seconds(6);
            }
            Self::LateSentinels => {
                setting.shape.redraw(random, Shape::has_two_replicas);
                setting.one_trusts_longer(200, 1_000);
                setting.busy = seconds(7);
            }
            Self::OldData => {
                setting.far = Some((random.usize(..setting.nodes()), random.u64(10..20)));
                // With a slower network that node would give up each of its reads of Redis.
                setting.network = slow(0, 1);
                setting.store.slow = one_of(random, &[1, 8, 60]);
                setting.changes = one_of(random, &[50, 100, 200]);
            }
            Self::Collections => {
                setting.network = one_of(random, &[slow(12, 1), slow(20, 1)]);
                setting.store.slow = one_of(random, &[8, 60]);
                setting.changes = one_of(random, &[50, 100, 200]);
            }
            Self::LateTries => {
                setting.store.slow = 2_000;
                setting.busy = seconds(5);
                setting.network = one_of(random, &[slow(0, 1), slow(12, 1)]);
                setting.changes = one_of(random, &[50, 100, 200]);
            }
            Self::LateCommands => {
                setting.draw_trusts(random, &[200, 500], 4);
                setting.network = one_of(random, &[slow(12, 1), slow(20, 1)]);
            }
            Self::LateMessages => {
                setting.draw_trusts(random, &[500, 1_000], 4);
                setting.network = slow(12, 1);
                setting.busy = seconds(5);
            }
            Self::LateHeartbeats => {
                setting.draw_trusts(random, &[500], 1);
                setting.network = slow(20, 1);
                setting.busy = seconds(7);
            }
            Self::Offline => setting.changes = one_of(random, &[50, 200]),
            Self::FullServers => {
                setting.changes = one_of(random, &[50, 200]);
                setting.network = one_of(random, &[slow(12, 1), slow(20, 1)]);
            }
            Self::Deaths => {
                setting.changes = one_of(random, &[20, 50, 100]);
                setting.draw_trusts(random, &[200, 500], 4);
                setting.store.slow = one_of(random, &[8, 60, 300]);
            }
            Self::Crowds => {
                setting.draw_trusts(random, &[500, 1_000], 4);
                setting.network = one_of(random, &[slow(150, 6), slow(60, 4), slow(40, 4)]);
                (setting.changes, setting.bursts) = (0, 3);
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
