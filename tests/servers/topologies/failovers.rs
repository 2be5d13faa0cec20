//! Runs readers and changers while Redis fails over or moves slots. The promise must allow every
//! answer, and no read may fail.
//!
//! With `LAYERCACHE_HISTORY_SEED` the tests begin with that seed.

use layercache::layout::{Distribution, Layout};
use layercache::{CacheStatus, CachedStore, Freshness, Link};
use std::env;
use std::time::{Duration, Instant};
use test_support::cluster::{HOME, Member, RedisCluster};
use test_support::history::ask::{digest, name};
use test_support::history::cluster::node;
use test_support::history::flaky::Flaky;
use test_support::history::record::{History, Outcome, now};
use test_support::history::report::judge;
use test_support::history::traffic::{Load, Traffic};
use test_support::redis::{Setup, Version};
use test_support::sentinel::Watched;
use test_support::server::Signal;
use tokio::time::sleep;

const NODES: usize = 3;
/// How long the servers run without a fault between two faults.
const CALM: Duration = Duration::from_millis(2500);
/// The longest time that an answer may take. The store pauses up to four times for one answer.
const LONGEST: Duration = Duration::from_secs(6);
/// How long the nodes may take to recover.
const PATIENCE: Duration = Duration::from_secs(20);

/// Nodes at an address, and the traffic on them.
struct Work {
    name: &'static str,
    nodes: Vec<CachedStore<Flaky>>,
    store: Flaky,
    history: History,
    traffic: Traffic,
    /// The number of blobs that [`Work::recovers`] has used.
    probes: u32,
}

impl Work {
    async fn start(name: &'static str, url: &str) -> Self {
        let seed = env::var("LAYERCACHE_HISTORY_SEED");
        let seed = seed.map_or_else(|_| fastrand::u64(..1 << 32), |seed| seed.parse().unwrap());
        println!("{name}: seed {seed}");
        let store = Flaky::new(seed, 0);
        let nodes: Vec<_> = (0..NODES).map(|_| node(&store, url)).collect();
        let load = Load {
            blobs: 6,
            readers: 3,
            changers: 2,
            has_quiet: false,
        };
        let history = History::default();
        let traffic = Traffic::start(&nodes, &store, &history, seed, load).await;
        let mut work = Self {
            name,
            nodes,
            store,
            history,
            traffic,
            probes: 0,
        };
        work.recovers("at first").await;
        sleep(CALM).await;
        work
    }

    fn notes(&self, begin: u64, what: &str) {
        self.history.fault(begin, what);
    }

    /// Waits until each node can cache and remove blobs again, at every primary.
    async fn recovers(&mut self, when: &str) {
        const BLOBS: u32 = 8;
        let begin = Instant::now();
        let layout = Distribution::default();
        for node in 0..NODES {
            let repository = self.nodes[node].registry().repository(name(9));
            for _ in 0..BLOBS {
                let blob = digest(u32::MAX - self.probes);
                self.probes += 1;
                let link = layout.link_path(&Link::layer(name(9), blob)).unwrap();
                let path = layout.blob_path(&blob).unwrap();
                self.store.put_now(&path, "content").await;
                self.store.put_now(&link, blob.to_string()).await;
                loop {
                    let answer = repository.stat(&blob, Freshness::Cached).await.unwrap();
                    assert!(answer.value.is_some());
                    if answer.status == CacheStatus::Memory {
                        break;
                    }
                    let waited = begin.elapsed();
                    assert!(
                        waited < PATIENCE,
                        "{}: node {node} caches nothing {when}",
                        self.name
                    );
                    sleep(Duration::from_millis(5)).await;
                }
                while let Err(error) = repository.unlink(&blob).await {
                    let waited = begin.elapsed();
                    assert!(
                        waited < PATIENCE,
                        "{}: {when}, node {node}: {error}",
                        self.name
                    );
                    sleep(Duration::from_millis(20)).await;
                }
            }
        }
        println!(
            "{}: all is well {when}, after {:?}",
            self.name,
            begin.elapsed()
        );
    }

    /// Returns how many changes were made, and how many were refused.
    async fn ends(mut self) -> (usize, usize) {
        self.recovers("in the end").await;
        sleep(CALM).await;
        self.traffic.wait_until_enough().await;
        self.traffic.stop().await;
        let records = self.history.take();
        let verdict = judge(self.name, &records);
        assert!(verdict.is_enough(1), "{verdict:?}");
        let longest = records
            .reads
            .iter()
            .map(|read| read.span.end - read.span.begin);
        let longest = Duration::from_nanos(longest.max().unwrap_or(0));
        assert!(longest < LONGEST, "a read took {longest:?}");
        println!("{}: the longest read took {longest:?}", self.name);
        let count = |outcome| {
            let changes = records.changes.iter();
            changes.filter(|change| change.outcome == outcome).count()
        };
        (count(Outcome::Done), count(Outcome::Refused))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_recover_when_the_sentinel_primary_is_killed() {
    let mut watched = Watched::start().await;
    let mut work = Work::start("a Sentinel's primary dies", &watched.url()).await;
    let begin = now();
    watched.servers[0].kill();
    let primary = watched.failed_over_from(0).await;
    work.notes(begin, "the primary died, until another was one");
    work.recovers("after the failover").await;
    assert_ne!(primary, 0);
    work.ends().await;
}

/// The old primary does not know that it was replaced until a Sentinel tells it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_recover_when_the_sentinel_primary_freezes_and_continues() {
    let watched = Watched::start().await;
    let mut work = Work::start("a Sentinel's primary freezes", &watched.url()).await;
    let begin = now();
    watched.servers[0].signal(Signal::Stop);
    watched.failed_over_from(0).await;
    work.notes(begin, "the primary stood still, until another was one");
    work.recovers("after the failover").await;
    let begin = now();
    work.traffic.unlink_all(1).await;
    watched.servers[0].signal(Signal::Cont);
    watched.follows(0).await;
    work.notes(begin, "the old primary woke, until it followed the new one");
    work.ends().await;
}

/// The old primary wakes before any client has had the time to connect to the new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_recover_when_the_old_primary_continues_after_its_replacement() {
    let watched = Watched::start().await;
    let work = Work::start("a Sentinel's primary wakes early", &watched.url()).await;
    let begin = now();
    watched.servers[0].signal(Signal::Stop);
    watched.failed_over_from(0).await;
    work.traffic.unlink_all(1).await;
    watched.servers[0].signal(Signal::Cont);
    work.notes(begin, "the primary stood still, until another was one");
    sleep(CALM).await;
    work.ends().await;
}

