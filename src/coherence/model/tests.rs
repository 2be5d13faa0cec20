//! Explores worlds with all rules kept, and for each rule the smallest world that fails when the
//! rule is bent.

use super::faults::Fault;
use super::initial::Has;
use super::state::change::Kind;
use super::state::read::ReadAt;
use super::{ANSWERS, Model, REST};
use crate::coherence::rules::Rule;
use stateright::{Checker, HasDiscoveries, Model as _};
use std::time::Instant;

mod slice {
    //! Chooses the rules that one run bends.
    //!
    //! A run bends one rule in each group of neighbours in the table, and the day chooses which.
    //! `LAYERCACHE_MODEL=all` bends all rules, and `LAYERCACHE_MODEL=3` those of day 3.

    use super::{Model, Rule};
    use std::env;
    use std::time::{Duration, SystemTime};

    const GROUP: usize = 6;
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    /// Returns the rules that this run bends, with their worlds, and prints what has chosen them.
    pub(super) fn of(table: Vec<(Rule, Model)>) -> Vec<(Rule, Model)> {
        let given = env::var("LAYERCACHE_MODEL").ok();
        if given.as_deref() == Some("all") {
            return table;
        }
        let day = given.map_or_else(today, |day| {
            let day = day.parse();
            day.unwrap_or_else(|_| panic!("LAYERCACHE_MODEL is a day's number, or all"))
        });
        let chosen: Vec<_> = table
            .chunks(GROUP)
            .map(|group| group[day % group.len()].clone())
            .collect();
        let rules: Vec<_> = chosen.iter().map(|(rule, _)| *rule).collect();
        println!("LAYERCACHE_MODEL={day} bends {rules:?}; LAYERCACHE_MODEL=all bends each rule");
        chosen
    }

    fn today() -> usize {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let days = now.map_or(0, |now| now.as_secs() / DAY.as_secs());
        usize::try_from(days).unwrap_or(0)
    }
}

const WARM: Has = Has {
    object: true,
    entry: true,
    memory: true,
};
const IN_REDIS: Has = Has {
    memory: false,
    ..WARM
};
const COLD: Has = Has {
    entry: false,
    ..IN_REDIS
};
const ABSENT: Has = Has {
    object: false,
    ..COLD
};

/// Returns a world in which node 0 deletes, and node 1 sends one heartbeat. `reads` names the node
/// of each read.
fn world(has: Has, reads: &[usize], faults: &[Fault]) -> Model {
    Model {
        bent: None,
        has: vec![has],
        reads: reads.to_vec(),
        changes: vec![(0, Kind::Delete)],
        faults: faults.to_vec(),
        beats: vec![0, 1],
        checks: Vec::new(),
        trusts: Vec::new(),
        ticks: 2,
        absent: None,
    }
}

impl Model {
    fn changes(mut self, changes: &[(usize, Kind)]) -> Self {
        self.changes = changes.to_vec();
        self
    }

    fn ticks(mut self, ticks: u8) -> Self {
        self.ticks = ticks;
        self
    }

    fn beats(mut self, beats: &[u8]) -> Self {
        self.beats = beats.to_vec();
        self
    }

    fn checks(mut self, checks: &[u8]) -> Self {
        self.checks = checks.to_vec();
        self
    }

    fn trusts(mut self, trusts: &[u8]) -> Self {
        self.trusts = trusts.to_vec();
        self
    }

    fn without(mut self, node: usize) -> Self {
        self.absent = Some(node);
        self
    }

    /// Explores the whole world, and checks that all properties hold.
    fn holds(self) {
        let start = Instant::now();
        let checker = self.checker().threads(2).spawn_dfs().join();
        let (states, depth) = (checker.unique_state_count(), checker.max_depth());
        println!("{states} states, {depth} deep, {:?}", start.elapsed());
        checker.assert_properties();
    }

    /// Returns whether each history of the other world is a history of this one, too, and not the
    /// other way round. Nothing that a world lists has to happen, except that the first reads and
    /// changes begin first.
    fn is_more_than(&self, other: &Self) -> bool {
        self.covers(other) && !other.covers(self)
    }

    fn covers(&self, other: &Self) -> bool {
        let mut left = self.faults.clone();
        let has_fault = |fault: &Fault| {
            let at = left.iter().position(|it| it == fault);
            at.map(|at| left.swap_remove(at)).is_some()
        };
        let alike = (&self.checks, &self.trusts, self.absent, self.beats.len())
            == (
                &other.checks,
                &other.trusts,
                other.absent,
                other.beats.len(),
            );
        alike
            && self.bent == other.bent
            && other.has.iter().all(|has| self.has.contains(has))
            && self.reads.starts_with(&other.reads)
            && self.changes.starts_with(&other.changes)
            && other.faults.iter().all(has_fault)
            && self
                .beats
                .iter()
                .zip(&other.beats)
                .all(|(own, beats)| own >= beats)
            && self.ticks >= other.ticks
    }

