//! A primary and two replicas as processes: the primary is killed again and again in the middle of commits that wait for one of
//! the replicas, the most advanced is promoted, and the old primary goes back and follows. `SEAWALL_KILLS` says how often (3).
#![cfg(all(unix, feature = "serve"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test fails by panicking, and runs processes"
)]

#[path = "../replication/tests/net/certificates.rs"]
mod certificates;
#[path = "replica/cluster.rs"]
mod cluster;
#[path = "replica/operators.rs"]
mod operators;
#[path = "replica/refused.rs"]
mod refused;
#[path = "replica/writers.rs"]
mod writers;

use cluster::{Cluster, NAMES, loopback, position};
use std::collections::BTreeSet;
use writers::Writers;

fn kills() -> usize {
    std::env::var("SEAWALL_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

#[test]
fn a_primary_that_is_killed_is_replaced_and_comes_back_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::new("replica-kills", loopback(), None);
    let mut primary = 0;
    cluster.serve(0);
    (1..3).for_each(|node| cluster.follow(node));
    let writers = Writers::start(&cluster, 0);
    for round in 0..kills() {
        writers.wait(20, &cluster);
        let others = cluster.others(primary);
        others.iter().for_each(|&other| cluster.until_follows(other));
        cluster.kill(primary);
        // Both have to be heard: the one that acknowledged last is among them.
        let (next, promoted) = cluster.promote_one(&others);
        writers.turn_to(next);
        assert!(position(&promoted, "epoch") > round as u64, "{promoted}");
        cluster.until(next, "to be the primary", |status| status["role"] == "primary");
        let rewound = cluster.rewind(primary, next).unwrap();
        assert!(position(&rewound, "lsn") <= position(&promoted, "lsn"), "{rewound} {promoted}");
        cluster.follow(primary);
        primary = next;
    }
    writers.wait(20, &cluster);
    let acknowledged = writers.end();
    let end = position(&cluster.status(primary).unwrap(), "visible");
    for node in cluster.others(primary) {
        cluster.until(node, "to come up with the primary", |status| position(status, "visible") >= end);
    }
    cluster.others(primary).into_iter().for_each(|node| cluster.stop(node));
    cluster.stop(primary);
    assert_eq!(cluster.said("begins with another"), 0, "{}", cluster.errors());
    assert_eq!(cluster.said("copied an image"), 2, "{}", cluster.errors());
    for (node, name) in NAMES.iter().enumerate() {
        let keys = cluster.keys(node);
        let lost: Vec<&String> = acknowledged.difference(&keys).collect();
        assert!(lost.is_empty(), "{name} has lost {lost:?}\n{}", cluster.errors());
    }
    println!("{} kills, {} rows acknowledged, none lost", kills(), acknowledged.len());
}

#[test]
fn a_replica_ships_on() {
    let mut cluster = Cluster::new("replica-cascade", loopback(), None);
    cluster.succeed(0, &["put", "a", "-k", "rows", "k", "v"]);
    let address = cluster.address(0);
    cluster.spawn(0, &["serve", "a", "--replication", &address]);
    cluster.until(0, "to serve", |_| true);
    cluster.follow_any(1, &[0]);
    cluster.until(1, "to follow", |status| status["state"] == "follows");
    cluster.follow_any(2, &[1]);
    cluster.until(2, "to follow a replica", |status| status["state"] == "follows");
    let status = cluster.until(0, "to be followed", |status| {
        let of = &status["followers"][0];
        of["name"] == "b" && of["state"] == "connected" && of["lag_bytes"].is_u64()
    });
    assert_eq!(status["role"], "primary");
    // The last record there is: what stands behind it at the primary is padding.
    let end = position(&cluster.status(1).unwrap(), "applied");
    cluster.until(2, "to have it all", |status| position(status, "applied") >= end);
    assert_eq!(
        cluster.until(1, "to be followed", |status| status["followers"][0]["name"] == "c")["role"],
        "replica"
    );
    let table = cluster.succeed(0, &["status", "--of", &address, "--plain-text"]);
    assert!(table.contains("primary") && table.contains("connected"), "{table}");
    (0..3).rev().for_each(|node| cluster.stop(node));
    assert_eq!(cluster.keys(2), BTreeSet::from(["k".to_owned()]));
    // A replica's store is for replicas, and a primary's for primaries.
    let output = cluster.run(2, &["put", "c", "-k", "rows", "k", "w"]);
    assert!(!output.status.success());
    let output = cluster.run(0, &["replica", "a", "--of", "127.0.0.1:1", "--name", "a", "--plain-text"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() != Some(0) && said.contains("seawall rewind a --to 127.0.0.1:1"), "{said}");
}
