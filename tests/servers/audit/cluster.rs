//! Tests that in a cluster the audit scans all primaries.

use super::{World, as_go, store_blob, store_link};
use layercache::RepositoryName;
use layercache_cli::admin::{Audit, AuditPosition};
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use std::process::Command;
use std::sync::{Arc, Mutex};
use test_support::cluster::{PASSWORD, RedisCluster};
use test_support::nodes::{LENGTH, blob_path, config_at, digest};
use test_support::redis::output_of;

const REPOSITORIES: u32 = 40;

#[tokio::test]
async fn findings_of_all_primaries_are_fixed() {
    let cluster = RedisCluster::start().await;
    let store = Arc::new(InMemory::new());
    for i in 0..REPOSITORIES {
        let (name, digest) = (repository(i), digest(i));
        store_blob(&store, &digest).await;
        store_link(&store, &name, &digest).await;
        for command in as_go(&name, &digest, LENGTH) {
            send(&cluster, &command);
        }
    }
    for i in 0..REPOSITORIES / 2 {
        store.delete(&blob_path(&digest(i))).await.unwrap();
    }
    let audit = || Audit::new(Arc::clone(&store), config_at(cluster.url())).unwrap();

    let positions = Arc::new(Mutex::new(Vec::<AuditPosition>::new()));
    let heard = Arc::clone(&positions);
    let first = audit().progress(move |so_far| {
        heard.lock().unwrap().extend(so_far.position.clone());
    });
    let first = World::run(first).await.unwrap();
    assert_eq!(first.report.findings(), u64::from(REPOSITORIES));
    let looked_at = first.report.looked_at();
    assert_eq!(looked_at, 3 * u64::from(REPOSITORIES));
    let positions = std::mem::take(&mut *positions.lock().unwrap());

    // From each later position there is less to check, and from the last one nothing.
    let mut before = looked_at;
    for position in &positions {
        let text: AuditPosition = position.to_string().parse().unwrap();
        let rest = World::run(audit().resume_after(&text)).await.unwrap();
        let now = rest.report.looked_at();
        assert!(now <= before, "{now} after {position}, {before} before");
        before = now;
    }
    assert_eq!(before, 0);

    let fixed = World::run(audit().fix(true)).await.unwrap();
    assert_eq!(fixed.report.removed, u64::from(REPOSITORIES));
    let again = World::run(audit()).await.unwrap();
    assert_eq!(again.names(), [""; 0]);
    assert_eq!(again.report.ok, 3 * u64::from(REPOSITORIES / 2));
    for ours in ["layercache::*", "lease::*", "fence::*"] {
        assert_eq!(cluster.keys(ours), [], "the audit left a key");
    }
}

fn repository(i: u32) -> RepositoryName {
    format!("team/app{i}").parse().unwrap()
}

/// Sends a command to the primary that has its key.
fn send(cluster: &RedisCluster, command: &str) {
    let port = cluster.servers[0].port().to_string();
    let mut cli = Command::new(test_support::tools::require("redis-cli"));
    cli.args(["-c", "--no-auth-warning", "-a", PASSWORD, "-p", &port]);
    cli.args(command.split(' '));
    output_of(&mut cli).unwrap();
}