    /// Checks that a property fails in this world when the rule is bent.
    fn needs(mut self, rule: Rule) {
        self.bent = Some(rule);
        let start = Instant::now();
        let checker = self.checker().threads(2);
        let checker = checker.finish_when(HasDiscoveries::AnyFailures).spawn_bfs();
        let checker = checker.join();
        let found = checker.discoveries();
        let Some((what, path)) = [ANSWERS, REST]
            .iter()
            .find_map(|name| Some((name, found.get(name)?)))
        else {
            panic!(
                "no property fails without {rule:?}: {} states",
                checker.unique_state_count()
            );
        };
        println!(
            "{rule:?}: {what} after {} states, {:?}:\n{:?}",
            checker.unique_state_count(),
            start.elapsed(),
            path.clone().into_actions()
        );
    }
}

/// Names each rule with the smallest world that needs it.
macro_rules! needed {
    ($($rule:ident: $model:expr;)*) => {
        fn needed_worlds() -> Vec<(Rule, Model)> {
            vec![$((Rule::$rule, $model)),*]
        }
    };
}

/// The properties fail in the world of a rule when the rule is bent.
#[test]
fn the_world_of_a_bent_rule_fails() {
    for (rule, world) in slice::of(needed_worlds()) {
        world.needs(rule);
    }
}

/// The properties hold in the world of each rule when all rules are kept. A world that another one
/// contains is explored as a part of that one.
#[test]
fn the_world_of_each_rule_holds_when_all_rules_are_kept() {
    let worlds: Vec<_> = needed_worlds()
        .into_iter()
        .map(|(_, world)| world)
        .collect();
    let larger = larger_worlds();
    for (number, world) in worlds.iter().enumerate() {
        let is_in = |other: &Model| other.is_more_than(world);
        let is_known = |other: &Model| other.covers(world);
        if !worlds.iter().chain(&larger).any(is_in) && !worlds[..number].iter().any(is_known) {
            world.clone().holds();
        }
    }
}

use Fault::{
    Crash, Disconnect, EvictEntry, EvictFence, EvictLease, EvictPeerSet, Failover, HandOver, Lag,
    LastBegin, LateBegin, LateCall, LateFill, LateGrant, Renewal, Restart, SetClock,
};

