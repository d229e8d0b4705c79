//! A primary and two replicas as processes, each in a network of its own, over mutually authenticated TLS, with links that the test
//! cuts: wholly, in one direction, again and again. Needs root, and iproute2: `tests/netns/network.rs`.
//! `SEAWALL_PROMOTIONS` says how often a primary is replaced in the loop (5).
#![cfg(all(target_os = "linux", feature = "serve"))]
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
#[path = "netns/network.rs"]
mod network;
#[path = "replica/writers.rs"]
mod writers;

use certificates::Authority;
use cluster::{Cluster, LONG, NAMES, position};
use network::{Network, with_network};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use writers::Writers;

const SILENCE: Duration = Duration::from_secs(5);

fn pause(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

/// `a` is the primary, the others follow it, and rows are written.
fn started(name: &str, network: &Network) -> (Cluster, Writers) {
    let mut cluster = Cluster::new(name, network.places(), Some(Authority::new()));
    cluster.serve(0);
    (1..3).for_each(|node| cluster.follow(node));
    let writers = Writers::start(&cluster, 0);
    (1..3).for_each(|node| cluster.until_follows(node));
    writers.wait(20, &cluster);
    (cluster, writers)
}

/// All come to the same, nobody has lost what was acknowledged, and so many images were copied.
fn settle(mut cluster: Cluster, writers: Writers, primary: usize, images: usize) -> usize {
    writers.wait(20, &cluster);
    let acknowledged = writers.end();
    let end = position(&cluster.until(primary, "to answer", |_| true), "visible");
    let others = cluster.others(primary);
    for &node in &others {
        cluster.until(node, "to come up with the primary", |status| position(status, "visible") >= end);
    }
    others.into_iter().for_each(|node| cluster.stop(node));
    cluster.stop(primary);
    let keys: Vec<BTreeSet<String>> = (0..3).map(|node| cluster.keys(node)).collect();
    for (keys, name) in keys.iter().zip(NAMES) {
        let lost: Vec<&String> = acknowledged.difference(keys).collect();
        assert!(lost.is_empty(), "{name} has lost {lost:?}\n{}", cluster.errors());
    }
    assert!(keys.iter().all(|of| *of == keys[0]), "they have not the same rows");
    assert_eq!(cluster.said("copied an image"), images, "{}", cluster.errors());
    acknowledged.len()
}

#[test]
fn a_primary_that_is_cut_off_acknowledges_nothing_and_is_fenced_and_comes_back() {
    with_network("a_primary_that_is_cut_off_acknowledges_nothing_and_is_fenced_and_comes_back", |network| {
        let (mut cluster, writers) = started("netns-isolated", network);
        network.isolate(0, &[1, 2]);
        pause(500);
        let seen = writers.count();
        pause(3_000);
        assert_eq!(writers.count(), seen, "acknowledged, and no replica has it");
        // Of two that count, of which one acknowledges, two promise.
        let (next, promoted) = cluster.promote_one(&[1, 2]);
        let rest = 3 - next;
        // The old one is still at work, and its clients are with it.
        cluster.until_follows(rest);
        pause(1_000);
        assert_eq!(writers.count(), seen, "acknowledged by one that was replaced");
        writers.turn_to(next);
        writers.wait(20, &cluster);
        network.reunite(0, &[1, 2]);
        // A replica that comes upon the old one tells it.
        cluster.stop(rest);
        cluster.follow_any(rest, &[0, next]);
        assert_eq!(cluster.ended(0), Some(1), "{}", cluster.errors());
        let why = format!("another store has taken this one's place, in epoch {}", promoted["epoch"]);
        assert_eq!(cluster.said(&why), 1, "{}", cluster.errors());
        let rewound = cluster.rewind(0, next).unwrap();
        assert!(position(&rewound, "cut_bytes") > 0, "it had what nobody has: {rewound}");
        cluster.follow(0);
        cluster.until_follows(0);
        cluster.until_follows(rest);
        settle(cluster, writers, next, 2);
    });
}

#[test]
fn a_link_that_carries_one_direction_only_is_noticed_and_commits_go_on() {
    with_network("a_link_that_carries_one_direction_only_is_noticed_and_commits_go_on", |network| {
        let (cluster, writers) = started("netns-half-open", network);
        for (from, to) in [(1, 0), (0, 1)] {
            network.cut(from, to);
            let begin = Instant::now();
            // The other replica acknowledges.
            writers.wait(20, &cluster);
            let is = |what| move |status: &Value| status["followers"][0]["state"] == what;
            cluster.until(0, "to notice", is("away"));
            assert!(begin.elapsed() < SILENCE * 4, "{:?}", begin.elapsed());
            writers.wait(20, &cluster);
            network.heal(from, to);
            // Meanwhile it may have followed the other replica.
            cluster.until(0, "to be followed", is("connected"));
        }
        settle(cluster, writers, 0, 2);
    });
}

#[test]
fn a_replica_that_was_cut_off_goes_on_from_where_it_was() {
    with_network("a_replica_that_was_cut_off_goes_on_from_where_it_was", |network| {
        let (cluster, writers) = started("netns-cable", network);
        let before = position(&cluster.status(1).unwrap(), "durable");
        network.plug(1, false);
        writers.wait(200, &cluster);
        cluster.until(0, "to notice", |status| status["followers"][0]["state"] == "away");
        let slots = cluster.until(0, "to answer", |_| true);
        assert!(position(&slots["followers"][0], "durable") >= before);
        network.plug(1, true);
        cluster.until_follows(1);
        let end = position(&cluster.until(0, "to answer", |_| true), "durable");
        cluster.until(1, "to come up", |status| position(status, "durable") >= end);
        settle(cluster, writers, 0, 2);
    });
}

#[test]
fn links_that_flap_lose_nothing() {
    with_network("links_that_flap_lose_nothing", |network| {
        let (cluster, writers) = started("netns-flapping", network);
        for round in 0..30 {
            let node = round % 3;
            network.plug(node, false);
            pause(20 + 37 * (round as u64 * 7 % 10));
            network.plug(node, true);
            pause(20 + 23 * (round as u64 * 3 % 10));
        }
        (1..3).for_each(|node| cluster.until_follows(node));
        settle(cluster, writers, 0, 2);
    });
}

/// What was measured of each round.
#[derive(Default)]
struct Measured {
    /// From the decision to the first commit at the new primary.
    to_commit: Vec<Duration>,
    /// From the first word of `rewind` until the old one follows.
    to_rejoin: Vec<Duration>,
    rewound: usize,
    /// Of those, the ones that had log which the new primary has not.
    cut: usize,
    copied: usize,
}

fn quantiles(times: &mut [Duration]) -> String {
    times.sort();
    let at = |part: usize| times.get((times.len() * part / 100).min(times.len().saturating_sub(1)));
    let [median, most, all] = [50, 95, 100].map(|part| at(part).copied().unwrap_or_default().as_millis());
    format!("median {median} ms, 95 % {most} ms, at most {all} ms")
}

/// What happens to the network, and to the primary, before another one takes its place.
fn strike(round: usize, network: &Network, cluster: &mut Cluster, primary: usize) -> bool {
    let others = cluster.others(primary);
    let other = others[round / 5 % 2];
    match round % 5 {
        // A replica's cable is pulled, and back.
        1 => {
            network.plug(other, false);
            pause(200 + 100 * (round as u64 % 7));
            network.plug(other, true);
            cluster.until_follows(other);
        }
        // The primary is cut off, and stays at work.
        2 => {
            network.isolate(primary, &others);
            pause(300);
            return true;
        }
        // One replica hears no more of the primary, which dies of something else.
        3 => {
            network.cut(primary, other);
            pause(100);
            cluster.kill(primary);
            network.heal(primary, other);
            return false;
        }
        // The link of the primary flaps.
        4 => (0..4).for_each(|_| {
            network.plug(primary, false);
            pause(30);
            network.plug(primary, true);
            pause(60);
        }),
        _ => {}
    }
    cluster.kill(primary);
    false
}

/// One promotion: who is the primary then.
fn replace(
    round: usize,
    network: &Network,
    cluster: &mut Cluster,
    writers: &Writers,
    primary: usize,
    measured: &mut Measured,
) -> usize {
    let others = cluster.others(primary);
    let is_at_work = strike(round, network, cluster, primary);
    let seen = writers.count();
    let decided = Instant::now();
    let (next, promoted) = cluster.promote_one(&others);
    assert!(position(&promoted, "epoch") > round as u64, "{promoted}");
    writers.turn_to(next);
    while writers.count() == seen {
        assert!(decided.elapsed() < LONG, "nothing commits: {}", cluster.describe());
        pause(1);
    }
    measured.to_commit.push(decided.elapsed());
    if is_at_work {
        network.reunite(primary, &others);
        cluster.kill(primary);
    }
    let returns = Instant::now();
    match cluster.rewind(primary, next) {
        Ok(rewound) => {
            measured.rewound += 1;
            measured.cut += usize::from(position(&rewound, "cut_bytes") > 0);
        }
        Err(output) => {
            println!("round {round}: {} needs an image: {output:?}", NAMES[primary]);
            std::fs::remove_dir_all(cluster.dir.join(NAMES[primary])).unwrap();
            measured.copied += 1;
        }
    }
    cluster.follow(primary);
    cluster.until_follows(primary);
    measured.to_rejoin.push(returns.elapsed());
    next
}

#[test]
fn primaries_are_replaced_again_and_again_and_nothing_acknowledged_is_lost() {
    with_network("primaries_are_replaced_again_and_again_and_nothing_acknowledged_is_lost", |network| {
        let rounds = std::env::var("SEAWALL_PROMOTIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
        let (mut cluster, writers) = started("netns-promotions", network);
        let mut measured = Measured::default();
        let mut primary = 0;
        for round in 0..rounds {
            writers.wait(20, &cluster);
            cluster.others(primary).into_iter().for_each(|node| cluster.until_follows(node));
            primary = replace(round, network, &mut cluster, &writers, primary, &mut measured);
        }
        let acknowledged = settle(cluster, writers, primary, 2 + measured.copied);
        let Measured { rewound, cut, copied, mut to_commit, mut to_rejoin } = measured;
        println!("{rounds} promotions, {acknowledged} rows acknowledged, none lost");
        println!("rejoined by rewind: {rewound}, of which {cut} cut log; by a new image: {copied}");
        println!("from the decision to the first commit: {}", quantiles(&mut to_commit));
        println!("from rewind to following: {}", quantiles(&mut to_rejoin));
        assert!(copied * 20 <= rounds, "{copied} of {rounds} took a new image");
    });
}
