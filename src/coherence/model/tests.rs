//! Explores worlds with all rules kept, and for each rule the smallest world that fails when the
//! rule is bent.

use super::faults::Fault;
use super::initial::Has;
use super::state::change::Kind;
use super::state::read::ReadAt;
use super::{ANSWERS, Model, REST};
use crate::coherence::rules::Rule;
use stateright::{Checker, HasDiscoveries, Model as _};
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Instant;

mod slice {
    //! Chooses the rules that one run bends.
    //!
    //! A run bends one rule in each group of neighbours in the table, and the day chooses which.
    //! `LAYERCACHE_MODEL=all` bends all rules, and `LAYERCACHE_MODEL=3` those of day 3.

    use super::{RULES, Rule};
    use std::env;
    use std::time::{Duration, SystemTime};

    const GROUP: usize = 6;
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    /// Returns whether this run bends the rule, and prints what has chosen it.
    pub(super) fn has(rule: Rule) -> bool {
        let number = RULES.iter().position(|other| *other == rule);
        let number = number.expect("a rule of the table");
        let given = env::var("LAYERCACHE_MODEL").ok();
        if given.as_deref() == Some("all") {
            return true;
        }
        let day = given.map_or_else(today, |day| {
            let day = day.parse();
            day.unwrap_or_else(|_| panic!("LAYERCACHE_MODEL is a day's number, or all"))
        });
        let first = number / GROUP * GROUP;
        let members = GROUP.min(RULES.len() - first);
        let chosen = first + day % members;
        println!(
            "LAYERCACHE_MODEL={day} bends {:?} of its group; LAYERCACHE_MODEL=all bends {rule:?}, too",
            RULES[chosen]
        );
        number == chosen
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

    /// Explores the whole world, and checks that all properties hold. If another test explores
    /// more than this world, or the same world, this test leaves it to that test.
    fn holds(self) {
        static EXPLORED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
        let mut others = needed_worlds().into_iter().chain(larger_worlds());
        if let Some((name, _)) = others.find(|(_, other)| other.is_more_than(&self)) {
            println!("{name} explores this world and more");
            return;
        }
        if !EXPLORED.lock().unwrap().insert(format!("{self:?}")) {
            println!("another test explores the same world");
            return;
        }
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
        if !slice::has(rule) {
            return;
        }
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

/// Names each rule with the smallest world that needs it. The properties must fail there when the
/// rule is bent, and hold when all rules are kept.
macro_rules! needed {
    ($($name:ident: $rule:ident, $model:expr;)*) => {
        $(#[test]
        fn $name() {
            let model: Model = $model;
            model.needs(Rule::$rule);
        })*

        /// The rules, in the order of this table.
        const RULES: &[Rule] = &[$(Rule::$rule),*];

        fn needed_worlds() -> Vec<(&'static str, Model)> {
            vec![$((stringify!($name), $model)),*]
        }

        mod kept {
            use super::*;

            $(#[test]
            fn $name() {
                let model: Model = $model;
                model.holds();
            })*
        }
    };
}

use Fault::{
    Crash, Disconnect, EvictEntry, EvictFence, EvictLease, EvictPeerSet, Failover, HandOver, Lag,
    LastBegin, LateBegin, LateCall, LateFill, LateGrant, Renewal, Restart, SetClock,
};

needed! {
    fill_checks_its_lease: FillChecksItsLease, world(COLD, &[1, 1], &[]);
    begin_removes_the_lease: BeginRemovesTheLease, world(COLD, &[1], &[Crash(0)]);
    begin_removes_the_entry: BeginRemovesTheEntry, world(IN_REDIS, &[], &[Crash(0)]);
    begin_before_the_backend: BeginBeforeTheBackend, world(IN_REDIS, &[], &[Crash(0)]);
    the_fence: TheFence, world(COLD, &[1], &[Crash(0)]);
    end_removes_the_lease: EndRemovesTheLease, world(COLD, &[1], &[EvictFence]).beats(&[0, 0]);
    end_checks_its_token: EndChecksItsToken, world(COLD, &[1], &[EvictFence]).beats(&[0, 0]);
    no_end_while_the_call_may_happen:
        NoEndWhileTheCallMayHappen, world(COLD, &[1], &[LateCall(0)]);
    the_fence_is_a_set: TheFenceIsASet,
        world(COLD, &[], &[]).changes(&[(0, Kind::Delete), (0, Kind::Delete)]);
    a_fresh_token_for_each_try:
        AFreshTokenForEachTry, world(COLD, &[1], &[LateBegin(0), EvictFence]).beats(&[0, 0]);
    renewal_never_recreates: RenewalNeverRecreates,
        world(COLD, &[1], &[EvictFence, Renewal(0)]).beats(&[0, 0]);
    stamp_on_values: StampOnValues, world(WARM, &[1], &[]);
    no_read_joins_an_earlier_load: NoReadJoinsAnEarlierLoad, world(COLD, &[1, 1], &[]);
    joining_by_stamp_needs_the_lease: JoiningByStampNeedsTheLease, world(COLD, &[1, 1], &[]);
    joining_by_lease_needs_trust: JoiningByLeaseNeedsTrust, world(IN_REDIS, &[1, 1], &[]);
    no_negative_from_an_earlier_load: NoNegativeFromAnEarlierLoad,
        world(ABSENT, &[1, 1], &[]).changes(&[(0, Kind::Put)]);
    trust_before_the_stamp: TrustBeforeTheStamp, world(WARM, &[1], &[]);
    memory_is_filled_after_redis: MemoryIsFilledAfterRedis, world(COLD, &[1, 1], &[]);
    trust: Trust, world(WARM, &[1], &[]);
    trust_counts_from_the_sending: TrustCountsFromTheSending, world(WARM, &[1], &[]);
    heartbeat_in_order: HeartbeatInOrder, world(WARM, &[1], &[]);
    shared_channel_first: SharedChannelFirst,
        world(IN_REDIS, &[1], &[Disconnect(1)]).beats(&[0, 2]);
    flush_on_resubscribe: FlushOnResubscribe, world(WARM, &[1], &[Disconnect(1)]);
    waiting_for_acknowledgements: WaitingForAcknowledgements, world(WARM, &[1], &[]);
    acknowledgements_carry_the_id:
        AcknowledgementsCarryTheId, world(COLD, &[1, 1], &[EvictFence]);
    peer_set_read_after_the_publish:
        PeerSetReadAfterThePublish, world(IN_REDIS, &[1, 1], &[]).without(1);
    publish_after_begin: PublishAfterBegin, world(IN_REDIS, &[1, 1], &[]);
    publish_before_the_call: PublishBeforeTheCall, world(WARM, &[], &[Crash(0)]);
    wait_counts_from_the_confirmation: WaitCountsFromTheConfirmation, world(WARM, &[1], &[]);
    wait_when_the_peer_set_is_lost: WaitWhenThePeerSetIsLost, world(WARM, &[1], &[EvictPeerSet]);
    wait_when_just_connected: WaitWhenJustConnected,
        world(WARM, &[1], &[Disconnect(0), EvictPeerSet]).beats(&[1, 0]);
    wait_when_the_clock_was_set: WaitWhenTheClockWasSet, world(WARM, &[1], &[SetClock(4)]);
    purge_after_a_failover: PurgeAfterAFailover, world(IN_REDIS, &[1], &[Lag, Failover]);
    another_connection_is_a_lost_fence: AnotherConnectionIsALostFence,
        world(COLD, &[1], &[Lag, EvictFence, Failover]).beats(&[0, 0]);
    purge_takes_leases_first: PurgeTakesLeasesFirst,
        world(COLD, &[1, 1], &[]).changes(&[(0, Kind::Purge)]);
    purge_flushes_last: PurgeFlushesLast,
        world(IN_REDIS, &[1, 1], &[]).changes(&[(0, Kind::Purge)]);
    removals_are_strict: RemovalsAreStrict,
        world(IN_REDIS, &[1], &[Disconnect(0)]).beats(&[0, 0]);
    no_read_from_redis_while_keys_are_queued: NoReadFromRedisWhileKeysAreQueued,
        world(IN_REDIS, &[0], &[LastBegin(0)]).changes(&[(0, Kind::Replace)]).beats(&[0, 0]);
    queued_before_the_fences_end: QueuedBeforeTheFencesEnd,
        world(IN_REDIS, &[0, 0], &[LastBegin(0)]).changes(&[(0, Kind::Replace)]).beats(&[0, 0]);
    queued_until_the_nodes_are_notified: QueuedUntilTheNodesAreNotified,
        world(WARM, &[1], &[LastBegin(0)]).changes(&[(0, Kind::Replace)]).beats(&[0, 0]);
    steps_between_heartbeats_count: StepsBetweenHeartbeatsCount,
        world(WARM, &[1], &[SetClock(3)]).beats(&[1, 0]);
    a_step_hides_no_peer: AStepHidesNoPeer,
        world(WARM, &[1], &[SetClock(3)]).trusts(&[7, 1]);
    the_longest_trust_is_remembered: TheLongestTrustIsRemembered,
        world(WARM, &[1], &[Disconnect(0), EvictPeerSet])
            .trusts(&[1, 2]).beats(&[1, 0]).ticks(3);
    standing_needs_the_place: StandingNeedsThePlace,
        world(WARM, &[1], &[HandOver]).checks(&[0, 1]);
    standing_counts_from_the_begin: StandingCountsFromTheBegin,
        world(WARM, &[1], &[HandOver]).checks(&[0, 1]);
    signed_fence_stands: SignedFenceStands,
        world(IN_REDIS, &[1, 1], &[]).changes(&[(0, Kind::Signed)]).beats(&[0, 0]);
    signed_end_notifies: SignedEndNotifies,
        world(IN_REDIS, &[1], &[EvictFence]).changes(&[(0, Kind::Signed)]).beats(&[0, 0]);
    an_unknown_grant_is_no_lease: AnUnknownGrantIsNoLease,
        world(COLD, &[1], &[LateGrant]).beats(&[0, 0]);
    end_is_confirmed: EndIsConfirmed,
        world(COLD, &[1], &[HandOver]).without(1).checks(&[1]).beats(&[0, 0]).ticks(1);
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

    fn larger_worlds() -> Vec<(&'static str, Model)> {
        vec![$((stringify!($name), $model)),*]
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