needed! {
    FillChecksItsLease: world(COLD, &[1, 1], &[]);
    BeginRemovesTheLease: world(COLD, &[1], &[Crash(0)]);
    BeginRemovesTheEntry: world(IN_REDIS, &[], &[Crash(0)]);
    BeginBeforeTheBackend: world(IN_REDIS, &[], &[Crash(0)]);
    TheFence: world(COLD, &[1], &[Crash(0)]);
    EndRemovesTheLease: world(COLD, &[1], &[EvictFence]).beats(&[0, 0]);
    EndChecksItsToken: world(COLD, &[1], &[EvictFence]).beats(&[0, 0]);
    NoEndWhileTheCallMayHappen: world(COLD, &[1], &[LateCall(0)]);
    TheFenceIsASet: world(COLD, &[], &[]).changes(&[(0, Kind::Delete), (0, Kind::Delete)]);
    AFreshTokenForEachTry: world(COLD, &[1], &[LateBegin(0), EvictFence]).beats(&[0, 0]);
    RenewalNeverRecreates: world(COLD, &[1], &[EvictFence, Renewal(0)]).beats(&[0, 0]);
    StampOnValues: world(WARM, &[1], &[]);
    NoReadJoinsAnEarlierLoad: world(COLD, &[1, 1], &[]);
    JoiningByStampNeedsTheLease: world(COLD, &[1, 1], &[]);
    JoiningByLeaseNeedsTrust: world(IN_REDIS, &[1, 1], &[]);
    NoNegativeFromAnEarlierLoad: world(ABSENT, &[1, 1], &[]).changes(&[(0, Kind::Put)]);
    TrustBeforeTheStamp: world(WARM, &[1], &[]);
    MemoryIsFilledAfterRedis: world(COLD, &[1, 1], &[]);
    Trust: world(WARM, &[1], &[]);
    TrustCountsFromTheSending: world(WARM, &[1], &[]);
    HeartbeatInOrder: world(WARM, &[1], &[]);
    SharedChannelFirst: world(IN_REDIS, &[1], &[Disconnect(1)]).beats(&[0, 2]);
    FlushOnResubscribe: world(WARM, &[1], &[Disconnect(1)]);
    WaitingForAcknowledgements: world(WARM, &[1], &[]);
    AcknowledgementsCarryTheId: world(COLD, &[1, 1], &[EvictFence]);
    PeerSetReadAfterThePublish: world(IN_REDIS, &[1, 1], &[]).without(1);
    PublishAfterBegin: world(IN_REDIS, &[1, 1], &[]);
    PublishBeforeTheCall: world(WARM, &[], &[Crash(0)]);
    WaitCountsFromTheConfirmation: world(WARM, &[1], &[]);
    WaitWhenThePeerSetIsLost: world(WARM, &[1], &[EvictPeerSet]);
    WaitWhenJustConnected: world(WARM, &[1], &[Disconnect(0), EvictPeerSet]).beats(&[1, 0]);
    WaitWhenTheClockWasSet: world(WARM, &[1], &[SetClock(4)]);
    PurgeAfterAFailover: world(IN_REDIS, &[1], &[Lag, Failover]);
    AnotherConnectionIsALostFence: world(COLD, &[1], &[Lag, EvictFence, Failover]).beats(&[0, 0]);
    PurgeTakesLeasesFirst: world(COLD, &[1, 1], &[]).changes(&[(0, Kind::Purge)]);
    PurgeFlushesLast: world(IN_REDIS, &[1, 1], &[]).changes(&[(0, Kind::Purge)]);
    RemovalsAreStrict: world(IN_REDIS, &[1], &[Disconnect(0)]).beats(&[0, 0]);
    NoReadFromRedisWhileKeysAreQueued: world(IN_REDIS, &[0], &[LastBegin(0)]).changes(&[(0, Kind::Replace)]).beats(&[0, 0]);
    QueuedBeforeTheFencesEnd: world(IN_REDIS, &[0, 0], &[LastBegin(0)]).changes(&[(0, Kind::Replace)]).beats(&[0, 0]);
    QueuedUntilTheNodesAreNotified: world(WARM, &[1], &[LastBegin(0)]).changes(&[(0, Kind::Replace)]).beats(&[0, 0]);
    StepsBetweenHeartbeatsCount: world(WARM, &[1], &[SetClock(3)]).beats(&[1, 0]);
    AStepHidesNoPeer: world(WARM, &[1], &[SetClock(3)]).trusts(&[7, 1]);
    TheLongestTrustIsRemembered: world(WARM, &[1], &[Disconnect(0), EvictPeerSet])
            .trusts(&[1, 2]).beats(&[1, 0]).ticks(3);
    StandingNeedsThePlace: world(WARM, &[1], &[HandOver]).checks(&[0, 1]);
    StandingCountsFromTheBegin: world(WARM, &[1], &[HandOver]).checks(&[0, 1]);
    SignedFenceStands: world(IN_REDIS, &[1, 1], &[]).changes(&[(0, Kind::Signed)]).beats(&[0, 0]);
    SignedEndNotifies: world(IN_REDIS, &[1], &[EvictFence]).changes(&[(0, Kind::Signed)]).beats(&[0, 0]);
    AnUnknownGrantIsNoLease: world(COLD, &[1], &[LateGrant]).beats(&[0, 0]);
    EndIsConfirmed: world(COLD, &[1], &[HandOver]).without(1).checks(&[1]).beats(&[0, 0]).ticks(1);
    AnOpenChangeIsConfirmed: world(COLD, &[1], &[HandOver, LateCall(0)]).without(1).checks(&[1]).beats(&[0, 0]).ticks(1);
}

/// Checks that memory and Redis answer reads. A model in which they never answer would prove
/// nothing.
#[test]
fn reads_are_answered_from_all_tiers() {
    use super::Action::{Load, Read};
    for (has, found) in [
        (WARM, vec![Read(0), Read(0)]),
        (IN_REDIS, vec![Read(0), Load(0), Load(0), Load(0), Load(0)]),
    ] {
        let model = world(has, &[1], &[]);
        let mut state = model.init_states().remove(0);
        for action in found {
            state = model.next_state(&state, action).expect("a possible step");
        }
        assert_eq!(state.readers[0].at, ReadAt::Done);
        assert!(Model::answers(&state, 1), "the read has filled memory");
    }
}