/// A Sentinel fails over on command, as operators do it before they restart a server.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_recover_from_a_manual_sentinel_failover() {
    let setup = Setup::new(Version::Valkey, &[]);
    let watched = Watched::start_as(setup).await;
    let work = Work::start("a Sentinel hands over", &watched.url()).await;
    for _ in 0..2 {
        let (begin, old) = (now(), watched.primary());
        watched.sentinels[0].hand_over().await;
        watched.failed_over_from(old).await;
        work.notes(begin, "a Sentinel handed over");
        sleep(CALM).await;
    }
    work.ends().await;
}

/// First a primary without the home key dies, and then the one that has the home key. Their
/// replicas do not receive their last writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_recover_when_cluster_primaries_are_killed() {
    let mut cluster = RedisCluster::start().await;
    let mut work = Work::start("primaries of a cluster die", &cluster.url()).await;
    for (failing, what) in [(away(&cluster), "a primary"), (home(&cluster), "the home")] {
        let replica = cluster.replica_of(&failing).server;
        let begin = now();
        cluster.servers[replica].signal(Signal::Stop);
        cluster.servers[failing.server].cli(&["CLIENT", "KILL", "TYPE", "replica"]);
        work.traffic.unlink_all(0).await;
        cluster.servers[failing.server].kill();
        cluster.servers[replica].signal(Signal::Cont);
        cluster.failed_over_from(&failing).await;
        work.notes(begin, &format!("{what} died, until another was one"));
        work.recovers(&format!("after {what} died")).await;
        sleep(CALM).await;
    }
    work.ends().await;
}

/// The primaries wake, and do not know yet that they were replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_recover_when_cluster_primaries_freeze_and_continue() {
    let cluster = RedisCluster::start().await;
    let work = Work::start("primaries of a cluster freeze", &cluster.url()).await;
    for (failing, what) in [(away(&cluster), "a primary"), (home(&cluster), "the home")] {
        let begin = now();
        cluster.servers[failing.server].signal(Signal::Stop);
        cluster.failed_over_from(&failing).await;
        work.traffic.unlink_all(1).await;
        cluster.servers[failing.server].signal(Signal::Cont);
        work.notes(begin, &format!("{what} stood still, and another is one"));
        sleep(CALM).await;
    }
    work.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_follow_moved_slots() {
    moves(Version::Redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_follow_moved_slots_on_valkey() {
    moves(Version::Valkey).await;
}

/// Moves slots that have sets, hashes and the home key. The home key moves to a primary that no
/// node knew.
async fn moves(version: Version) {
    let name = match version {
        Version::Valkey => "slots of Valkey's cluster move",
        _ => "slots of a cluster move",
    };
    let mut cluster = RedisCluster::start_as(Setup::new(version, &[])).await;
    let mut work = Work::start(name, &cluster.url()).await;
    let grown = cluster.grow().await;
    for (i, key) in ours().into_iter().enumerate() {
        let slot = cluster.slot(&key);
        let from = cluster.owner(slot);
        let others = cluster.primaries().into_iter();
        let others: Vec<_> = others.filter(|primary| primary.id != from.id).collect();
        let to = if key == HOME && from.id != grown.id {
            &grown
        } else {
            &others[i % others.len()]
        };
        let begin = now();
        match version {
            Version::Valkey => cluster.migrate_slot(slot, to).await,
            _ => {
                let pause = if i % 2 == 0 { 20 } else { 200 };
                let pause = Duration::from_millis(pause);
                cluster.move_slot(slot, to, pause).await;
            }
        }
        work.notes(begin, &format!("the slot of {key} moved"));
        sleep(Duration::from_millis(600)).await;
    }
    work.recovers("after all moves").await;
    let (done, refused) = work.ends().await;
    // No server was down, so this is no outage.
    assert!(refused * 20 < done, "{refused} refused, {done} done");
}

/// Keys of the cache, with the home key before and after the others.
fn ours() -> Vec<String> {
    let sets = (0..2).map(|repository| format!("repository::{}::blobs", name(repository)));
    let hashes = (0..3).map(|blob| format!("blobs::{}", digest(blob)));
    let home = || [HOME.to_owned()].into_iter();
    home().chain(sets).chain(hashes).chain(home()).collect()
}

/// Returns the primary that has the home key of the nodes.
fn home(cluster: &RedisCluster) -> Member {
    cluster.primary_of(HOME)
}

/// Returns a primary without the home key, if possible one that has a repository's links.
fn away(cluster: &RedisCluster) -> Member {
    let home = home(cluster);
    let sets = (0..2).map(|repository| format!("repository::{}::blobs", name(repository)));
    let mut owners = sets.map(|set| cluster.primary_of(&set));
    let owner = owners.find(|owner| owner.id != home.id);
    let any = || {
        let mut primaries = cluster.primaries().into_iter();
        primaries.find(|primary| primary.id != home.id)
    };
    owner.or_else(any).expect("more than one primary")
}