/// Worlds with more faults than any single rule needs.
macro_rules! holds {
    ($($name:ident: $model:expr;)*) => {$(
        #[test]
        fn $name() {
            let model: Model = $model;
            model.holds();
        }
    )*

    fn larger_worlds() -> Vec<Model> {
        vec![$($model),*]
    }};
}

holds! {
    reads_on_both_nodes: world(WARM, &[0, 1], &[]).beats(&[1, 1]);
    fence_lease_and_entry_evicted:
        world(COLD, &[1], &[EvictFence, EvictLease, EvictEntry, LateFill]).beats(&[0, 1]);
    fences_evicted_twice: world(COLD, &[1, 1], &[EvictFence, EvictFence]).beats(&[0, 0]);
    begin_lost_twice:
        world(IN_REDIS, &[1], &[LateBegin(0), LateBegin(0), EvictFence]).beats(&[0, 1]);
    both_lose_their_connection:
        world(WARM, &[1], &[Disconnect(0), Disconnect(1)]).beats(&[0, 1]);
    nodes_evicted_after_a_connection:
        world(WARM, &[1], &[EvictPeerSet, EvictPeerSet, Disconnect(1)]).beats(&[1, 1]);
    two_delete: world(COLD, &[1], &[EvictFence])
        .changes(&[(0, Kind::Delete), (1, Kind::Delete)]).beats(&[0, 0]);
    a_put_beside_a_delete: world(IN_REDIS, &[1], &[])
        .changes(&[(0, Kind::Delete), (1, Kind::Put)]).beats(&[0, 0]);
    a_put_that_is_given_up: world(ABSENT, &[1, 1], &[LateCall(0)])
        .changes(&[(0, Kind::Put)]).beats(&[0, 0]);
    a_delete_that_dies: world(COLD, &[1, 1], &[Crash(0)]).beats(&[0, 0]);
    a_delete_that_dies_beside_a_memory: world(WARM, &[1], &[Crash(0)]);
    a_delete_given_up_beside_a_lost_connection:
        world(COLD, &[1], &[LateCall(0), Disconnect(1)]).beats(&[0, 1]);
    a_purge_with_evictions: world(IN_REDIS, &[1], &[EvictPeerSet, Disconnect(1)])
        .changes(&[(0, Kind::Purge)]).beats(&[0, 1]);
    a_failover_with_a_clock_of_its_own:
        world(COLD, &[1], &[Lag, Failover, SetClock(3)]).beats(&[0, 1]);
    a_restart_of_redis: world(WARM, &[1], &[Restart]).beats(&[0, 1]);
    a_restart_beside_a_load: world(COLD, &[1], &[Restart]).beats(&[0, 1]);
    a_third_tick: world(WARM, &[1], &[]).beats(&[0, 2]).ticks(3);
    a_clock_that_steps_between_heartbeats:
        world(WARM, &[1], &[SetClock(3)]).beats(&[2, 0]).ticks(3);
    a_third_node: world(WARM, &[1, 2], &[]).beats(&[0, 0, 1]);
    a_creation_without_redis_beside_a_delete: world(IN_REDIS, &[1], &[Disconnect(1)])
        .changes(&[(0, Kind::Delete), (1, Kind::Put)]).beats(&[0, 0]);
    a_creation_that_is_late_beside_a_delete: world(COLD, &[1], &[LastBegin(1)])
        .changes(&[(0, Kind::Delete), (1, Kind::Put)]).beats(&[0, 0]);
    a_creation_without_redis_is_read_elsewhere_beside_a_delete:
        world(COLD, &[0], &[Disconnect(1)])
            .changes(&[(0, Kind::Delete), (1, Kind::Put)]).beats(&[0, 0]);
    a_replacement_without_redis: world(WARM, &[0, 1], &[Disconnect(0)])
        .changes(&[(0, Kind::Replace)]).beats(&[0, 0]);
    a_replacement_without_redis_and_trust_that_comes_back:
        world(IN_REDIS, &[0], &[Disconnect(0)])
            .changes(&[(0, Kind::Replace)]).beats(&[1, 0]);
    a_signed_url_beside_a_lost_connection: world(WARM, &[1], &[EvictFence, Disconnect(1)])
        .changes(&[(0, Kind::Signed)]).beats(&[0, 1]);
    a_grant_that_is_late: world(IN_REDIS, &[1, 1], &[LateGrant, EvictEntry]).beats(&[0, 0]);
    a_replacement_that_loses_its_end: world(COLD, &[1], &[Disconnect(0), EvictFence])
        .changes(&[(0, Kind::Replace)]).beats(&[0, 0]);
}
